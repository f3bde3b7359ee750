"""Whether ``AutoTokenizer`` gives the ids that a tokenizer gives here, and always the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import scratch_folder
from langadapt.errors import ConfigError, DataError
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import load_auto
from langadapt.tokenizer.package import package_errors

PROBES = (
    "It's 12345 words,  a\ttab\n\n and x_y!",
    "Straße für 3,50 €: ÄÖÜ ß …",
    " 中文字 привет مرحبا 😀",
    "aaaa    bbbb\r\n",
)
"""Texts that tokenizers of different kinds cut differently."""
TELLING = 1000
"""Tokens that are tried besides, and as many numbers."""


def check_agreement(tokenizer: Tokenizer, folder: Path) -> None:
    """Make sure that ``AutoTokenizer`` sees ``tokenizer`` in the model's folder that it was written to.

    For models of some types transformers takes a class of its own, whatever the files say, which cuts text its own way.

    Raises:
        ConfigError: it sees another one.
        DataError: it can neither load it nor encode with it.
    """
    said = disagreement(tokenizer, folder)
    if said is not None:
        raise ConfigError(f"{tokenizer.name}: {said}")


def disagreement(tokenizer: Tokenizer, folder: Path) -> str | None:
    """Why the ids of ``AutoTokenizer`` in ``folder``, where ``tokenizer`` was written to, are others; none where they
    are the same.

    Raises:
        DataError: it can neither load it nor encode with it.
    """
    auto, texts = load_auto(folder), [*PROBES, *telling(tokenizer)]
    backend = auto.backend_tokenizer
    with package_errors(f"{tokenizer.name}: transformers cannot encode with it"):
        theirs = auto(texts, add_special_tokens=False).input_ids
        alike = one_text(tokenizer, backend.normalizer)
    if getattr(backend.model, "dropout", None):
        return "its `dropout` makes transformers cut at random; set it to null there"
    if alike:
        return (
            f"its added tokens {alike[0]!r} and {alike[1]!r} are the same to its normalizer: which of them is found is "
            "chance, each time that it is loaded; take one out, or write `normalized: false` for them"
        )
    if any(found != tokenizer.encode(text).tolist() for text, found in zip(texts, theirs, strict=True)):
        return (
            f"beside this model transformers reads it as a {type(auto).__name__}, which cuts text in another way; take "
            "a tokenizer that is made like the model's own (`like: source`, `--like MODEL`)"
        )
    return None


def doubts(tokenizer: Tokenizer) -> list[str]:
    """What :func:`check_agreement` would say of a folder with nothing but the tokenizer."""
    with scratch_folder("langadapt-tokenizer") as folder:
        tokenizer.save_pretrained(folder)
        try:
            said = disagreement(tokenizer, folder)
        except DataError as error:
            said = str(error).removeprefix(f"{folder}: ").removeprefix(f"{tokenizer.name}: ")
    return [] if said is None else [said.replace("beside this model ", "")]


def one_text(tokenizer: Tokenizer, normalizer: Any) -> tuple[str, str] | None:
    """Two added tokens that a normalizer makes the same text of."""
    found: dict[str, str] = {}
    for _, token, _, normalized in tokenizer.added_tokens():
        text = normalizer.normalize_str(token) if normalized and normalizer is not None else token
        if found.setdefault(text, token) != token:
            return found[text], token
    return None


def telling(tokenizer: Tokenizer) -> list[str]:
    """Texts of single tokens that another cut would divide, spread over the vocabulary: without tokens for them, texts
    that are cut in two ways have the same ids in both."""
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    numbers = [text for text in texts if sum(letter.isdigit() for letter in text) > 1]
    rest = texts[:: max(len(texts) // TELLING, 1)]
    return [text for text in (*numbers[:TELLING], *rest) if text and "\ufffd" not in text]
