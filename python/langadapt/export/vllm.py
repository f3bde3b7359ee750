"""What vLLM needs of a model folder, looked at without vLLM, and the line that serves the model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from langadapt.artefacts.plain_json import read_object
from langadapt.errors import DataError, shorten
from langadapt.models.folder import AGAIN, read_config, read_generation, stated_context, text_config
from langadapt.models.weights import read_entries, same_values, weight_files
from langadapt.tokenizer.check import Finding, chat_template, model_token_ids, verdict
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.templates import chat_templates

ARCHITECTURES = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "PhiForCausalLM",
        "Phi3ForCausalLM",
        "OlmoForCausalLM",
        "Olmo2ForCausalLM",
        "GPT2LMHeadModel",
        "GPTNeoXForCausalLM",
        "FalconForCausalLM",
        "BloomForCausalLM",
        "StableLmForCausalLM",
        "CohereForCausalLM",
        "GraniteForCausalLM",
        "SmolLM3ForCausalLM",
    }
)
"""Classes with a model of their own in vLLM; others run through its transformers backend, slower."""
DTYPES = ("bfloat16", "float16", "float32")
VOCABULARY_SHARD = 64
"""vLLM pads each GPU's share of the vocabulary to this; a table that is padded so costs it no copy."""


def check_vllm(folder: str | Path, *, gpus: int = 1) -> tuple[list[Finding], str]:
    """Findings, and the line that serves the model.

    Args:
        folder: of the model, with its tokenizer.
        gpus: that share the model (tensor parallelism).

    Raises:
        DataError, FileNotFoundError: there is no configuration or no tokenizer.
    """
    folder = Path(folder)
    config, tokenizer = read_config(folder), Tokenizer.from_pretrained(folder)
    text = {**config, **text_config(config)}
    found = [
        architecture(config),
        weights(folder, text),
        dtype(text),
        heads(text, gpus),
        vocabulary(folder, text, tokenizer, gpus),
        model_token_ids(tokenizer, folder),
        tokenizer_files(folder),
        chat_template(tokenizer, None),
        generation(folder, tokenizer),
    ]
    return found, launch_line(folder, text, gpus, chat=bool(chat_templates(tokenizer.companions)))


def architecture(config: dict[str, Any]) -> Finding:
    """Whether vLLM has a model of this class."""
    name = next(iter(config.get("architectures") or ()), None)
    if name is None:
        return Finding("architecture", "failed", "config.json names no `architectures`; save the model by transformers")
    if name not in ARCHITECTURES:
        return Finding("architecture", "warning", f"{name} runs through vLLM's transformers backend, if at all")
    return Finding("architecture", "ok", name)


def weights(folder: Path, text: dict[str, Any]) -> Finding:
    """Whether the weights are whole, and nothing else lies there that vLLM would read as weights."""
    try:
        files = weight_files(folder)
        entries = read_entries(folder)
        ends = [entry for name, entry in entries.items() if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
        apart = text.get("tie_word_embeddings") and len(ends) == 2 and not same_values(*ends)
    except DataError as error:
        return Finding("weights", "failed", shorten(str(error)))
    others = sorted({file.name for file in folder.glob("*.safetensors")} - {file.name for file in files})
    kinds = {entry.dtype for entry in entries.values()}
    # Without an index vLLM loads every safetensors file in the folder.
    failures = [f"{', '.join(others)}: would be read as weights, too; move away"] if others else []
    failures += ["lm_head.weight would be left out; set `tie_word_embeddings` to false in config.json"] if apart else []
    return verdict("weights", failures, [], f"{len(files)} safetensors files, {', '.join(sorted(kinds))}")


def dtype(text: dict[str, Any]) -> Finding:
    """Whether vLLM can compute in the type that the configuration names."""
    name = text.get("dtype", text.get("torch_dtype"))
    if name is None:
        return Finding("dtype", "warning", "config.json names none; vLLM takes that of the weights, or float16")
    plain = str(name).removeprefix("torch.")
    if plain not in DTYPES:
        return Finding("dtype", "failed", f"{name!r} is none of {', '.join(DTYPES)}")
    return Finding("dtype", "ok", plain)


def heads(text: dict[str, Any], gpus: int) -> Finding:
    """Whether attention can be shared by the GPUs."""
    count = text.get("num_attention_heads", text.get("n_head"))
    if not isinstance(count, int):
        return Finding("heads", "skipped", "config.json does not say how many heads there are")
    if count % gpus:
        return Finding("heads", "failed", f"{count} heads cannot be shared by {gpus} GPUs")
    return Finding("heads", "ok", f"{count // gpus} of {count} heads on each GPU")


def vocabulary(folder: Path, text: dict[str, Any], tokenizer: Tokenizer, gpus: int) -> Finding:
    """Whether the rows fit the ids and can be shared."""
    size = text.get("vocab_size")
    rows = {
        entry.shape[0]
        for name, entry in read_entries(folder).items()
        if name.endswith(("embed_tokens.weight", "lm_head.weight", "wte.weight"))
    }
    failures, warnings = [], []
    if not isinstance(size, int):
        return Finding("vocabulary", "failed", "config.json has no `vocab_size`")
    if rows and rows != {size}:
        failures.append(
            f"vocab_size is {size:,}, the weights have {', '.join(f'{one:,}' for one in sorted(rows))} rows"
        )
    if tokenizer.vocab_size > size:
        failures.append(f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {size:,} rows")
    if size % (VOCABULARY_SHARD * gpus):
        warnings.append(f"{size:,} rows are no multiple of {VOCABULARY_SHARD * gpus}; vLLM pads them in memory")
    return verdict("vocabulary", failures, warnings, f"{size:,} rows for {tokenizer.vocab_size:,} ids")


def tokenizer_files(folder: Path) -> Finding:
    """Whether `AutoTokenizer` can load the folder without code of its own."""
    if not (folder / "tokenizer.json").is_file():
        return Finding("tokenizer files", "warning", "no tokenizer.json; vLLM would convert or use a slow tokenizer")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return Finding("tokenizer files", "failed", "no tokenizer_config.json: special tokens would have no roles")
    if "auto_map" in read_object(config, AGAIN):
        return Finding("tokenizer files", "failed", "tokenizer_config.json asks for code of its own (`auto_map`)")
    return Finding("tokenizer files", "ok", "tokenizer.json and tokenizer_config.json")


def generation(folder: Path, tokenizer: Tokenizer) -> Finding:
    """Whether replies end: vLLM stops at the end tokens of the generation config."""
    content = read_generation(folder)
    if content is None:
        status = "ok" if tokenizer.eos_token_id is not None else "failed"
        return Finding("end of replies", status, "no generation_config.json: the tokenizer's end token counts")  # type: ignore[arg-type]
    ends = content.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    own = tokenizer.eos_token_id
    if own is not None and own not in listed:
        detail = f"generation_config.json stops at {ends}, the tokenizer's end token is {own}"
        return Finding("end of replies", "failed", detail)
    names = ", ".join(repr(tokenizer.id_to_token(id)) for id in listed if isinstance(id, int))
    return Finding("end of replies", "ok", f"at {names}")


def launch_line(folder: Path, text: dict[str, Any], gpus: int, *, chat: bool) -> str:
    """``vllm serve ...``: with no context longer than the model's, and no chat that there is no template for."""
    parts = ["vllm", "serve", str(folder.resolve()), "--served-model-name", folder.resolve().name]
    kind = str(text.get("dtype", text.get("torch_dtype")) or "auto").removeprefix("torch.")
    parts += ["--dtype", kind if kind in ("bfloat16", "float16") else "auto"]
    context = stated_context(text)
    if context is not None:
        parts += ["--max-model-len", str(context)]
    if gpus > 1:
        parts += ["--tensor-parallel-size", str(gpus)]
    line = " ".join(map(shlex.quote, parts))
    return line if chat else f"{line}  # no chat template: completions only"
