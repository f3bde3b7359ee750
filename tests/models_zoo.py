"""Every causal class of transformers, made tiny from its configuration: what the swap makes of it.

`python tests/models_zoo.py` writes docs/models.md; a slow test holds that the page is up to date.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from langadapt.errors import LangadaptError
from langadapt.swap.files import read_model, swap_folder

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
SIZE = 420
LARGEST = 40_000_000
"""Parameters of a model that is still tiny enough to be tried."""
SIZES = {
    r"vocab_size(_per_layer_input)?": SIZE,
    r"(hidden_size|n_embd|d_model|dim|embedding_size|word_embed_proj_dim|model_dim)": 64,
    r"(num_(hidden_)?layers|n_layers?|(encoder|decoder)_layers|num_hidden_groups)": 2,
    r"(num_attention_heads|n_heads?|num_heads|(encoder|decoder)_attention_heads|num_query_heads)": 4,
    r"(num_key_value_heads|num_kv_heads)": 4,
    r"(head_dim|v_head_dim|qk_nope_head_dim|attention_head_dim|kv_channels)": 16,
    r"(intermediate_size|n_inner|ffn_dim|d_ff|(encoder|decoder)_ffn_dim|.*_intermediate_size|ffn_hidden_size)": 96,
    r"(num_experts|num_local_experts|n_routed_experts|moe_num_experts)": 4,
    r"(num_experts_per_tok|moe_topk|moe_k|top_k_experts)": 2,
    r"(max_position_embeddings|n_positions|n_ctx|max_seq_len)": 128,
    r"hidden_size_per_layer_input": 8,
    r"encoder_hash_byte_group_vocab": 50,
    r"num_kv_shared_layers": 0,
}
"""Names of settings to tiny values."""


OVERRIDES: dict[str, dict[str, int]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "mamba2": {"head_dim": 32},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 4, "head_dim": 16},
}
"""What single classes need besides."""


@dataclass(frozen=True)
class Row:
    """One class."""

    kind: str
    name: str
    outcome: str
    """``swapped``, ``refused`` or ``not tried``."""
    detail: str


def shrink(config: PretrainedConfig, kind: str) -> None:
    """Make a configuration tiny, in place; sections too."""
    # Gemma 4 says by number which layers are special.
    layers = None if kind.startswith("gemma4") else getattr(config, "num_hidden_layers", None)
    for key, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            shrink(value, kind)
        elif isinstance(value, list) and len(value) == layers:
            kinds = [*dict.fromkeys(value)] if all(isinstance(item, str) for item in value) else value
            setattr(config, key, (kinds if len(kinds) > 1 else value)[:2])
        elif key.endswith("token_id") and isinstance(value, int):
            setattr(config, key, 0)
        elif type(value) is int and not (layers is None and "layers" in key):
            for pattern, size in SIZES.items():
                if re.fullmatch(pattern, key):
                    setattr(config, key, size)
    for key, size in OVERRIDES.get(kind, {}).items():
        setattr(config, key, size)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":")


def try_class(kind: str, work: Path) -> Row:
    """Build, swap, load; an error that is none of langadapt's goes up."""
    name = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])
    model, out = work / kind, work / f"{kind}-swapped"
    try:
        config = AutoConfig.for_model(kind)
        shrink(config, kind)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
        name = type(skeleton).__name__
        size = sum(parameter.numel() for parameter in skeleton.parameters())
        if size > LARGEST:
            return Row(kind, name, "not tried", f"{size / 1e6:.0f} M parameters where others are tiny")
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(model)
    except Exception as error:
        return Row(kind, name, "not tried", f"no tiny model: {first_line(error)}")
    AutoTokenizer.from_pretrained(work / "source").save_pretrained(model)
    try:
        tables = read_model(model).tables
        swap_folder(model, work / "target", out, method="mean")
    except LangadaptError as error:
        if out.exists() or "\n" in str(error):
            raise
        return Row(kind, name, "refused", str(error).removeprefix(f"{model}: "))
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    wrong = [key for keys in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[keys]]
    if wrong:
        raise AssertionError(f"{kind}: the swapped files do not load: {wrong[:3]}")
    return Row(kind, name, "swapped", ", ".join(f"`{table}`" for table in tables.names))


def try_all(work: Path, kinds: Iterable[str] = ()) -> list[Row]:
    """All classes, or some."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    save(byte_level(ENGLISH, SIZE), work / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(metaspace(GERMAN, 440), work / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    rows = []
    for kind in kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        rows.append(try_class(kind, work))
        for folder in (work / kind, work / f"{kind}-swapped"):
            shutil.rmtree(folder, ignore_errors=True)
    return rows


def page(rows: list[Row]) -> str:
    """The table for people."""
    counts = Counter(row.outcome for row in rows)
    head = f"""# Models

Every causal class of transformers {transformers.__version__}, made tiny from its own configuration with random
weights: what the swap makes of it, and which tables by token id it finds. Swapped means that the files load again, with
nothing missing and nothing left over; refused is one line before anything is written. Made by
`python tests/models_zoo.py`.

{counts["swapped"]} swapped, {counts["refused"]} refused, {counts["not tried"]} not tried: their defaults make no model,
or none that is tiny.

| model type | class | swap | tables, or why not |
|---|---|---|---|
"""
    lines = (f"| `{row.kind}` | {row.name} | {row.outcome} | {row.detail.replace('|', '/')} |" for row in rows)
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = try_all(Path(folder), sys.argv[1:])
    if sys.argv[1:]:
        sys.stdout.write(page(made))
    else:
        PAGE.write_text(page(made), encoding="utf-8")
