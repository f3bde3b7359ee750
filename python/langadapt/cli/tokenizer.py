"""``langadapt tokenizer``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, Inputs, Out, Strict, TextField, TextUnit, Threads, arguments_of, warn_renamed
from langadapt.cli.progress import progress, say
from langadapt.corpus.documents import files_of, read_documents
from langadapt.errors import ConfigError
from langadapt.models.folder import tokenizer_file

if TYPE_CHECKING:
    from langadapt.tokenizer.encoder import Tokenizer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def noun() -> None:
    """Train, extend, trim, check and compare tokenizers."""


def finish(tokenizer: Tokenizer, out: Path, as_json: bool, **more: Any) -> None:
    """Write the folder and say what is in it."""
    tokenizer.save_pretrained(out)
    show({"tokenizer": str(out), "vocab_size": tokenizer.vocab_size, "backend": tokenizer.backend, **more}, as_json)


def show(summary: dict[str, Any], as_json: bool) -> None:
    """Print what is in a tokenizer's folder."""
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()))


def check_out(out: Path) -> None:
    """Raise ConfigError where a model would lose its tokenizer."""
    if (out / "config.json").is_file():
        raise ConfigError(f"{out}: holds a model, whose tokenizer would be replaced; name another folder")


Existing = Annotated[str, typer.Argument(metavar="TOKENIZER", help="Folder or hub id.", show_default=False)]
VocabSize = Annotated[int, typer.Option(help="Entries, special tokens and bytes included.")]
Style = Annotated[str, typer.Option(metavar="byte_level|sentencepiece", help="Kind of tokenizer.")]
Like = Annotated[
    str | None, typer.Option(metavar="TOKENIZER", help="Take everything but the vocabulary from this folder or hub id.")
]
SpecialTokens = Annotated[
    list[str] | None,
    typer.Option(
        "--special-tokens",
        "--special-token",
        metavar="[ROLE=]TOKEN",
        help="Special token, e.g. `bos_token=<s>`; repeat for more, in order.",
    ),
]
Pattern = Annotated[
    str | None, typer.Option(help="Byte-level: llama3 (default), gpt4, gpt2, qwen2, o200k, or a regex.")
]
MinFrequency = Annotated[int | None, typer.Option(help="Merge only pairs seen so often.", min=0)]
Normalization = Annotated[str | None, typer.Option(help="NFC, NFKC, ...; none by default, which is lossless.")]
Coverage = Annotated[float, typer.Option(help="SentencePiece: share of characters to cover.")]
MaxTokenLength = Annotated[int | None, typer.Option(help="Longest token, in bytes (SentencePiece: characters).")]
MaxSentenceLength = Annotated[int, typer.Option(help="SentencePiece: leave out longer lines, in bytes.")]
MaxWords = Annotated[int | None, typer.Option(help="Bound memory: forget rare words above this number.")]
AcceptFewer = Annotated[bool, typer.Option("--accept-fewer", help="Be content with a smaller vocabulary.")]


@app.command()
def train(
    ctx: typer.Context,
    inputs: Inputs,
    *,
    out: Out,
    vocab_size: VocabSize = 32_768,
    style: Style = "byte_level",
    like: Like = None,
    special_tokens: SpecialTokens = None,
    pattern: Pattern = None,
    min_frequency: MinFrequency = None,
    normalization: Normalization = None,
    character_coverage: Coverage = 0.9995,
    max_token_length: MaxTokenLength = None,
    max_sentence_length: MaxSentenceLength = 8192,
    max_words: MaxWords = None,
    accept_fewer: AcceptFewer = False,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a BPE tokenizer that AutoTokenizer loads."""
    from langadapt.tokenizer.training import train_bpe

    check_out(out)
    arguments = arguments_of(ctx) | {"special_tokens": roles_or_tokens(special_tokens or [])}

    def make() -> dict[str, Any]:
        with progress("train tokenizer") as report:
            tokenizer = train_bpe(**arguments, progress=report)
        tokenizer.save_pretrained(out)
        return {"vocab_size": tokenizer.vocab_size, "backend": tokenizer.backend}

    files, settings = files_of(inputs), {name: arguments[name] for name in arguments if name != "threads"}
    if files is not None and like is not None and Path(like).exists():
        files["like"] = Path(like) if Path(like).is_file() else tokenizer_file(Path(like))
    summary = make_once("tokenizer", out, make, settings=settings, inputs=files, log=say)
    show({"tokenizer": str(out), **summary}, as_json)


def roles_or_tokens(given: list[str]) -> list[str] | dict[str, str]:
    """Tokens, or roles to tokens if any is given as ``ROLE=TOKEN``.

    Raises:
        ConfigError: some have a role and some do not.
    """
    pairs = [token.partition("=") for token in given]
    with_role = {role: token for role, mark, token in pairs if mark and role.endswith("_token")}
    if with_role and len(with_role) < len(given):
        raise ConfigError("--special-tokens: give a role of its own to every token (`bos_token=<s>`), or to none")
    return with_role or given


@app.command()
def extend(
    ctx: typer.Context,
    tokenizer: Existing,
    inputs: Inputs,
    *,
    new_tokens: Annotated[int, typer.Option(help="How many tokens to add.", show_default=False, min=1)],
    out: Out,
    min_frequency: Annotated[int, typer.Option(help="Merge only pairs seen so often.", min=1)] = 2,
    max_token_length: Annotated[
        int | None, typer.Option(help="Longest new token: bytes (64), or characters for SentencePiece style (16).")
    ] = None,
    accept_fewer: AcceptFewer = False,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Add tokens learnt on new text; old ids stay."""
    from langadapt.tokenizer.editing import extend_tokenizer

    check_out(out)
    with progress("extend tokenizer") as report:
        extended = extend_tokenizer(**arguments_of(ctx), progress=report)
    finish(extended, out, as_json)


@app.command()
def trim(
    ctx: typer.Context,
    tokenizer: Existing,
    inputs: Inputs,
    *,
    out: Out,
    min_count: Annotated[int, typer.Option(help="Keep tokens that come out so often.", min=1)] = 1,
    vocab_size: Annotated[int | None, typer.Option(help="Keep at most so many entries, the most used ones.")] = None,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Drop tokens that a corpus never uses; writes id_map.json beside the tokenizer (new id of each old one, or -1)."""
    from langadapt.tokenizer.editing import summary_of, trim_tokenizer

    check_out(out)
    with progress("trim tokenizer") as report:
        result = trim_tokenizer(**arguments_of(ctx), progress=report)
    finish(result.tokenizer, out, as_json, **summary_of(result))
    write_atomically(out / "id_map.json", json.dumps(result.id_map.tolist()))


@app.command()
def check(
    tokenizer: Existing,
    *,
    against: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Folder of the model that is to use it.", show_default=False)
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="INPUT", help="More text to try, such as a validation file.")
    ] = None,
    warnings_fail: Annotated[bool, typer.Option("--warnings-fail", help="Fail on warnings too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", hidden=True)] = False,
    as_json: AsJson = False,
) -> None:
    """Acceptance test: round trip, unreachable and special tokens, digits, white space, chat template, model rows."""
    from langadapt.tokenizer.check import check_tokenizer, findings_table

    lines = read_documents(text) if text else ()
    findings = check_tokenizer(tokenizer, against=against, lines=lines)
    if strict:
        warn_renamed("--strict", "--warnings-fail")
    failing = {"failed", "warning"} if warnings_fail or strict else {"failed"}
    failed = any(finding.status in failing for finding in findings)
    if as_json:
        summary = {"tokenizer": tokenizer, "passed": not failed, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        Console().print(findings_table(findings))
    if failed:
        raise typer.Exit(1)
