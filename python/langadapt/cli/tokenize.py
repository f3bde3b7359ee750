"""``langadapt tokenize``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from langadapt.artefacts.shards import Shard
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
    Threads,
    engine_of,
)
from langadapt.cli.progress import next_step, progress, say
from langadapt.terminal import Terminal, echo


def command(
    inputs: Inputs,
    *,
    tokenizer: Annotated[str, typer.Option("--tokenizer", "-t", help="Folder, tokenizer.json or hub id.")],
    out: Out,
    text_field: TextField = "text",
    strict: Strict = False,
    shard: ShardOption = None,
    engine: EngineOption = None,
    address: Address = None,
    shards: Shards = 16,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Tokenize again even where nothing has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tokenize a corpus into a token store: memory-mapped ids, document offsets, manifest."""
    from langadapt.store import make_store

    cluster = engine_of(engine, address, shards, shard)
    part = None if shard is None else Shard.parse(shard)
    with progress("tokenize") as report:
        summary = make_store(
            inputs,
            tokenizer,
            out,
            shard=part,
            engine=cluster,
            again=force,
            threads=threads,
            progress=report,
            log=say,
            text_field=text_field,
            strict=strict,
        )
    place = out if part is None else out / part.name
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
