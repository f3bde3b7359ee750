"""The first line: is the run's model the one to take, by how much, at what cost, and how sure is that?

One question and one answer, over all models that were measured: *yes* where the run's own model needs fewer bits per
byte of the target language than the source model did and no other arm needs fewer still; *no* where one of them does;
*undecided* where the intervals do not tell, or the run is not finished. The best model is named, whoever it is. All
that readers see (the page, the card, the terminal, ``adapt``'s result) begins with this line, and nothing else judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from langadapt.evaluation.bootstrap import Difference
from langadapt.report import words
from langadapt.report.differences import ENOUGH_DOCUMENTS, compared, difference, in_full, outcome
from langadapt.report.results import Results
from langadapt.report.summary import SIDES, Row, Summary, spoken

YES, NO, UNDECIDED = "yes", "no", "undecided"
ALIKE = 0.01
"""Trainings whose tokens, passes or seconds differ by no more had the same of them."""


@dataclass(frozen=True)
class Verdict:
    """The answer and its reasons, as sentences."""

    answer: str
    """``yes``, ``no`` or ``undecided``."""
    line: str
    """The first line: answer, best model, by how much, interval, cost."""
    own: str | None
    """Label of the run's own model; none where it was not measured."""
    best: str | None
    """Label of the model with the fewest bits per byte of the target language."""
    change: float | None
    """Relative change of the target's bits per byte from the source model to the run's own model."""
    interval: tuple[float, float] | None
    """Of ``change``, at 95 %, over documents; none where nothing is known of single documents."""
    diverged: bool = False
    """Whether training left the model worse than it began."""
    remarks: list[str] = field(default_factory=list)
    """What else there is to know, in sentences, good news or bad."""

    def __str__(self) -> str:
        return self.line

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def verdict(summary: Summary, results: Results, finished: bool = True) -> Verdict:
    """The verdict on a run; ``finished``: nothing is still to be trained and measured."""
    own, source, best = summary.trained, summary.source, summary.winner()
    found = difference(results, own, source, "target") if own and source else None
    told = list(remarks(summary, results, finished))
    if own is None or source is None or best is None or found is None:
        done = f"; the best of what was measured is {spoken(best)}" if best else ""
        line = f"Undecided: the run's own model has not been trained and measured yet{done}."
        return Verdict(UNDECIDED, line, None, best.label if best else None, None, None, remarks=told)
    diverged = has_diverged(summary, results)
    answer, text = judge(summary, results, diverged)
    if not finished:
        reasons = text.partition(": ")[2]
        answer, text = UNDECIDED, f"Undecided: the run is not finished. So far: {reasons}"
    return Verdict(
        answer=answer,
        line=f"{text} {cost(summary, results)}",
        own=own.label,
        best=best.label,
        change=found.relative,
        interval=found.interval,
        diverged=diverged,
        remarks=told,
    )


def has_diverged(summary: Summary, results: Results) -> bool:
    """Whether the run's own training diverged, or made its model worse than it was when it began."""
    if results.main is not None and results.main.diverged:
        return True
    begun = summary.swapped or summary.source
    if summary.trained is None or begun is None:
        return False
    found = difference(results, summary.trained, begun, "target")
    return found is not None and outcome(found) > 0


def without_gain(summary: Summary, results: Results) -> Difference | None:
    """The run's own model against what it was before its training, where that was as good; none where it was not.

    A swap alone can gain much on a source model that does not speak the language, and hide a training that did nothing.
    """
    begun, own, main = summary.swapped or summary.source, summary.trained, results.main
    found = difference(results, own, begun, "target") if own and begun else None
    if found is None:
        return None
    best_was_before = main is not None and main.best_step == 0
    same = summary.swapped is not None and outcome(found) == 0
    return found if best_was_before or same else None


def judge(summary: Summary, results: Results, diverged: bool) -> tuple[str, str]:
    """Answer and sentence; the run's own model and the source model have been measured."""
    own, source, best = summary.trained, summary.source, summary.winner()
    assert own is not None and source is not None and best is not None
    found = difference(results, own, source, "target")
    rival = difference(results, own, best, "target") if best is not own else None
    assert found is not None
    name, winner = spoken(own), spoken(best)
    before = in_full(found, f"the source model's {words.decimals(source.bits['target'])}")
    has = f"{words.decimals(own.bits['target'])} bits per byte of {summary.languages['target']}"
    needs = f"{name} needs {has}, {before}"
    if diverged:
        end = f"the best of all measured is {winner}"
        lost = results.main is not None and results.main.diverged
        what = "the training diverged" if lost else "training made the model worse than it was before"
        return NO, f"No: {what}. {needs}; {end}."
    idle = without_gain(summary, results)
    if idle is not None:
        return (
            NO,
            f"No: training brought nothing. {name} needs {has}, {in_full(idle, 'before it')}; all in all {before}.",
        )
    if outcome(found) > 0:
        return NO, f"No: {needs}. Training has not made up for the swap; the best of all measured is {winner}."
    if rival is not None and outcome(rival) > 0:
        value = words.decimals(best.bits["target"])
        return NO, (
            f"No: {winner} is better than {name}, with {value} bits per byte of {summary.languages['target']}: "
            f"{name} needs {in_full(rival, 'that')}. {name} itself: {before}."
        )
    tied = f"; {winner} cannot be told from it" if rival is not None else ""
    if outcome(found) == 0:
        return UNDECIDED, f"Undecided: {needs}; too close to call{tied}."
    return YES, f"Yes: {needs}{tied or (', and no other arm is better' if others(summary) else '')}."


def others(summary: Summary) -> list[Row]:
    """Trained models of the other arms."""
    return [row for row in summary.rows if row.phase == "trained" and row is not summary.trained]


def cost(summary: Summary, results: Results) -> str:
    """What it cost: the other language, text, time, money."""
    parts = []
    if summary.trained and summary.source:
        found = difference(results, summary.trained, summary.source, "source")
        if found is not None:
            value = words.decimals(summary.trained.bits["source"])
            parts.append(f"{summary.languages['source']} {value} bits per byte, {compared(found, 'before')}")
    training = results.main
    if training is not None:
        parts.append(f"{words.short_count(training.tokens)} training tokens")
        parts.append(f"{words.duration(training.seconds)} of training on {results.device}")
    hours, price = results.cost.gpu_hours, results.cost.price
    if hours is not None:
        parts.append(f"{hours:.3g} GPU-hours" + (f" (price: {price:,.2f})" if price else ""))
    return f"Cost: {'; '.join(parts)}." if parts else ""


def remarks(summary: Summary, results: Results, finished: bool) -> Iterator[str]:
    """What else there is to know."""
    if results.main is not None and results.main.diverged:
        yield sentence(results.main.diverged)
    for side in summary.sides:
        yield from language_remarks(summary, results, side)
    own = summary.trained
    if finished and own is not None and own.method != "keep" and summary.kept is None:
        yield "What the same training does without a swap was not measured (`compare: [keep]`)."
    yield from token_remark(summary)
    yield from document_remarks(summary, results)
    seconds = sum(results.cost.seconds.values())
    if seconds:
        yield f"All stages and comparisons together took {words.duration(seconds)}."


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def language_remarks(summary: Summary, results: Results, side: str) -> Iterator[str]:
    """How one language fared against the source model and against the other arms."""
    own, source, name = summary.trained, summary.source, summary.languages[side]
    if own is None or source is None or own.bits[side] is None:
        return
    found = difference(results, own, source, side)
    if found is not None and side == "source":
        told = {1: "so much was forgotten", 0: "no clear loss", -1: "nothing was forgotten"}[outcome(found)]
        yield f"{name}: {words.decimals(own.bits[side])} bits per byte, {in_full(found, 'the source model')}: {told}."
    for row in others(summary):
        found = difference(results, own, row, side)
        if found is not None:
            told = {1: "worse", 0: "not told apart", -1: "better"}[outcome(found)]
            yield (
                f"{name}, {spoken(row)} on {same(results, row.method)}: {words.decimals(row.bits[side])}; "
                f"{spoken(own)} needs {in_full(found, 'that')}: {told}."
            )
    for row in summary.rows:
        found = difference(results, row, own, side) if row.phase == "finished" else None
        if found is not None:
            yield f"{name}, {spoken(row)}: {words.decimals(row.bits[side])}, {in_full(found, spoken(own))}."


def same(results: Results, method: str | None) -> str:
    """What of two trainings was the same: tokens, passes over the text, or seconds."""
    main, other = results.main, results.training.get(method or "")
    if main is None or other is None:
        return "its own training"
    read, tokens = text_read(results, method or ""), words.short_count(other.tokens)
    mine, many = text_read(results, results.method), words.short_count(main.tokens)
    known = read is not None and mine is not None
    seen = f"{words.size(read)} of text against {words.size(mine)}"
    if alike(main.tokens, other.tokens):
        if known and alike(mine or 0.0, read or 0.0):
            return f"the same tokens and text ({tokens}, {words.size(read)})"
        return f"the same tokens ({tokens}" + (f", {seen})" if known else ")")
    if known and alike(mine or 0.0, read or 0.0):
        return f"the same bytes of text ({words.size(read)}, {tokens} tokens against {many})"
    if alike(main.seconds, other.seconds):
        return f"the same seconds ({words.duration(other.seconds)}" + (f", {seen})" if known else ")")
    return f"another budget ({tokens} tokens against {many})"


def alike(one: float, other: float) -> bool:
    """Whether two amounts are the same for all that matters."""
    return abs(one - other) <= ALIKE * max(one, other)


def text_read(results: Results, method: str) -> float | None:
    """UTF-8 bytes of text that a training read; none where that is not known."""
    training = results.training.get(method)
    if training is None or not training.epochs:
        return None
    sizes = {side: results.corpus.get(side, {}).get("train", {}).get("bytes") for side in training.epochs}
    if any(size is None for size in sizes.values()):
        return None
    return float(sum(passes * sizes[side] for side, passes in training.epochs.items()))


def token_remark(summary: Summary) -> Iterator[str]:
    """What the new tokenizer does to the length of texts."""
    if summary.trained is None or summary.source is None or summary.trained.tokenizer == summary.source.tokenizer:
        return
    parts = []
    for side in SIDES:
        old, new = summary.source.fertility[side], summary.trained.fertility[side]
        if old and new:
            ratio = (old / new if summary.metric == "bytes_per_token" else new / old) - 1
            many = f"{abs(ratio):.1%}".replace("%", f"{words.GAP}%")
            parts.append(
                f"{summary.languages[side]} text has {many} {'fewer' if ratio < 0 else 'more'} tokens than before"
            )
    if parts:
        yield "With the new tokenizer, " + ", and ".join(parts) + "."


def document_remarks(summary: Summary, results: Results) -> Iterator[str]:
    """On how much text all this rests, and whether choices were made on the same."""
    if not results.held_out:
        yield (
            "This run is of an earlier version, which kept no figures of single documents: there are no intervals, and "
            "differences of less than 5 % are left undecided. `langadapt adapt` of its recipe measures again."
        )
        return
    for side in summary.sides:
        facts = results.held_out.get(side)
        if facts is None:
            continue
        count, name = len(facts.document_bytes), summary.languages[side]
        text = f"{name} was tested on {words.count(count)} held-out documents ({words.size(sum(facts.document_bytes))})"
        watched = f"{words.count(facts.watched_documents)} ({words.size(facts.watched_bytes)})"
        if facts.apart:
            text += f", none of them among the {watched} that training was watched with"
        else:
            text += f", too few to keep apart the {watched} that training was watched with: they are among them"
        if count < ENOUGH_DOCUMENTS:
            text += f". Fewer than {ENOUGH_DOCUMENTS} documents make intervals that are too narrow"
        yield f"{text}."
    if others(summary) or summary.trained:
        yield "Intervals are over documents (paired bootstrap); each arm was trained once, with one seed."
