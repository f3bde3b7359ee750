"""``langadapt tokenize``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from langadapt.artefacts.shards import Shard
from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, Inputs, Out, ShardOption, Strict, TextField, Threads
from langadapt.cli.progress import next_step, progress, say
from langadapt.corpus.documents import files_of
from langadapt.terminal import Terminal, echo


def command(
    inputs: Inputs,
    *,
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Folder, tokenizer.json or hub id.")],
    out: Out,
    text_field: TextField = "text",
    strict: Strict = False,
    shard: ShardOption = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Tokenize again even where nothing has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tokenize a corpus into a token store: memory-mapped ids, document offsets, manifest."""
    from langadapt.store import tokenize_corpus
    from langadapt.tokenizer.encoder import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    options: dict[str, Any] = {"text_field": text_field, "strict": strict}
    settings, files, place = {**options, "tokenizer": loaded.fingerprint}, files_of(inputs), out
    if shard is not None:
        options["shard"] = Shard.parse(shard)
        names, settings["shard"] = options["shard"].names(inputs)
        files, place = files_of(names), out / options["shard"].name

    def make() -> dict[str, Any]:
        with progress("tokenize") as report:
            store = tokenize_corpus(inputs, loaded, out, **options, threads=threads, progress=report)
        return dict(store.manifest["summary"])

    summary = make_once("tokenize", place, make, settings=settings, inputs=files, log=say, again=force)
    if as_json:
        echo(json.dumps({"store": str(place), **summary}))
        return
    console = Terminal()
    console.print(str(place), soft_wrap=True, highlight=False)
    console.print(store_table(summary))
    if shard is not None:
        next_step(f"langadapt merge {out}, once all parts are there")
        return
    next_step(f"langadapt vectors train {out} --out vectors.safetensors")


def store_table(summary: Mapping[str, Any]) -> Table:
    """What a token store holds."""
    table = Table()
    for name in ("documents", "tokens", "text bytes", "bytes per token", "type"):
        table.add_column(name, justify="right", no_wrap=True)
    counts = [f"{summary[name]:,}" for name in ("documents", "tokens", "bytes")]
    table.add_row(*counts, f"{summary['bytes_per_token']:.3f}", summary["dtype"])
    return table
