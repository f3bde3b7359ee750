"""The acceptance test of a tokenizer: what to look at before a model is trained on it.

Every check gives one :class:`Finding`. ``failed`` means that text or meaning is lost, or that a model cannot use the
tokenizer; ``warning`` means that it works but wastes tokens or rows; ``skipped`` says what was missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from langadapt.errors import DataError, shorten
from langadapt.models.folder import read_config, text_config
from langadapt.terminal import literal
from langadapt.tokenizer.agreement import doubts
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.llamacpp import llamacpp_form
from langadapt.tokenizer.package import load_package, package_errors
from langadapt.tokenizer.roles import tokenizer_config
from langadapt.tokenizer.samples import MARKED, SAMPLES
from langadapt.tokenizer.templates import chat_templates

Status = Literal["ok", "warning", "failed", "skipped"]

UNREACHABLE_SHARE = 0.01
"""A larger share of the vocabulary that no text becomes is a failure, a smaller one a warning."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    """What was looked at."""
    status: Status
    """``ok``, ``warning``, ``failed`` or ``skipped``."""
    detail: str
    """What was found, for people."""


def check_tokenizer(
    tokenizer: Tokenizer | str | Path, *, against: str | Path | None = None, lines: Iterable[str] = ()
) -> list[Finding]:
    """Look at a tokenizer from all sides.

    Args:
        tokenizer: a tokenizer, its folder, or its name on the hub.
        against: folder of the model that is to use it: its embedding rows, special token ids and chat template count.
        lines: more text for the round trip and for the comparison with SentencePiece, such as a validation file.

    Raises:
        DataError: there is no tokenizer.
        FileNotFoundError: ``against`` is no folder of a model.
    """
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    extra = tuple(lines)
    checks: list[Callable[[], Finding]] = [
        lambda: speed(tokenizer),
        lambda: round_trip(tokenizer, extra),
        lambda: sentencepiece_parity(tokenizer, extra),
        lambda: combining_marks(tokenizer, extra),
        lambda: verdict("transformers", doubts(tokenizer), [], "`AutoTokenizer` gives the same ids"),
        lambda: unreachable_tokens(tokenizer),
        lambda: special_tokens(tokenizer),
        lambda: special_tokens_in_text(tokenizer),
        lambda: beginning_and_end(tokenizer),
        lambda: digits(tokenizer),
        lambda: indentation(tokenizer),
        lambda: printable_ascii(tokenizer),
        lambda: chat_template(tokenizer, None if against is None else Path(against)),
        lambda: ids_without_token(tokenizer),
        lambda: llama_cpp(tokenizer),
    ]
    if against is not None:
        folder = Path(against)
        checks += [lambda: embedding_rows(tokenizer, folder), lambda: model_token_ids(tokenizer, folder)]
    return [check() for check in checks]


def speed(tokenizer: Tokenizer) -> Finding:
    """Whether the core encodes, or what sends text through the ``tokenizers`` package."""
    if tokenizer.foreign is None:
        return Finding("speed", "ok", "encoded by langadapt itself")
    return Finding("speed", "warning", f"encoded by the tokenizers package, some 30 times slower: {tokenizer.foreign}")


def combining_marks(tokenizer: Tokenizer, extra: Sequence[str]) -> Finding:
    """Whether the pattern cuts words before vowel signs and accents: no token can ever join the parts."""
    name = "combining marks"
    package = load_package(tokenizer.definition, tokenizer.name)

    def is_cut(word: str) -> bool:
        normal = package.normalizer.normalize_str(word) if package.normalizer is not None else word
        pieces = package.pre_tokenizer.pre_tokenize_str(normal) if package.pre_tokenizer is not None else []
        starts = {start for _, (start, _) in pieces if 0 < start < len(normal)}
        return any(unicodedata.category(normal[start]).startswith("M") for start in starts)

    samples, given = ([word for text in texts for word in text.split()] for texts in (MARKED, extra))
    with package_errors(tokenizer.name):
        cut = [word for word in samples if is_cut(word)]
        share = sum(map(is_cut, given)) / max(len(given), 1)
    if not cut:
        return Finding(name, "ok", "no word is cut before a vowel sign or an accent")
    theirs = f", and {share:.1%} of those of the given text" if given else ""
    detail = (
        f"{len(cut)} of {len(samples)} sample words of marked scripts are cut at a mark, such as {cut[0]!r}{theirs}"
    )
    remedy = "; a pattern with marks (`auto`, `tokenizer extend --widen`) would not" if share else ""
    return Finding(name, "warning" if share else "ok", detail + remedy)


def round_trip(tokenizer: Tokenizer, extra: Sequence[str]) -> Finding:
    """Whether decoding gives back the very text."""
    lost: dict[str, str] = {}
    for kind, samples in (SAMPLES | {"given text": extra}).items():
        for sample in samples:
            back = tokenizer.decode(tokenizer.encode(sample))
            if back != sample:
                lost.setdefault(kind, difference(sample, back))
    if not lost:
        return Finding("round trip", "ok", "all samples come back as they were")
    return Finding("round trip", "failed", "; ".join(f"{kind}: {what}" for kind, what in lost.items()))


def difference(text: str, back: str) -> str:
    """The first place where two texts differ, in words."""
    at = next(
        (n for n, pair in enumerate(zip(text, back, strict=False)) if pair[0] != pair[1]), min(len(text), len(back))
    )
    return f"{text[max(at - 5, 0) : at + 10]!r} comes back as {back[max(at - 5, 0) : at + 10]!r}"


def sentencepiece_parity(tokenizer: Tokenizer, extra: Sequence[str]) -> Finding:
    """Whether ``tokenizer.json`` and the ``tokenizer.model`` beside it give the same ids."""
    name = "SentencePiece parity"
    model = tokenizer.companion("tokenizer.model")
    if model is None:
        return Finding(name, "skipped", "there is no tokenizer.model")
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except RuntimeError as error:
        return Finding(name, "failed", f"tokenizer.model is no SentencePiece model: {shorten(str(error))}")
    counts = []
    example = ""
    for kind, samples in (SAMPLES | {"given text": extra}).items():
        lines = [line for sample in samples for line in ([sample] if kind != "given text" else sample.splitlines())]
        differing = [line for line in lines if processor.encode(line) != tokenizer.encode(line).tolist()]
        if differing:
            counts.append(f"{len(differing)} of {len(lines)} texts of {kind}")
            example = example or f"SentencePiece reads {processor.decode(processor.encode(differing[0]))[:40]!r}"
    if not counts:
        return Finding(name, "ok", "the same ids on all samples")
    return Finding(name, "failed", f"other ids on {', '.join(counts)}; {example}")


def unreachable_tokens(tokenizer: Tokenizer) -> Finding:
    """Pieces that no text becomes: rows that are never trained."""
    name = "unreachable tokens"
    if tokenizer.native is None:
        return Finding(name, "skipped", "only known for BPE tokenizers that run natively")
    ids = tokenizer.native.unreachable()
    if not ids:
        return Finding(name, "ok", "every piece can come out")
    some = ", ".join(repr(tokenizer.id_to_token(id)) for id in ids[:5])
    status: Status = "failed" if len(ids) > UNREACHABLE_SHARE * tokenizer.vocab_size else "warning"
    return Finding(name, status, f"{len(ids):,} of {tokenizer.vocab_size:,}, such as {some}")


ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


def special_tokens(tokenizer: Tokenizer) -> Finding:
    """Whether the roles are filled, by tokens that exist and are marked special."""
    failures, warnings = [], []
    for role in ROLES:
        token = tokenizer.special_token(role)
        if token is None:
            if role == "eos_token":
                failures.append("no eos_token in tokenizer_config.json")
            elif role != "unk_token":
                warnings.append(f"no {role}")
        elif tokenizer.token_to_id(token) is None:
            failures.append(f"{role} {token!r} is not in the vocabulary")
        elif tokenizer.token_to_id(token) not in tokenizer.special_token_ids:
            warnings.append(f"{role} {token!r} is not marked special")
    if (pad := tokenizer.pad_token_id) is not None and pad == tokenizer.eos_token_id:
        warnings.append("pad_token is eos_token: masking the one masks the other")
    named = ", ".join(
        f"{role[:3]} {tokenizer.special_token(role)!r}" for role in ROLES if tokenizer.special_token(role)
    )
    return verdict("special tokens", failures, warnings, named)


def verdict(check: str, failures: list[str], warnings: list[str], fine: str) -> Finding:
    """Failures before warnings before what is fine."""
    status: Status = "failed" if failures else "warning" if warnings else "ok"
    return Finding(check, status, "; ".join(failures + warnings) or fine)


def special_tokens_in_text(tokenizer: Tokenizer) -> Finding:
    """Whether special tokens are found wherever they stand, as training data and chat templates need it."""
    missed, odd = [], []
    for id, token, special, normalized in tokenizer.added_tokens():
        if not special:
            continue
        if id not in tokenizer.encode(f"a{token}b") or id not in tokenizer.encode(token):
            missed.append(token)
        elif normalized:
            odd.append(token)
    failures = [f"not found between letters: {listed(missed)} (normalized: true)"] if missed else []
    warnings = [f"normalized: true, so a normalizer may change what is looked for: {listed(odd)}"] if odd else []
    return verdict("special tokens in text", failures, warnings, "all are found between letters")


def listed(tokens: Sequence[str]) -> str:
    """A few of the tokens."""
    return ", ".join(map(repr, tokens[:6])) + (f" and {len(tokens) - 6} more" if len(tokens) > 6 else "")


def beginning_and_end(tokenizer: Tokenizer) -> Finding:
    """Whether ``add_special_tokens`` does what the configuration says."""
    bare, full = tokenizer.encode("a").tolist(), tokenizer.encode("a", add_special_tokens=True).tolist()
    at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
    before, behind = full[:at], full[at + len(bare) :]
    config = tokenizer_config(tokenizer.companions, tokenizer.name)
    warnings = []
    for setting, added, role in (
        ("add_bos_token", before, tokenizer.bos_token_id),
        ("add_eos_token", behind, tokenizer.eos_token_id),
    ):
        if setting in config and config[setting] is not None and bool(config[setting]) != (role in added):
            warnings.append(f"{setting} is {config[setting]}, but the template adds {added or 'nothing'} there")
    shown = [" ".join(str(tokenizer.id_to_token(id)) for id in ids) or "nothing" for ids in (before, behind)]
    return verdict("BOS and EOS", [], warnings, f"before a text {shown[0]}, behind it {shown[1]}")


def digits(tokenizer: Tokenizer) -> Finding:
    """Whether numbers of one length are cut alike."""
    shapes: dict[int, set[tuple[int, ...]]] = {}
    for number in [*range(0, 10_000, 7), *range(10_000, 10_000_000, 99_991)]:
        text = str(number)
        tokens = [tokenizer.decode([id]).strip() for id in tokenizer.encode(f"a{text}").tolist()]
        shapes.setdefault(len(text), set()).add(tuple(len(token) for token in tokens if token.isdigit()))
    uneven = [length for length, found in sorted(shapes.items()) if len(found) > 1]
    if uneven:
        return Finding("digits", "warning", f"numbers of {uneven[0]} digits are cut in {len(shapes[uneven[0]])} ways")
    longest = max((length for found in shapes.values() for shape in found for length in shape), default=0)
    if not longest:
        return Finding("digits", "warning", "numbers become no tokens of digits")
    return Finding("digits", "ok", "one by one" if longest == 1 else f"in groups of up to {longest}, always alike")


def indentation(tokenizer: Tokenizer) -> Finding:
    """How many tokens the white space of code costs."""
    plain = len(tokenizer.encode("a b"))
    costs = {width: len(tokenizer.encode("a" + " " * width + "b")) - plain + 1 for width in (2, 4, 8, 16)}
    shown = ", ".join(f"{width} spaces: {cost}" for width, cost in costs.items())
    status: Status = "warning" if costs[4] >= 4 and costs[8] >= 8 else "ok"
    return Finding("code white space", status, f"tokens for {shown}")


def printable_ascii(tokenizer: Tokenizer) -> Finding:
    """Characters of ASCII that the vocabulary does not have."""
    name = "printable ASCII"
    lacking = [chr(code) for code in range(33, 127) if tokenizer.token_to_id(chr(code)) is None]
    if not lacking:
        return Finding(name, "ok", "every character has a token")
    return Finding(name, "warning", f"no token for {' '.join(lacking)}: bytes or unknown tokens in their place")


def chat_template(tokenizer: Tokenizer, model: Path | None) -> Finding:
    """Whether the chat template has survived, renders, and finds its special tokens."""
    name = "chat template"
    template = chat_templates(tokenizer.companions).get("default")
    theirs = None
    if model is not None and (model / "tokenizer.json").is_file():
        original = Tokenizer.from_file(model / "tokenizer.json")
        theirs = chat_templates(original.companions).get("default")
    if template is None:
        if theirs is not None:
            return Finding(name, "failed", "the model's tokenizer has one, this one has lost it")
        return Finding(name, "skipped", "there is none")
    needed = set(re.findall(r"<\|[\w.-]+\|>|</?[a-z_]{1,20}>|\[/?[A-Z_]{2,20}\]", template))
    if theirs is not None:
        needed = {token for token in needed if original.token_to_id(token) is not None}
        missing = sorted(token for token in needed if tokenizer.token_to_id(token) is None)
    else:
        missing = sorted(token for token in needed if token.startswith("<|") and tokenizer.token_to_id(token) is None)
    if missing:
        return Finding(name, "failed", f"it writes {listed(missing)}, which the vocabulary does not have")
    try:
        messages = [{"role": "user", "content": "Hallo"}, {"role": "assistant", "content": "Guten Tag"}]
        rendered = str(tokenizer.to_transformers().apply_chat_template(messages, tokenize=False))
    except Exception as error:
        return Finding(name, "failed", f"it does not render: {shorten(str(error))}")
    if "Hallo" not in rendered or "Guten Tag" not in rendered:
        return Finding(name, "failed", "it loses what the messages say")
    return Finding(name, "ok", f"renders a conversation in {len(tokenizer.encode(rendered))} tokens")


def ids_without_token(tokenizer: Tokenizer) -> Finding:
    """Holes in the numbering: rows that belong to nothing."""
    holes = [id for id in range(tokenizer.vocab_size) if tokenizer.id_to_token(id) is None]
    if not holes:
        return Finding("numbering", "ok", f"{tokenizer.vocab_size:,} ids without a gap")
    return Finding("numbering", "warning", f"{len(holes):,} ids have no token, the first is {holes[0]}")


def llama_cpp(tokenizer: Tokenizer) -> Finding:
    """Whether llama.cpp, and with it Ollama, has a tokenizer that reads text in the same way."""
    form = llamacpp_form(tokenizer)
    said = str(form).removeprefix("llama.cpp: ")
    return Finding("llama.cpp", "warning" if form.model is None or form.differences else "ok", said)


def model_config(model: Path) -> dict[str, Any]:
    """The text part of a model's configuration.

    Raises:
        FileNotFoundError: ``model`` is no folder of a model.
    """
    config = read_config(model)
    return {**config, **text_config(config)}


def embedding_rows(tokenizer: Tokenizer, model: Path) -> Finding:
    """Whether the model has a row for every id."""
    name = "model rows"
    rows = {"config.json": model_config(model).get("vocab_size")}
    try:
        rows |= weight_rows(model)
    except DataError as error:
        return Finding(name, "failed", str(error))
    known = {where: count for where, count in rows.items() if isinstance(count, int)}
    if not known:
        return Finding(name, "skipped", f"{model} does not say how many rows it has")
    few = {where: count for where, count in known.items() if count < tokenizer.vocab_size}
    if few:
        shown = ", ".join(f"{where} {count:,}" for where, count in few.items())
        return Finding(name, "failed", f"ids go up to {tokenizer.vocab_size - 1:,}, but rows are fewer: {shown}")
    if len(set(known.values())) > 1:
        shown = ", ".join(f"{where} {count:,}" for where, count in known.items())
        return Finding(name, "failed", f"the model disagrees with itself: {shown}")
    spare = next(iter(known.values())) - tokenizer.vocab_size
    return Finding(
        name, "ok", f"a row for each of {tokenizer.vocab_size:,} ids" + (f", {spare:,} spare" if spare else "")
    )


def weight_rows(model: Path) -> dict[str, int]:
    """Rows of the input and output embeddings by the name of the tensor, from the headers of the weight files, if there
    are any.

    Raises:
        DataError: they are damaged.
    """
    from langadapt.models.weights import read_entries

    if not any(model.glob("*.safetensors")):
        return {}
    names = re.compile(r"(embed_tokens|wte|word_embeddings|embed_in|lm_head|embed_out)\.weight$")
    return {name: entry.shape[0] for name, entry in read_entries(model).items() if names.search(name) and entry.shape}


def model_token_ids(tokenizer: Tokenizer, model: Path) -> Finding:
    """Whether the model's configuration means the same special tokens."""
    config = model_config(model)
    failures = []
    for role in ("bos", "eos", "pad"):
        theirs, ours = config.get(f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        accepted = theirs if isinstance(theirs, list) else [theirs]
        if theirs is not None and ours is not None and ours not in accepted:
            failures.append(f"{role}_token_id is {theirs} in config.json and {ours} in the tokenizer")
    return verdict("model's special tokens", failures, [], "the model's configuration agrees")


STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def findings_table(findings: Sequence[Finding]) -> Table:
    """A table for the terminal."""
    table = Table()
    for name in ("check", "status"):
        table.add_column(name, no_wrap=True)
    table.add_column("what was found")
    for finding in findings:
        table.add_row(finding.check, Text(finding.status, style=STYLES[finding.status]), literal(finding.detail))
    return table
