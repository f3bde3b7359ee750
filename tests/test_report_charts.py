"""Charts of the report: axes, ticks, thinned series, names of levels."""

import pytest

from langadapt.report.charts import (
    MAX_POINTS,
    Axis,
    Line,
    Reference,
    line_chart,
    thin,
    tick_text,
    value_axis,
)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (1, 1), (2.1, 6.2), (-3, 4), (1e-6, 4e-5), (9300, 9301), (0.5, 5000), (1e-9, 1e9), (0, 0)]
)
def test_axes(low: float, high: float) -> None:
    axis = value_axis([low, high], 200, 10, True)
    assert 10 <= axis.at(high) <= axis.at(low) <= 200
    ticks = axis.ticks(5)
    assert 1 <= len(ticks) <= 12
    assert ticks == sorted(ticks)
    assert all(10 - 0.01 <= axis.at(tick) <= 200.01 for tick in ticks)


def test_small_numbers_fit_beside_the_axis() -> None:
    chart = line_chart("rate", [Line("a", [0, 1], [2e-6, 4e-5])], x_title="x")
    assert chart is not None
    assert ">2e-5<" in chart.svg
    assert ">0<" in chart.svg


def test_small_ticks_are_told_apart_and_zero_is_zero() -> None:
    ticks = Axis(0, 8e-4, 0, 1).ticks(4)
    assert [tick_text(tick, 4, 8e-4) for tick in ticks] == ["0", "2e-4", "4e-4", "6e-4", "8e-4"]


def test_linear_ticks_are_round() -> None:
    assert Axis(0, 10, 0, 1).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Axis(1.9, 3.1, 0, 1).ticks(4) == pytest.approx([2, 2.5, 3])


def test_long_series_are_thinned() -> None:
    xs, ys = thin(range(10_001), [2.0] * 10_001)
    assert len(xs) <= MAX_POINTS
    assert set(ys) == {2.0}
    assert xs == sorted(xs)


def test_names_of_levels_lie_over_the_lines() -> None:
    lines, levels = [Line("a", [0, 1], [2.0, 4.0])], [Reference("xz, a compressor", 3.0)]
    chart = line_chart("bits", lines, x_title="x", references=levels)
    assert chart is not None
    svg = str(chart.svgs["tokens"])
    assert svg.index('class="level"') < svg.index("<polyline") < svg.index(">xz, a compressor<")


def test_charts_of_few_points() -> None:
    assert line_chart("none", [Line("a", [], []), Line("b", [0], [1])], x_title="x") is None
    one = line_chart("one", [Line("a", [0, 0], [0, 0])], x_title="x", references=[Reference("level", 0)])
    assert one is not None
    assert "nan" not in one.svg.lower()
