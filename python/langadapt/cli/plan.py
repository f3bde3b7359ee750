"""``langadapt plan``: does it fit, which layout, how many tokens, which schedule, when it ends, what it costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from langadapt.cli.progress import next_step
from langadapt.costs import devices, memory
from langadapt.costs.devices import GIB
from langadapt.errors import ConfigError
from langadapt.machine import choose_device
from langadapt.planning.plan import plan_recipe
from langadapt.recipe.recipe import Recipe
from langadapt.terminal import Terminal, echo

if TYPE_CHECKING:
    from rich.table import Table

    from langadapt.planning.pilot import Advice
    from langadapt.planning.plan import Plan
    from langadapt.training import TrainSettings


def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time a few real steps on this machine and plan with what they took.")
    ] = False,
    pilot: Annotated[
        bool,
        typer.Option(
            "--pilot", help="Train briefly (4 x 40 steps) at several shares of source text and recommend one."
        ),
    ] = False,
    rates: Annotated[
        bool,
        typer.Option("--rates", help="Train briefly (6 to 11 x 40 steps) at several rates and recommend."),
    ] = False,
) -> None:
    """Plan a recipe's training from its budget: memory, layout, tokens, dates, cost."""
    loaded = Recipe.from_yaml(recipe, overrides or ())
    changes = "".join(f" --set {one}" for one in overrides or ())
    if calibrate + pilot + rates > 1:
        raise ConfigError("--calibrate, --pilot and --rates answer different questions; give one of them")
    if rates:
        show_rates(loaded, as_json)
        return
    if pilot:
        show_pilot(loaded, as_json)
        return

    measured = None
    if calibrate:
        from langadapt.planning.calibration import calibrate_recipe

        check_calibration(loaded.budget.gpus, loaded.train.device)
        measured = calibrate_recipe(loaded)
    made, cutting = with_a_sample(loaded, measured)
    made.notes.extend(optimizer_notes(loaded.train.optimizer))
    disk = disk_bytes(made, loaded.train)
    if as_json:
        echo(json.dumps({**made.to_dict(), "disk_bytes": disk}, indent=2))
    else:
        show(made, measured, disk)
        for line in cutting:
            echo(line)
        next_step(f"langadapt adapt {recipe}{changes}")


def with_a_sample(recipe: Recipe, measured: dict[str, Any] | None) -> tuple[Plan, list[str]]:
    """The plan of a recipe, and how its tokenizer cuts a sample of its text, for people."""
    # Lazily, as help waits for no tokenizer.
    from langadapt.planning.foresight import cut_if_possible, of_a_sample
    from langadapt.trials.cutting import lines_of

    trials, problem = cut_if_possible(recipe)
    made = plan_recipe(recipe, measured, of_a_sample(recipe, trials))
    return made, [f"note: no tokenizer was tried on a sample: {problem}"] if problem else list(lines_of(trials))


def check_calibration(gpus: str | None, device: str) -> None:
    """Refuse to take one machine's speed for another's.

    Raises:
        ConfigError: the GPUs that the recipe names are not those of this machine.
    """
    if gpus is None:
        return
    planned, here = devices.parse(gpus)[1], "cpu"
    if choose_device(device) != "cpu":
        # A GPU that is not in the table is planned for by the name of the nearest that is.
        known = devices.named(devices.gpu_names()[0])
        here = planned.name if known is None else known.name
    if here != planned.name:
        raise ConfigError(
            f"--calibrate would time this machine ({here}), but budget.gpus is {gpus}; run it there, or without "
            "budget.gpus"
        )


def optimizer_notes(name: str) -> list[str]:
    """What the numbers do not know of optimizers of other libraries."""
    instead = {
        "adamw-8bit": "takes about 2 bytes per parameter for its states instead of 4 or more (as `states: int8`, which "
        "is counted, does on any number of GPUs)",
    }
    if name not in instead:
        return []
    return [f"memory, disk and speed are those of `optimizer: adamw`; {name} {instead[name]}, and one GPU only"]


def disk_bytes(made: Plan, settings: TrainSettings) -> int:
    """What the training may take of the disk at most: its checkpoints with the best weights in each of them, and the
    trained model in bf16."""
    kept = made.parameters if settings.adapter is None else made.trained
    each = made.checkpoint_bytes + memory.best_bytes(kept, settings)
    return settings.checkpoints_at_most * each + 2 * made.parameters


def show(made: Plan, measured: dict[str, Any] | None, disk: int) -> None:
    """The plan for people."""
    console = Terminal(soft_wrap=True, highlight=False)
    console.print(layouts(made))
    best = made.best
    console.print(Text.assemble("\nrecommended: ", (best.layout.describe(), "bold"), f": {made.reason}"))
    if made.trained < made.parameters:
        console.print(f"trained:     {made.trained / 1e6:,.4g} M parameters; the others have no gradients and states")
    console.print(f"memory:      {best.memory.peak / GIB:.1f} GiB per GPU on {made.gpus} x {made.device}")
    source = "measured" if measured else "predicted"
    console.print(
        f"speed:       {best.tokens_per_second:,.0f} tokens/s, {best.step_seconds:.2f} s per step, "
        f"MFU {100 * best.mfu:.0f} % ({source})"
    )
    epochs = f", {made.epochs:.2f} passes over the corpus" if made.epochs is not None else ""
    text = f"{made.text_bytes / 1e6:,.0f}" if made.text_bytes >= 1e7 else f"{made.text_bytes / 1e6:.2g}"
    console.print(f"buys:        {made.steps:,} steps, {made.tokens:,} tokens, {text} MB of text{epochs}")
    for one in made.sources:
        tokens = "?" if one.tokens is None else f"{one.tokens:,}"
        read = "" if one.passes is None else f", read {one.passes:.2g} times"
        worth = f", the last pass worth {one.worth:.0%} of new text" if (one.passes or 0) > 1 and one.worth else ""
        console.print(f"  {one.name:<16} {one.share:.0%} of the training, {tokens} tokens{read}{worth}")
    cost = f", cost {made.cost:,.2f}" if made.cost is not None else ""
    hours = f"{made.hours:.1f}" if made.hours >= 1 else f"{made.hours:.2g}"
    settings = made.settings
    windows = "window" if settings.sequences_per_step == 1 else "windows"
    console.print(
        f"batch:       {settings.tokens_per_step:,} tokens a step: {settings.sequences_per_step} {windows} of "
        f"{settings.window:,}; warm-up over {100 * settings.warmup_share:.3g} % of the steps"
    )
    console.print(f"takes:       {hours} hours{cost}")
    console.print(
        f"disk:        {disk / GIB:.2f} GiB at most: the trained model, and checkpoints of "
        f"{made.checkpoint_bytes / GIB:.2f} GiB each"
    )
    console.print(f"rates:       {', '.join(f'{name} {rate:.2g}' for name, rate in made.rates.items())} at the peak")
    for phase in made.schedule:
        first, last = phase["steps"]
        console.print(f"  {phase['phase']:<16} steps {first:>7} to {last:>7}   {phase['begins']} to {phase['ends']}")
    for note in made.notes:
        console.print(f"note: {note}", style="yellow")


def layouts(made: Plan) -> Table:
    """All combinations under the recipe's precision, and the fastest of every other."""
    size = f"{made.parameters / 1e9:.2f} B" if made.parameters > 1e8 else f"{made.parameters / 1e6:.2f} M"
    table = Table(
        title=f"{size} parameters, vocabulary {made.vocabulary:,}, {made.gpus} x {made.device}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    many = made.gpus > 1
    for name in ("pure bf16", "sums", *(("sharding",) if many else ()), "recompute"):
        table.add_column(name, no_wrap=True)
    for name in ("micro", "GiB", "spare", "tokens/s", "MFU"):
        table.add_column(name, justify="right", no_wrap=True)
    for option in shown(made):
        layout = option.layout
        table.add_row(
            under(layout),
            layout.sums,
            *((layout.placement,) if many else ()),
            layout.activation_checkpointing,
            str(layout.micro_batch),
            f"{option.memory.peak / GIB:.1f}",
            f"{100 * (1 - option.memory.peak / made.device_memory):.0f} %" if option.fits else "",
            f"{option.tokens_per_second:,.0f}" if option.fits else "no room",
            f"{100 * option.mfu:.0f} %" if option.fits else "",
            style="bold" if option is made.best else "",
        )
    return table


def under(layout: memory.Layout) -> str:
    """How pure bf16 is rounded, and `+ int8` where moments are codes: on a second line, as the table is wide."""
    if layout.precision != "pure-bf16":
        return "(mixed)"
    return layout.rounding + ("\n+ int8" if layout.states == "int8" else "")


def shown(made: Plan) -> list[Any]:
    """Options worth a line."""
    by_kind: dict[tuple[str, str, str], list[Any]] = {}
    for option in made.options:
        by_kind.setdefault(option.layout.kind, []).append(option)
    rows = by_kind.pop(made.best.layout.kind)
    for others in by_kind.values():
        rows.append(max(others, key=lambda option: (option.fits, option.tokens_per_second)))
    return rows


def show_rates(recipe: Any, as_json: bool) -> None:
    """Run briefly at several rates and print what that recommends."""
    from langadapt.planning.rates import find_rates

    advice = find_rates(recipe)
    if as_json:
        echo(json.dumps(asdict(advice), indent=2))
        return

    console = Terminal(soft_wrap=True, highlight=False)
    console.print(rates_table(advice))
    console.print(
        f"recommended: train.learning_rate={advice.learning_rate:g} "
        f"train.embedding_learning_rate={advice.embedding_learning_rate:g} (the lowest within {advice.noise:.4f} bits "
        "per byte of the best, which is what another seed makes of it)"
    )
    for limit in advice.limits:
        console.print(f"cannot tell: {limit}")


def show_pilot(recipe: Any, as_json: bool) -> None:
    """Run the pilots and print what they recommend."""
    from langadapt.planning.pilot import pilot_recipe

    advice = pilot_recipe(recipe)
    if as_json:
        echo(json.dumps(asdict(advice), indent=2))
        return

    console = Terminal(soft_wrap=True, highlight=False)
    console.print(shares_table(advice))
    console.print(f"recommended: corpus.source_share={advice.share:g} ({advice.reason})")
    low, high = advice.between
    # As many digits as tell a run from its pilots.
    length = f"{advice.extrapolation:.0f}" if advice.extrapolation >= 10 else f"{advice.extrapolation:.2g}"
    console.print(
        f"certainty:   other fits of about the same error recommend {low:g} to {high:g}; "
        f"the run is {length} x as long as a pilot; "
        f"errors of the fits: target {advice.errors['target']:.4f}, source {advice.errors['source']:.4f} bits per byte"
    )


def shares_table(advice: Advice) -> Table:
    """Predictions of the pilots, the recommended share in bold."""
    table = Table(title=f"predicted bits per byte after {advice.tokens:,} tokens")
    for name in ("share of source text", "target", "source"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in advice.table:
        chosen = "bold" if row["share"] == advice.share else ""
        table.add_row(f"{100 * row['share']:.0f} %", f"{row['target']:.4f}", f"{row['source']:.4f}", style=chosen)
    return table


def rates_table(advice: Any) -> Table:
    """What each short run ended at, the recommended rates in bold; see :class:`langadapt.planning.rates.RateAdvice`."""
    table = Table(title=f"bits per byte after {advice.steps} steps (lower is better)")
    for name in ("learning_rate", "embedding_learning_rate", "seed", "target", "source"):
        table.add_column(name, justify="right")
    for one in sorted(advice.tried, key=lambda one: (one.body, one.embeddings, one.seed)):
        mine = (one.body, one.embeddings) == (advice.learning_rate, advice.embedding_learning_rate)
        source = "" if one.source is None else f"{one.source:.4f}"
        cells = (f"{one.body:.3g}", f"{one.embeddings:.3g}", str(one.seed), f"{one.target:.4f}", source)
        table.add_row(*cells, style="bold" if mine else "")
    return table
