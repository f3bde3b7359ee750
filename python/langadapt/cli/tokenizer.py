"""``langadapt tokenizer``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.progress import progress

if TYPE_CHECKING:
    from langadapt.tokenizer.encoder import Tokenizer

app = typer.Typer(no_args_is_help=True)

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders or patterns: .jsonl, .txt (each also .gz, .zst), .parquet; `-` for stdin.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)]
TextField = Annotated[str, typer.Option(help="Field of JSON lines, column of Parquet files.")]
TextUnit = Annotated[str, typer.Option(metavar="line|file", help="One document of a .txt file.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first line without a document.")]
Threads = Annotated[int | None, typer.Option(help="Threads [default: all cores].", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@app.callback()
def noun() -> None:
    """Train, extend, trim and check tokenizers."""


def finish(tokenizer: Tokenizer, out: Path, as_json: bool, **more: Any) -> None:
    """Write the folder and say what is in it."""
    tokenizer.save_pretrained(out)
    summary = {"tokenizer": str(out), "vocab_size": tokenizer.vocab_size, "backend": tokenizer.backend, **more}
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()))


@app.command()
def train(
    inputs: Inputs,
    vocab_size: Annotated[int, typer.Option(help="Entries, special tokens and bytes included.", show_default=False)],
    out: Out,
    style: Annotated[str, typer.Option(metavar="byte_level|sentencepiece", help="Kind of tokenizer.")] = "byte_level",
    like: Annotated[
        str | None,
        typer.Option(metavar="TOKENIZER", help="Take everything but the vocabulary from this folder or hub id."),
    ] = None,
    special_token: Annotated[
        list[str] | None,
        typer.Option(metavar="[ROLE=]TOKEN", help="Special token, e.g. `bos_token=<s>`; repeat for more, in order."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Byte-level: llama3 (default), gpt4, gpt2, qwen2, o200k, or a regex.")
    ] = None,
    min_frequency: Annotated[int | None, typer.Option(help="Merge only pairs seen so often.", min=0)] = None,
    normalization: Annotated[
        str | None, typer.Option(help="NFC, NFKC, ...; none by default, which is lossless.")
    ] = None,
    character_coverage: Annotated[float, typer.Option(help="SentencePiece: share of characters to cover.")] = 0.9995,
    max_token_length: Annotated[
        int | None, typer.Option(help="Longest token, in bytes (SentencePiece: characters).")
    ] = None,
    max_sentence_length: Annotated[int, typer.Option(help="SentencePiece: leave out longer lines, in bytes.")] = 8192,
    max_words: Annotated[int | None, typer.Option(help="Bound memory: forget rare words above this number.")] = None,
    accept_fewer: Annotated[bool, typer.Option("--accept-fewer", help="Be content with a smaller vocabulary.")] = False,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a BPE tokenizer that AutoTokenizer loads."""
    from langadapt.corpus.documents import FileNames
    from langadapt.tokenizer.training import train_bpe

    with progress("train tokenizer") as report:
        tokenizer = train_bpe(
            FileNames(inputs),
            vocab_size,
            style=style,  # type: ignore[arg-type]
            like=like,
            special_tokens=special_tokens(special_token or []),
            pattern=pattern,
            min_frequency=min_frequency,
            normalization=normalization,
            character_coverage=character_coverage,
            max_token_length=max_token_length,
            max_sentence_length=max_sentence_length,
            max_words=max_words,
            accept_fewer=accept_fewer,
            text_field=text_field,
            text_unit=text_unit,
            strict=strict,
            threads=threads,
            progress=report,
        )
    finish(tokenizer, out, as_json)


def special_tokens(given: list[str]) -> list[str] | dict[str, str]:
    """Tokens, or roles to tokens if any is given as ``ROLE=TOKEN``.

    Raises:
        ConfigError: some have a role and some do not.
    """
    from langadapt.errors import ConfigError

    pairs = [token.partition("=") for token in given]
    with_role = {role: token for role, mark, token in pairs if mark and role.endswith("_token")}
    if with_role and len(with_role) < len(given):
        raise ConfigError("--special-token: give a role of its own to every token (`bos_token=<s>`), or to none")
    return with_role or given


@app.command()
def extend(
    tokenizer: Annotated[str, typer.Argument(metavar="TOKENIZER", help="Folder or hub id.", show_default=False)],
    inputs: Inputs,
    new_tokens: Annotated[int, typer.Option(help="How many tokens to add.", show_default=False, min=1)],
    out: Out,
    min_frequency: Annotated[int, typer.Option(help="Merge only pairs seen so often.", min=1)] = 2,
    max_token_length: Annotated[
        int | None, typer.Option(help="Longest new token: bytes (64), or characters for SentencePiece style (16).")
    ] = None,
    accept_fewer: Annotated[bool, typer.Option("--accept-fewer", help="Be content with fewer new tokens.")] = False,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Add tokens learnt on new text; old ids stay."""
    from langadapt.corpus.documents import FileNames
    from langadapt.tokenizer.editing import extend_tokenizer

    with progress("extend tokenizer") as report:
        extended = extend_tokenizer(
            tokenizer,
            FileNames(inputs),
            new_tokens,
            min_frequency=min_frequency,
            max_token_length=max_token_length,
            accept_fewer=accept_fewer,
            text_field=text_field,
            text_unit=text_unit,
            strict=strict,
            threads=threads,
            progress=report,
        )
    finish(extended, out, as_json)


@app.command()
def trim(
    tokenizer: Annotated[str, typer.Argument(metavar="TOKENIZER", help="Folder or hub id.", show_default=False)],
    inputs: Inputs,
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
    from langadapt.artefacts.folders import write_atomically
    from langadapt.corpus.documents import FileNames
    from langadapt.tokenizer.editing import summary_of, trim_tokenizer

    with progress("trim tokenizer") as report:
        result = trim_tokenizer(
            tokenizer,
            FileNames(inputs),
            min_count=min_count,
            vocab_size=vocab_size,
            text_field=text_field,
            text_unit=text_unit,
            strict=strict,
            threads=threads,
            progress=report,
        )
    finish(result.tokenizer, out, as_json, **summary_of(result))
    write_atomically(out / "id_map.json", json.dumps(result.id_map.tolist()))


@app.command()
def check(
    tokenizer: Annotated[str, typer.Argument(metavar="TOKENIZER", help="Folder or hub id.", show_default=False)],
    against: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Folder of the model that is to use it.", show_default=False)
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="INPUT", help="More text to try, such as a validation file.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Acceptance test: round trip, unreachable and special tokens, digits, white space, chat template, model rows."""
    from langadapt.corpus.documents import FileNames, read_documents
    from langadapt.tokenizer.check import check_tokenizer, findings_table

    lines = read_documents(FileNames(text)) if text else ()
    findings = check_tokenizer(tokenizer, against=against, lines=lines)
    failed = sum(finding.status == "failed" or (strict and finding.status == "warning") for finding in findings)
    if as_json:
        summary = {"tokenizer": tokenizer, "passed": not failed, "findings": [f.to_dict() for f in findings]}
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        from rich.console import Console

        Console().print(findings_table(findings))
    if failed:
        raise typer.Exit(1)
