"""What a run that has not come to its end has found so far: put together from its stages' stamps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langadapt.artefacts.stages import is_running, read_stamp
from langadapt.errors import ConfigError
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.report.results import Cost, HeldOutFacts, Measurement, Results, TokenizerFacts, Training
from langadapt.swap.rows.names import AUTO, KEEP


def stamps(folder: Path) -> dict[str, dict[str, Any]]:
    """By stage, in the order in which they were finished."""
    files = sorted((folder / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    found = {file.stem: read_stamp(file) for file in files if not file.name.startswith(".")}
    return {name: stamp for name, stamp in found.items() if stamp is not None and "summary" in stamp}


def results_so_far(folder: Path, recipe: Recipe) -> Results:
    """Results with what is there; what is not there yet is empty."""
    done = stamps(folder)
    summaries = {name: stamp["summary"] for name, stamp in done.items()}

    def of(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): found for name, found in summaries.items() if name.startswith(prefix)}

    ranking = summaries.get("bake-off", {}).get("rows", [])
    method = recipe.swap.method
    if method == AUTO:
        method = ranking[0]["method"] if ranking else AUTO
    rows = [row for name, summary in of("evaluate-").items() if (row := built(Measurement, summary, name)) is not None]
    held_out = {side: built(HeldOutFacts, facts, side) for side, facts in summaries.get("held-out", {}).items()}
    trainings = {name: built(Training, summary, name) for name, summary in of("train-").items()}
    return Results(
        name=recipe.name,
        languages={"source": recipe.source_language, "target": recipe.target_language},
        versions={},
        device="this machine",
        method=method,
        tokenizers=tokenizers(summaries, recipe),
        fertility=summaries.get("fertility", {}),
        corpus=of("corpus-"),
        swap=of("swap-"),
        bake_off=ranking,
        rows=sorted(rows, key=lambda row: (row.method is not None, row.method != method, row.method or "", row.phase)),
        training={name: one for name, one in trainings.items() if one is not None},
        cost=Cost({name: stamp["seconds"] for name, stamp in done.items()}, None, None),
        held_out={side: one for side, one in held_out.items() if one is not None},
    )


def built(kind: type[Any], content: Any, name: str) -> Any:
    """A dataclass of the results, or none where a stamp of another version holds something else."""
    try:
        return build(kind, content, f"{name}.")
    except (ConfigError, AttributeError, TypeError):
        return None


def tokenizers(summaries: dict[str, dict[str, Any]], recipe: Recipe) -> dict[str, TokenizerFacts]:
    """Sizes of both tokenizers, as far as a stage has told them."""
    found = {}
    told = summaries.get("fertility", {}).get("text", {}).get("summary", {})
    for side, name in (("source", Path(recipe.model).name), ("target", "new")):
        facts = told.get("new" if side == "target" else "source")
        if facts is not None:
            found[side] = TokenizerFacts(name, facts["vocab_size"], facts["backend"])
    return found


def what_is_done(folder: Path, recipe: Recipe) -> list[str]:
    """Sentences: what is finished, what is being done, what is still to come."""
    done = list(stamps(folder))
    state = "is at work in this folder now" if is_running(folder) else "goes on from here with the same command"
    found = [f"This run is not finished; `langadapt adapt` {state}."]
    found.append(f"Finished stages: {', '.join(done) if done else 'none'}.")
    arms = [recipe.swap.method, *recipe.compare]
    for file in sorted(folder.glob("trained/*/log.jsonl")):
        name = file.parent.name
        last = last_step(file)
        if f"train-{name}" not in done and last is not None:
            found.append(f"Training of {name}: step {last['step']:,}, {last.get('progress', 0.0):.0%} of its budget.")
    left = [name for name in arms if name != AUTO and f"evaluate-{name}-trained" not in done]
    if left:
        names = ", ".join("training without a swap" if name == KEEP else name for name in left)
        found.append(f"Still to be trained and measured: {names}.")
    return found


def last_step(file: Path) -> dict[str, Any] | None:
    """The last whole line of a log that tells of a step."""
    for text in reversed(file.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        if "loss" in line:
            return line
    return None
