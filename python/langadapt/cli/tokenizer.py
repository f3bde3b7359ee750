"""``langadapt tokenizer``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.places import check_folder
from langadapt.artefacts.remote import RemoteFile
from langadapt.artefacts.shards import Shard
from langadapt.artefacts.stages import make_once
from langadapt.cli import compare
from langadapt.cli.options import (
    Address,
    AsJson,
    EngineOption,
    Inputs,
    Out,
    ShardOption,
    Shards,
    Strict,
    TextField,
    TextUnit,
    Threads,
    arguments_of,
    engine_of,
    warn_renamed,
)
from langadapt.cli.progress import next_step, progress, say
from langadapt.corpus.documents import files_of, read_documents
from langadapt.errors import ConfigError
from langadapt.terminal import Terminal, echo
from langadapt.tokenizer.files import TOKENIZER_FILE, copied_from

app = typer.Typer(no_args_is_help=True)


@app.callback()
def noun() -> None:
    """Train, extend, trim, check and compare tokenizers."""


def show(summary: dict[str, Any], as_json: bool) -> None:
    """Print what is in a tokenizer's folder."""
    if as_json:
        echo(json.dumps(summary))
        return
    echo("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()))
    next_step(f"langadapt tokenizer check {summary['tokenizer']}")


def check_out(out: Path, made_from: str | None) -> None:
    """Raise OSError where no folder can be, and ConfigError where a model would lose its tokenizer, or the tokenizer
    ``made_from``, if that is a folder or file here, would be replaced."""
    check_folder(out)
    if (out / "config.json").is_file():
        raise ConfigError(f"{out}: holds a model, whose tokenizer would be replaced; name another folder")
    if made_from is not None and Path(made_from).resolve() in {out.resolve(), (out / TOKENIZER_FILE).resolve()}:
        raise ConfigError(f"{out}: would replace {made_from}, which it is to be made from; name another folder")


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
    str | None,
    typer.Option(
        help="Byte-level: auto (the default: by the text's marks), llama3, gpt2, qwen35, o200k, ..., or a regex."
    ),
]
MinFrequency = Annotated[int | None, typer.Option(help="Merge only pairs seen so often.", min=0)]
Normalization = Annotated[str | None, typer.Option(help="NFC, NFKC, ...; none by default, which is lossless.")]
Coverage = Annotated[float, typer.Option(help="SentencePiece: share of characters to cover.")]
MaxTokenLength = Annotated[int | None, typer.Option(help="Longest token, in bytes (SentencePiece: characters).")]
MaxSentenceLength = Annotated[int, typer.Option(help="SentencePiece: leave out longer lines, in bytes.")]
MaxWords = Annotated[int | None, typer.Option(help="Bound memory: forget rare words above this number.")]
CodeTokens = Annotated[
    bool, typer.Option("--code-tokens/--no-code-tokens", help="A token for all of ASCII and for runs of white space.")
]
KeepReserved = Annotated[bool, typer.Option("--keep-reserved", help="With --like: its unused tokens, too.")]
AcceptFewer = Annotated[bool, typer.Option("--accept-fewer", help="Be content with a smaller vocabulary.")]


InputsOrCounts = Annotated[
    list[str] | None, typer.Argument(metavar="INPUT", help="As for `tokenizer count`; none with --counts.")
]
Counts = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Words that `tokenizer count` counted, in place of INPUT.")
]
SourceCounts = Annotated[Path | None, typer.Option(metavar="DIR", help="The same, in place of --source.")]


@app.command()
def count(
    ctx: typer.Context,
    inputs: Inputs,
    *,
    out: Out,
    style: Style = "byte_level",
    like: Like = None,
    special_tokens: SpecialTokens = None,
    pattern: Pattern = None,
    normalization: Normalization = None,
    max_sentence_length: MaxSentenceLength = 8192,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    shard: ShardOption = None,
    engine: EngineOption = None,
    address: Address = None,
    shards: Shards = 16,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Count the words of a corpus, in shards if it is large, for `tokenizer train --counts`."""
    from langadapt.tokenizer.counting import make_counts

    arguments = arguments_of(ctx) | {"special_tokens": roles_or_tokens(special_tokens or [])}
    arguments["engine"] = engine_of(engine, arguments.pop("address"), arguments.pop("shards"), shard)
    arguments["shard"] = part = None if shard is None else Shard.parse(shard)
    with progress("count words") as report:
        summary = make_counts(out=out, **arguments, progress=report, log=say)
    place = out if part is None else out / part.name
    if as_json:
        echo(json.dumps({"counts": str(place), **summary}))
        return
    echo(f"{place}: {summary['words']:,} words of {summary['documents']:,} documents")
    next_step(
        f"langadapt merge {out} --out counts" if shard else f"langadapt tokenizer train --counts {out} --out tokenizer"
    )


@app.command()
def train(
    ctx: typer.Context,
    inputs: InputsOrCounts = None,
    *,
    out: Out,
    counts: Counts = None,
    source_counts: SourceCounts = None,
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
    code_tokens: CodeTokens = True,
    keep_reserved: KeepReserved = False,
    source: Annotated[
        list[str] | None, typer.Option(metavar="INPUT", help="Text of the source language, for the next two.")
    ] = None,
    source_share: Annotated[float, typer.Option(help="Share of bytes to learn from --source.", min=0, max=0.99)] = 0.0,
    parity: Annotated[
        bool, typer.Option("--parity", help="Choose each merge for the language that needs more tokens.")
    ] = False,
    accept_fewer: AcceptFewer = False,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a BPE tokenizer that AutoTokenizer loads."""
    # Long: each option has its line.
    from langadapt.tokenizer.training import train_bpe

    check_out(out, like)
    arguments = arguments_of(ctx) | {"special_tokens": roles_or_tokens(special_tokens or [])}

    def make() -> dict[str, Any]:
        with progress("train tokenizer") as report:
            tokenizer = train_bpe(**arguments, progress=report)
        tokenizer.save_pretrained(out)
        return {"vocab_size": tokenizer.vocab_size, "backend": tokenizer.backend}

    arguments["inputs"] = inputs or None
    settings = {name: value for name, value in arguments.items() if name != "threads"}
    settings |= {name: str(settings[name] or "") for name in ("counts", "source_counts")}
    files = files_behind(arguments)
    summary = make_once("tokenizer", out, make, settings=settings, inputs=files, log=say)
    show({"tokenizer": str(out), **summary}, as_json)


def files_behind(arguments: dict[str, Any]) -> dict[str, Path | RemoteFile] | None:
    """Whatever a tokenizer is made from, by name; none for what cannot be read twice.

    Raises:
        ConfigError: there is no text, and there are no counts.
    """
    inputs, counts, like = arguments["inputs"], arguments.get("counts"), arguments["like"]
    if not inputs and counts is None:
        raise ConfigError("INPUT: name at least one file, folder or pattern, or counts of their words with --counts")
    files = files_of(inputs) if inputs else {}
    if files is None:
        return None
    files |= {name: arguments[name] for name in ("counts", "source_counts") if arguments.get(name)}
    files |= copied_from(like)
    if arguments.get("source"):
        files |= {f"source {name}": file for name, file in (files_of(arguments["source"]) or {}).items()}
    return files


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
    widen: Annotated[
        bool, typer.Option("--widen", help="Let words go on over combining marks, which the old pattern cuts at.")
    ] = False,
    source_text: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="INPUT", help="Text of the old language: say how many lines keep their ids."),
    ] = None,
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
    from langadapt.tokenizer.encoder import open_tokenizer
    from langadapt.tokenizer.widening import lines_kept

    check_out(out, tokenizer)
    arguments = arguments_of(ctx)
    arguments.pop("source_text")

    def make() -> dict[str, Any]:
        with progress("extend tokenizer") as report:
            extended = extend_tokenizer(**arguments, progress=report)
        kept = lines_kept(open_tokenizer(tokenizer), extended, read_documents(source_text)) if source_text else {}
        extended.save_pretrained(out)
        return {"vocab_size": extended.vocab_size, "backend": extended.backend, **kept}

    show({"tokenizer": str(out), **edited_once("extend", out, make, arguments | {"source": source_text})}, as_json)


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

    check_out(out, tokenizer)
    arguments = arguments_of(ctx)

    def make() -> dict[str, Any]:
        with progress("trim tokenizer") as report:
            result = trim_tokenizer(**arguments, progress=report)
        made = result.tokenizer
        result.save_pretrained(out)
        return {"vocab_size": made.vocab_size, "backend": made.backend, **summary_of(result)}

    show({"tokenizer": str(out), **edited_once("trim", out, make, arguments)}, as_json)


def edited_once(verb: str, out: Path, make: Callable[[], dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    """What was made of a tokenizer, or had been made before of the same tokenizer and text in the same way."""
    settings = {name: value for name, value in arguments.items() if name != "threads"}
    files = files_behind({**arguments, "like": arguments["tokenizer"]})
    return make_once(f"{verb} tokenizer", out, make, settings=settings, inputs=files, log=say)


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
        echo(json.dumps(summary, ensure_ascii=False))
    else:
        Terminal().print(findings_table(findings))
    if failed:
        raise typer.Exit(1)
    if not as_json:
        next_step(f"langadapt tokenize FILES --tokenizer {tokenizer} --out store")


app.command("compare")(compare.command)
