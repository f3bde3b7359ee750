"""``langadapt tokenize``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, Inputs, Out, Strict, TextField, Threads
from langadapt.cli.progress import progress, say
from langadapt.corpus.documents import files_of


def command(
    inputs: Inputs,
    *,
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Folder, tokenizer.json or hub id.")],
    out: Out,
    text_field: TextField = "text",
    strict: Strict = False,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Tokenize again even where nothing has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tokenize a corpus into a token store: memory-mapped ids, document offsets, manifest."""
    from langadapt.store import tokenize_corpus
    from langadapt.tokenizer.encoder import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    options: dict[str, Any] = {"text_field": text_field, "strict": strict}

    def make() -> dict[str, Any]:
        with progress("tokenize") as report:
            store = tokenize_corpus(inputs, loaded, out, **options, threads=threads, progress=report)
        return dict(store.manifest["summary"])

    settings = {**options, "tokenizer": loaded.fingerprint}
    summary = make_once("tokenize", out, make, settings=settings, inputs=files_of(inputs), log=say, again=force)
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
