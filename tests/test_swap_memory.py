"""What a swap holds in memory: its embedding matrices, never the model, never all similarities."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from transformers import AutoTokenizer, LlamaConfig

from langadapt.swap.files import swap_folder
from langadapt.swap.rows.focus import similarity_weights

STATUS = Path("/proc/self/status")


def peak_growth(work: Callable[[], Any]) -> int:
    """Bytes by which resident memory rose at most while ``work`` ran."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the kernel does not let the peak be set back")

    def read(name: str) -> int:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    before = read("VmRSS")
    work()
    return read("VmHWM") - before


def test_all_similarities_are_never_held() -> None:
    generator = torch.Generator().manual_seed(0)
    new, anchors = (
        torch.nn.functional.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (12_000, 12_000)
    )
    similarity_weights(new[:50], anchors, threads=1)
    whole = 4 * len(new) * len(anchors)
    assert peak_growth(lambda: similarity_weights(new, anchors, threads=1)) < whole / 2


def sparse_model(folder: Path, rows: int) -> int:
    """A model of 0.5 GB in bf16 whose tensors are holes in the file; returns the size of an embedding matrix."""
    shape = {"hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = LlamaConfig(vocab_size=rows, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, **shape)
    with torch.device("meta"):
        from transformers import LlamaForCausalLM

        shapes = {name: list(value.shape) for name, value in LlamaForCausalLM(config).named_parameters()}
    header, at = {}, 0
    for name, size in shapes.items():
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at := at + 2 * int(np.prod(size))]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + at)
    config.save_pretrained(folder)
    assert at > 400e6
    return 2 * rows * 1024


def test_a_model_on_disk_is_never_in_memory(tmp_path: Path) -> None:
    save(byte_level(ENGLISH, 420), tmp_path / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(metaspace(GERMAN, 440), tmp_path / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    (tmp_path / "model").mkdir()
    matrix = sparse_model(tmp_path / "model", 8192)
    AutoTokenizer.from_pretrained(tmp_path / "source").save_pretrained(tmp_path / "model")
    grown = peak_growth(
        lambda: swap_folder(tmp_path / "model", tmp_path / "target", tmp_path / "out", method="subword_mean")
    )
    # One matrix before and after, a float32 part of it, buffers of the copy.
    assert grown < 4 * matrix + 64e6
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 400e6
