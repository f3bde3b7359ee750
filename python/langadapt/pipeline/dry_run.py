"""A run without doing it: all that can be checked, and the stages that it would enter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from langadapt.corpus.build import READING
from langadapt.corpus.documents import Reading
from langadapt.corpus.language import learn
from langadapt.pipeline.job import checked_model
from langadapt.recipe.recipe import Recipe
from langadapt.swap.rows.names import AUTO, KEEP, VECTOR_METHODS


def dry_run(recipe: Recipe) -> list[tuple[str, bool]]:
    """Check a recipe, its model, its text and its disk, and write nothing.

    Returns:
        stages in their order, and whether each has been made already, as far as its stamp tells.

    Raises:
        ConfigError, DataError, OSError: what would stop the run later.
    """
    checked_model(recipe.of_text("adapt"))
    stamps = Path(recipe.out) / "stages"
    return [(stage, (stamps / f"{stage}.json").is_file()) for stage in stages(recipe)]


def language_looks(recipe: Recipe) -> Iterator[str]:
    """What `corpus.foreign` would leave out of a sample of each text of the target language, for people."""
    for source in recipe.corpus.texts if recipe.corpus.foreign else ():
        options = recipe.corpus.building(source)
        if options["foreign"]:
            _, look = learn(Reading(source.paths, **{name: options[name] for name in READING}), options["foreign"])
            yield f"corpus-{source.name}: {look}"


def stages(recipe: Recipe) -> Iterator[str]:
    """Names of a recipe's stages, as `stages/` and the log have them; `auto` stands for the winner of the bake-off."""
    sources = recipe.corpus.texts
    arms = [recipe.swap.method, *recipe.compare]
    trained_on = [one.name for one in sources if one.share > 0]
    yield from (f"corpus-{one.name}" for one in sources)
    yield from ("tokenizer", "fertility", "held-out", "evaluate-source")
    if {*arms} != {KEEP}:
        yield from (f"store-{name}-new" for name in trained_on)
        if len([one for one in sources if one.language == "target"]) > 1:
            yield "store-target-new"
        if not {*arms, recipe.swap.output_method}.isdisjoint((AUTO, *VECTOR_METHODS)):
            yield "vectors"
    if recipe.swap.method == AUTO:
        yield "bake-off"
    for arm in arms:
        if arm == KEEP:
            yield from (f"store-{name}-own" for name in trained_on)
        else:
            yield from (f"swap-{arm}", f"evaluate-{arm}-swapped")
        yield from (f"train-{arm}", f"evaluate-{arm}-trained")
        if recipe.finish.instruct is not None and arm == recipe.swap.method:
            yield from ("finish", f"evaluate-{arm}-finished")
