"""``langadapt vectors``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.stages import make_once
from langadapt.cli.progress import next_step, progress, say

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Auxiliary token vectors."""


@app.command("train")
def train(
    store: Annotated[Path, typer.Argument(help="Token store of the target language.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write (safetensors).")],
    dim: Annotated[int, typer.Option(help="Width of a vector.")] = 300,
    epochs: Annotated[int, typer.Option(help="Passes over the store.")] = 3,
    window: Annotated[int, typer.Option(help="Tokens of context on each side, at most.")] = 5,
    negative: Annotated[int, typer.Option(help="Noise tokens per position.")] = 10,
    min_count: Annotated[int, typer.Option(help="Tokens seen less often get no vector.")] = 10,
    threads: Annotated[
        int | None, typer.Option(help="Workers; 1 gives the same bits every time. Default: one per core.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    tokenizer: Annotated[
        str | None, typer.Option(help="The store's tokenizer, where the store does not keep it.")
    ] = None,
) -> None:
    """Learn one vector per token by CBOW with character n-grams (what fastText does for FOCUS)."""
    from langadapt.vectors.cbow import check_place, open_store, save_vectors, train_vectors

    opened = open_store(store)
    options: dict[str, Any] = {"dim": dim, "epochs": epochs, "window": window, "negative": negative}
    options |= {"min_count": min_count, "threads": threads, "seed": seed, "tokenizer": tokenizer}

    def make() -> dict[str, Any]:
        check_place(out, 4 * dim * opened.vocab_size)
        with progress("vectors") as report:
            vectors = train_vectors(opened, **options, progress=report)
        save_vectors(vectors, out, store=opened, tokenizer=tokenizer)
        return {"known": int((vectors != 0).any(axis=1).sum()), "tokens": len(vectors)}

    found = make_once("vectors", out, make, settings=options, inputs={"store": store}, log=say)
    say(f"{out}: {found['known']:,} of {found['tokens']:,} tokens have a vector of {dim}")
    next_step(f"langadapt swap MODEL --tokenizer TOKENIZER --vectors {out} --out swapped")
