"""The Modelfile that Ollama makes a model from, beside a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

from langadapt.export.vocabulary import GgufVocabulary
from langadapt.models.folder import read_generation
from langadapt.tokenizer.encoder import Tokenizer


def modelfile(file: str, vocabulary: GgufVocabulary, folder: Path) -> str:
    """Lines for ``ollama create NAME -f FILE``.

    Ollama reads the chat template of the GGUF file itself; a base model gets the bare prompt. The end tokens of the
    generation config stop a reply.

    Args:
        file: name of the GGUF file, which lies beside.
        vocabulary: its tokenizer.
        folder: the model's own, for its generation config.
    """
    lines = [f"FROM ./{file}"]
    if vocabulary.template is None:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    lines += [f"PARAMETER stop {json.dumps(token, ensure_ascii=False)}" for token in end_tokens(folder)]
    for name, value in sampling(folder).items():
        lines.append(f"PARAMETER {name} {value:g}")
    return "\n".join(lines) + "\n"


def end_tokens(folder: Path) -> list[str]:
    """Tokens that end a reply."""
    ids = (read_generation(folder) or {}).get("eos_token_id")
    tokenizer = Tokenizer.from_pretrained(folder)
    listed = ids if isinstance(ids, list) else [ids if ids is not None else tokenizer.eos_token_id]
    found = [tokenizer.id_to_token(id) for id in listed if isinstance(id, int)]
    return [token for token in found if token is not None]


def sampling(folder: Path) -> dict[str, float]:
    """How the model's makers sample, where they say so."""
    content = read_generation(folder) or {}
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    values = {name: content.get(name) for name in names}
    spelt = {"repetition_penalty": "repeat_penalty"}
    return {spelt.get(name, name): float(value) for name, value in values.items() if isinstance(value, (int, float))}
