"""``langadapt init``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from langadapt.artefacts.folders import remove_leftovers
from langadapt.artefacts.places import check_space
from langadapt.cli.progress import next_step, progress
from langadapt.terminal import Terminal

if TYPE_CHECKING:
    from langadapt.planning.first_recipe import Curve

Model = Annotated[
    str, typer.Option(help="Model folder, hub id, or a known shape such as llama3.2:1b.", show_default=False)
]
Text = Annotated[
    list[str], typer.Option(metavar="FILE", help="Text of the new language; repeat for more.", show_default=False)
]
More = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More files, as of --text.")]
SourceText = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Text of the language that the model speaks, for replay; repeat for more."),
]
Language = Annotated[str, typer.Option(help="The new language: a code (sw) or a name.", show_default=False)]
Gpus = Annotated[
    str | None,
    typer.Option("--gpus", "--gpu", help="Such as rtx-4090, 2 x h100 or 24gb. Default: this machine."),
]
Hours = Annotated[float, typer.Option(help="Of training, at most.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Recipe to write; never replaces a file.")]


def command(
    files: More = None,
    *,
    model: Model,
    text: Text,
    language: Language,
    source_text: SourceText = None,
    gpus: Gpus = None,
    hours: Hours = 24.0,
    out: Out = Path("recipe.yaml"),
) -> None:
    """Make a recipe for your model, text and machine: every number measured or reasoned, its reason beside it."""
    from langadapt.planning.first_recipe import Wish, first_recipe
    from langadapt.planning.first_recipe.writing import write_new

    remove_leftovers(out)
    if out.exists():
        problem = "is there already, and init replaces nothing; give another --out"
        raise FileExistsError(errno.EEXIST, problem, str(out))
    check_space(out, 0)
    wish = Wish(model, [*text, *(files or ())], language, source_text or (), gpus, hours)
    with progress("init") as report:
        made = first_recipe(wish, file=str(out), progress=report)
    write_new(out, made.text)
    console = Terminal(soft_wrap=True, highlight=False)
    console.print(sizes_table(made.curve, made.found.language))
    console.print(f"text:   {made.found.target.describe()}")
    for note in made.found.notes:
        console.print(f"note:   {note}")
    console.print(f"recipe: {out}")
    next_step(f"langadapt plan {out}")


def sizes_table(curve: Curve, language: str) -> Table:
    """A row for each size of vocabulary that was tried, the one that is taken in bold."""
    table = Table(title=f"Vocabularies of {language}, on text that they were not made from")
    for name in ("entries", "bytes per token", "rows learnable", "training FLOPs per byte"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in curve.points:
        cells = [f"{point.size:,}", f"{point.bytes_per_token:.2f}", f"{100 * point.learnable:.0f} %"]
        table.add_row(*cells, f"{point.flops_per_byte:.2g}", style="bold" if point is curve.best else "")
    return table
