"""A tokenizer as GGUF holds it: token by row of the model, with types, scores or merges, and special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from langadapt.errors import ConfigError
from langadapt.tokenizer.cutting import METASPACE
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.llamacpp import LlamaCppForm, llamacpp_form
from langadapt.tokenizer.templates import chat_templates
from langadapt.tokenizer.vocabulary import BYTE_TOKEN

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens (``llama_token_type``)."""


@dataclass(frozen=True)
class GgufVocabulary:
    """What a file says of its tokenizer."""

    form: LlamaCppForm
    tokens: list[str]
    """By id, one for each row of the model."""
    types: list[int]
    scores: list[float] | None
    """Of the SentencePiece style: minus the rank of the merge that makes the token."""
    merges: list[str] | None
    """Of byte-level BPE."""
    roles: dict[str, int]
    """``bos`` and so on to ids."""
    add_bos: bool
    template: str | None


def gguf_vocabulary(tokenizer: Tokenizer, rows: int) -> GgufVocabulary:
    """The tokenizer of a model with ``rows`` embedding rows; those without a token are unused.

    Raises:
        ConfigError: llama.cpp has no tokenizer that reads text like this one; says which it has.
    """
    form = llamacpp_form(tokenizer)
    if form.model is None:
        raise ConfigError(f"{tokenizer.name}: {form}; train the tokenizer with that pattern")
    if rows < tokenizer.vocab_size:
        raise ConfigError(f"{tokenizer.name}: {tokenizer.vocab_size} ids, but the model has {rows} rows")
    definition = json.loads(tokenizer.definition)
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in definition["model"]["merges"]]
    tokens, types = token_list(tokenizer, definition["model"].get("unk_token"), rows, spaces=form.model == "llama")
    scores = merges = None
    if form.model == "llama":
        ranks: dict[str, int] = {}
        for rank, (left, right) in enumerate(pairs):
            ranks.setdefault(left + right, rank)
        scores = [-float(ranks.get(token, 0)) for token in tokens]
    else:
        merges = [f"{left} {right}" for left, right in pairs]
    roles = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "unk")}
    start = tokenizer.encode("a", add_special_tokens=True)[:1].tolist()
    return GgufVocabulary(
        form,
        tokens,
        types,
        scores,
        merges,
        {role: id for role, id in roles.items() if id is not None},
        add_bos=roles["bos"] is not None and start == [roles["bos"]],
        template=chat_templates(tokenizer.companions).get("default"),
    )


def token_list(tokenizer: Tokenizer, unknown: str | None, rows: int, *, spaces: bool) -> tuple[list[str], list[int]]:
    """Tokens and types of all rows; ``spaces``: U+2581 stands for a space in this vocabulary."""
    added = {id: special for id, _, special, _ in tokenizer.added_tokens()}
    tokens, types = [], []
    for id in range(rows):
        token = tokenizer.id_to_token(id)
        if token is None:
            tokens.append(f"[PAD{id}]")
            types.append(UNUSED)
            continue
        kind = NORMAL
        if token == unknown:
            kind = UNKNOWN
        elif id in added:
            kind = CONTROL if added[id] else USER_DEFINED
        elif spaces and BYTE_TOKEN.fullmatch(token):
            kind = BYTE
        # llama.cpp looks for these in the text before spaces are replaced.
        tokens.append(token.replace(METASPACE, " ") if kind == USER_DEFINED and spaces else token)
        types.append(kind)
    return tokens, types


def describe_vocabulary(writer: Any, vocabulary: GgufVocabulary) -> None:
    """Write a tokenizer's entries with a ``gguf.GGUFWriter``."""
    form = vocabulary.form
    writer.add_tokenizer_model(form.model)
    writer.add_tokenizer_pre(form.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(form.space_in_front)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for role, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if role in vocabulary.roles:
            add(vocabulary.roles[role])
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)
