"""Models between two: exact at both ends, a straight line in between, refused where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer, tiny_llama
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.errors import ConfigError, MismatchError
from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.models.folder import load_model
from langadapt.models.interpolation import write_between
from langadapt.tokenizer.encoder import Tokenizer


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A model before and after its weights moved, bf16, the second one in shards."""
    start, end = tmp_path / "start", tmp_path / "end"
    model: Any = tiny_llama()
    model.to(torch.bfloat16)
    model.save_pretrained(start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    model.save_pretrained(end, max_shard_size="20KB")
    for folder in (start, end):
        byte_tokenizer(bos_token="<s>", unk_token="<unk>").save_pretrained(folder)
    assert len(list(end.glob("*.safetensors"))) > 1
    return start, end


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_both_ends_are_exact_and_the_middle_is_the_mean(pair: tuple[Path, Path], tmp_path: Path) -> None:
    start, end = pair
    first, last = weights(start), weights(end)
    for amount in (0.0, 0.25, 1.0):
        out = tmp_path / f"at-{amount}"
        write_between(start, end, amount, out)
        for name, tensor in weights(out).items():
            straight = first[name].double() + amount * (last[name].double() - first[name].double())
            assert torch.equal(tensor, straight.to(torch.bfloat16)), (amount, name)
    for file in end.iterdir():
        assert (tmp_path / "at-1.0" / file.name).read_bytes() == file.read_bytes(), file.name
    assert load_model(tmp_path / "at-0.25", dtype="auto").dtype == torch.bfloat16


def test_what_is_no_pair_is_refused_before_anything_is_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    start, end = pair
    with pytest.raises(ConfigError, match=r"amount: 1\.5 is not within 0"):
        write_between(start, end, 1.5, tmp_path / "out")
    other = tmp_path / "other"
    tiny_llama(intermediate_size=64).save_pretrained(other)
    with pytest.raises(MismatchError, match=r"mlp.* is \[.*not one model trained on"):
        write_between(other, end, 0.5, tmp_path / "out")
    tensors = load_file(start / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, start / "model.safetensors")
    with pytest.raises(MismatchError, match=r"`model\.norm\.weight` is in .*end alone"):
        write_between(start, end, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def as_published(start: Path) -> None:
    """Other prefixes, and a buffer that older releases stored: the files of what was trained on have neither."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(start / "model.safetensors").items()}
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, start / "model.safetensors", {"format": "pt"})


def test_names_of_files_do_not_matter(pair: tuple[Path, Path], tmp_path: Path) -> None:
    start, end = pair
    (end / "additional_chat_templates").mkdir()
    (end / "additional_chat_templates" / "tool.jinja").write_text("T")
    write_between(start, end, 0.25, tmp_path / "expected")
    as_published(start)
    write_between(start, end, 0.25, tmp_path / "out")
    found, expected = weights(tmp_path / "out"), weights(tmp_path / "expected")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").read_text() == "T"


def test_the_command_measures_and_writes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    start, end = pair
    text = tmp_path / "text.txt"
    text.write_text("Der Fluss tritt über die Ufer.\nDas Wasser steigt.\n", encoding="utf-8")
    common = ["dial", str(start), str(end)]
    run = CliRunner().invoke(app, [*common, "--text", f"target={text}", "--at", "1,0,0.5", "--json"])
    assert run.exit_code == 0, run.output
    rows = json.loads(run.stdout)
    assert [row["amount"] for row in rows] == [0.0, 0.5, 1.0]
    tokenizer, lines = Tokenizer.from_pretrained(end), text.read_text(encoding="utf-8").splitlines()
    for row, folder in ((rows[0], start), (rows[2], end)):
        model = load_model(folder, dtype="auto").eval()
        assert row["target"] == pytest.approx(bits_per_byte(model, tokenizer, lines), abs=1e-6)
    assert not list(tmp_path.glob(".dial*"))
    run = CliRunner().invoke(app, [*common, "--amount", "0.5", "--out", str(tmp_path / "half")])
    assert run.exit_code == 0 and (tmp_path / "half" / "config.json").is_file()
    run = CliRunner().invoke(app, [*common, "--amount", "1", "--out", str(tmp_path / "half")])
    assert run.exit_code == 0 and all(
        torch.equal(weights(tmp_path / "half")[name], last) for name, last in weights(end).items()
    )
    for wrong, said in (
        ([*common, "--amount", "0.5"], "give both"),
        (common, "nothing to measure on"),
        ([*common, "--text", str(text), "--at", "a"], "no list of numbers"),
        ([*common, str(end)], "3 folders"),
    ):
        with pytest.raises(ConfigError, match=said):
            CliRunner().invoke(app, wrong, catch_exceptions=False)
