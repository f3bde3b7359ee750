"""Line charts as inline SVG. Colours, fonts and line styles come from the page's style sheet, by class.

A chart has a fixed inner size that is legible at 300 to 600 CSS pixels; the page scales it to its column. Values that
span more than :data:`LOG_SPAN` ask for a logarithmic axis, which the chart says: a run's first steps would otherwise
press its end into a line at the bottom. Charts of one quantity are given one kind of axis by who draws them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from langadapt.report import words

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 40
LOG_SPAN = 3.0
"""Largest over smallest value from which an axis is logarithmic."""
MAX_POINTS = 240
"""Points per line; more cannot be seen, and make the page heavy."""
MAX_MARKED = 40
"""Lines of at most this many points show them, with their values on hover."""
COLOURS, STROKES = 6, 3
"""Of the page's style sheet: lines of one colour differ in their stroke."""
NARROW = 0.02
"""Share of the middle value below which a span of values is drawn no wider."""


@dataclass(frozen=True)
class Line:
    """One series."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    slot: int = 0
    """Which of the page's series colours and strokes."""
    faint: bool = False
    """Drawn thin and behind, without markers and without a place in the legend."""
    best: int | None = None
    """Index of the point to be marked as the best."""


@dataclass(frozen=True)
class Reference:
    """A level to compare with."""

    name: str
    y: float


@dataclass(frozen=True)
class Chart:
    """A drawn chart and what goes around it."""

    title: str
    svgs: dict[str, Markup]
    """By what the horizontal axis counts; the page shows one at a time."""
    legend: list[tuple[str, int, str]]
    """Name, colour slot and last value of each line."""
    note: str = ""
    references: list[Reference] = field(default_factory=list)

    @property
    def svg(self) -> Markup:
        """The first of them."""
        return next(iter(self.svgs.values()))


@dataclass(frozen=True)
class Axis:
    """Values to positions."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Position of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int) -> list[float]:
        """Round values inside the axis, about ``wanted`` of them."""
        found = log_ticks(self.low, self.high, wanted) if self.logarithmic else []
        # Within a factor of 1.5 there are hardly any that are round on a logarithmic scale.
        if len(found) > 2:
            return found
        step = nice((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        return [at * step for at in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice(step: float) -> float:
    """The next larger 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def log_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Powers of ten, and as many values between them as there is room for."""
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= wanted + 2:
            return found
    return found[:: math.ceil(len(found) / wanted)]


def asks_for_logarithms(values: Sequence[float]) -> bool:
    """Whether the values span too much for a linear axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_SPAN


def value_axis(values: Sequence[float], start: float, end: float, logarithmic: bool) -> Axis:
    """An axis with a little room around the values; it does not begin at zero, lines need not."""
    low, high = min(values), max(values)
    if logarithmic and 0 < low < high:
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, start, end, logarithmic=True)
    room = max(0.08 * (high - low), NARROW * abs(low + high) / 2, 1e-12)
    floor = 0.0 if low >= 0 else -math.inf
    return Axis(max(low - room, floor), high + room, start, end)


def thin(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most :data:`MAX_POINTS` points: means of runs of neighbours."""
    size = math.ceil(len(xs) / MAX_POINTS)
    if size <= 1:
        return list(xs), list(ys)
    groups = [slice(at, at + size) for at in range(0, len(xs), size)]
    return [mean(xs[group]) for group in groups], [mean(ys[group]) for group in groups]


def thinned(line: Line) -> Line:
    """``line`` of few points; the best is marked on a line that has few."""
    if len(line.xs) <= MAX_POINTS:
        return line
    xs, ys = thin(line.xs, line.ys)
    return replace(line, xs=xs, ys=ys, best=None)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_title: str,
    references: Sequence[Reference] = (),
    note: str = "",
    shape: Callable[[float], str] = words.decimals,
    logarithmic: bool = False,
    axis: str = "tokens",
) -> Chart | None:
    """A chart of lines and levels; none where no line has two points. ``axis``: the key of its drawing."""
    lines = [thinned(line) for line in lines if line.xs]
    if not any(len(line.xs) > 1 for line in lines):
        return None
    xs = [x for line in lines for x in line.xs]
    ys = [y for line in lines for y in line.ys] + [level.y for level in references]
    across = Axis(min([0.0, *xs]), max([1e-9, *xs]), LEFT, WIDTH - RIGHT)
    up = value_axis(ys, HEIGHT - BOTTOM, TOP, logarithmic)
    shown = [line for line in lines if not line.faint]
    names = ", ".join(line.name for line in shown)
    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {}">').format(WIDTH, HEIGHT, title, names),
        *grid(across, up, x_title),
        *(level(reference, up) for reference in references),
        # The first line is the one that matters: on top of the others, faint ones behind all.
        *(drawn(line, across, up, shape) for line in (*(one for one in lines if one.faint), *reversed(shown))),
        # Over the lines, which would cross them out.
        *(level_name(reference, up) for reference in references),
        Markup("</svg>"),
    ]
    legend = [(line.name, line.slot, shape(line.ys[-1])) for line in shown]
    if up.logarithmic:
        note = f"{note} Logarithmic scale.".strip()
    return Chart(title, {axis: Markup("").join(parts)}, legend, note, list(references))


def grid(across: Axis, up: Axis, x_title: str) -> list[Markup]:
    """Horizontal rules, both axes' numbers, the title of the horizontal one."""
    parts = []
    ticks = up.ticks(5)
    places = decimals_for(ticks, up.logarithmic)
    for value in ticks:
        y = up.at(value)
        parts.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        text = tick_text(value, places(value), max(map(abs, ticks)))
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, y + 4, text)
        )
    for value in across.ticks(4):
        text = words.short_count(value) if value >= 1000 else f"{value:.4g}"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                across.at(value), HEIGHT - BOTTOM + 17, text
            )
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, HEIGHT - 5, x_title)
    )
    return parts


def tick_text(value: float, places: int, largest: float) -> str:
    """A number that fits beside the axis, whose largest is ``largest``."""
    if largest >= 1000:
        return words.short_count(value)
    if not value:
        return "0"
    if 0 < largest < 1e-2:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.{places}f}"


def decimals_for(ticks: Sequence[float], logarithmic: bool) -> Callable[[float], int]:
    """Decimal places that tell neighbouring ticks apart: those of the step, or of each value on a logarithmic axis."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0

    def places(value: float) -> int:
        finest = abs(value) if logarithmic else step
        return next((places for places in range(12) if abs(round(finest, places) - finest) < 0.01 * finest), 0)

    return places


def stroke(slot: int) -> int:
    """Solid, dashed or dotted: neighbours differ in colour and stroke, and so do lines of one colour."""
    return (slot + slot // COLOURS) % STROKES


def level(reference: Reference, up: Axis) -> Markup:
    """A dashed line across."""
    y = up.at(reference.y)
    return Markup('<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)


def level_name(reference: Reference, up: Axis) -> Markup:
    """Its name, above its right end."""
    y = up.at(reference.y)
    return Markup('<text class="level-name" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        WIDTH - RIGHT, y - 5 if y > TOP + 14 else y + 14, reference.name
    )


def drawn(line: Line, across: Axis, up: Axis, shape: Callable[[float], str]) -> Markup:
    """A polyline, with markers where its points are few and a ring around the best."""
    points = [(across.at(x), up.at(y)) for x, y in zip(line.xs, line.ys, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    kind = Markup("s{} {}").format(line.slot % COLOURS, "faint" if line.faint else f"d{stroke(line.slot)}")
    parts = [Markup('<polyline class="line {}" points="{}"/>').format(kind, path)]
    if line.best is not None:
        x, y = points[line.best]
        parts.append(
            Markup('<circle class="ring s{}" cx="{:.1f}" cy="{:.1f}" r="6"/>').format(line.slot % COLOURS, x, y)
        )
    if len(points) <= MAX_MARKED and not line.faint:
        for (x, y), at, value in zip(points, line.xs, line.ys, strict=True):
            parts.append(
                Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>').format(
                    line.slot % COLOURS, x, y, f"{line.name}, {words.short_count(at)}: {shape(value)}"
                )
            )
    return Markup("").join(parts)
