"""``langadapt generate``."""

from __future__ import annotations

from typing import Annotated

import typer

from langadapt.cli.progress import next_step
from langadapt.terminal import write_out


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model folder or hub id, or a run's folder.", show_default=False)
    ],
    *,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text to go on from.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Tokens to write, at most.", min=1)] = 100,
    temperature: Annotated[
        float, typer.Option(help="Of the draws; 0 takes the likeliest token each time.", min=0)
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Let a model go on from a text, word by word on the terminal."""
    from langadapt.pipeline.generation import generate

    # Before the first word of the model, so that nothing is written where there is none.
    begun = iter([prompt])
    generate(
        model,
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        stream=lambda text: write_out(next(begun, "") + text),
    )
    write_out("\n")
    next_step(f"langadapt evaluate {model}")
