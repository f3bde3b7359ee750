"""``langadapt tokenize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.stages import make_once
from langadapt.cli.progress import progress, say
from langadapt.corpus.documents import FileNames, files_of


def command(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders or patterns; - reads standard input.")
    ],
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Folder, tokenizer.json or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the token store.")],
    text_field: Annotated[str, typer.Option(help="JSON key or Parquet column that holds the text.")] = "text",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first line without a document.")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores by default.", min=1)] = None,
    force: Annotated[bool, typer.Option("--force", help="Tokenize again even where nothing has changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Tokenize a corpus into a token store: memory-mapped ids, document offsets, manifest."""
    from rich.console import Console
    from rich.table import Table

    from langadapt.store import tokenize_corpus
    from langadapt.tokenizer.encoder import Tokenizer

    loaded, names = Tokenizer.from_pretrained(tokenizer), FileNames(inputs)
    options = {"text_field": text_field, "strict": strict}

    def make() -> dict[str, Any]:
        with progress("tokenize") as report:
            store = tokenize_corpus(names, loaded, out, **options, threads=threads, progress=report)
        return dict(store.manifest["summary"])

    settings = {**options, "tokenizer": loaded.fingerprint}
    summary = make_once("tokenize", out, make, settings=settings, inputs=files_of(names), log=say, again=force)
    if as_json:
        typer.echo(json.dumps({"store": str(out), **summary}))
        return
    table = Table("store", "documents", "tokens", "text bytes", "bytes per token", "type")
    table.add_row(
        str(out),
        f"{summary['documents']:,}",
        f"{summary['tokens']:,}",
        f"{summary['bytes']:,}",
        f"{summary['bytes_per_token']:.3f}",
        summary["dtype"],
    )
    Console().print(table)
