"""Coverage over time as lines, and what was embedded meanwhile as columns: numbers for SVG, drawn by a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from embedding_assets.store.coverage_totals import CoverageTotal

WIDTH = 560
LINES_HEIGHT, COLUMNS_HEIGHT = 168, 104
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 24
"""Margins around the plot, for the labels of its axes; all in the picture's own units."""

COLUMNS = 28
"""Columns of the throughput chart."""


@dataclass(frozen=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One stage's coverage, as the `points` of an SVG polyline."""

    stage: str
    points: str


@dataclass(frozen=True)
class Column:
    """Images embedded in a stretch of time."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Chart:
    """What a template draws: lines or columns, and the ticks of both axes."""

    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    height: int
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT


History = Mapping[str, Sequence[tuple[datetime, CoverageTotal]]]
"""Stage -> (when, sums), oldest first."""


def coverage_chart(history: History) -> Chart | None:
    """Each stage's coverage in percent; None where there are not yet two moments to draw a line between."""
    span = _span(history)
    if span is None:
        return None
    lowest = min(total.ratio for points in history.values() for _, total in points)
    bottom = 0.0 if lowest < 0.5 else 0.5 if lowest < 0.9 else 0.9
    lines = tuple(
        Line(
            stage,
            " ".join(
                f"{_across(when, span):.1f},{_up((total.ratio - bottom) / (1 - bottom), LINES_HEIGHT):.1f}"
                for when, total in points
            ),
        )
        for stage, points in history.items()
    )
    marks = [bottom, (1 + bottom) / 2, 1.0]
    up = tuple(Tick(_up((m - bottom) / (1 - bottom), LINES_HEIGHT), f"{100 * m:.0f} %") for m in marks)
    return Chart(lines, (), _time_ticks(span), up, LINES_HEIGHT)


def throughput_chart(history: History, stage: str) -> Chart | None:
    """Images that a stage did in each stretch of time; None where there is no stretch yet."""
    span = _span(history)
    points = history.get(stage, ())
    if span is None or len(points) < 2:
        return None
    step = (span[1] - span[0]) / COLUMNS
    done = [0] * COLUMNS
    for before, after in pairwise(points):
        place = min(COLUMNS - 1, int((after[0] - span[0]) / step))
        done[place] += max(0, after[1].embedded - before[1].embedded)
    most = max(done) or 1
    floor = _up(0, COLUMNS_HEIGHT)
    width = (WIDTH - LEFT - RIGHT) / COLUMNS
    columns = tuple(
        Column(
            x=round(LEFT + n * width + 1, 1),
            y=round(_up(images / most, COLUMNS_HEIGHT), 1),
            width=round(width - 2, 1),
            height=round(floor - _up(images / most, COLUMNS_HEIGHT), 1),
            label=f"{images} images until {span[0] + (n + 1) * step:%Y-%m-%d %H:%M}",
        )
        for n, images in enumerate(done)
        if images
    )
    up = (Tick(floor, "0"), Tick(_up(1, COLUMNS_HEIGHT), f"{most}"))
    return Chart((), columns, _time_ticks(span), up, COLUMNS_HEIGHT)


def _span(history: History) -> tuple[datetime, datetime] | None:
    moments = [when for points in history.values() for when, _ in points]
    if not moments or max(moments) == min(moments):
        return None
    return min(moments), max(moments)


def _across(when: datetime, span: tuple[datetime, datetime]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ((when - span[0]) / (span[1] - span[0]))


def _up(share: float, height: int) -> float:
    return height - BOTTOM - (height - TOP - BOTTOM) * share


def _time_ticks(span: tuple[datetime, datetime]) -> tuple[Tick, ...]:
    length = span[1] - span[0]
    form = (
        "%H:%M:%S" if length < timedelta(minutes=10) else "%H:%M" if length < timedelta(days=2) else "%d %b"
    )
    return tuple(
        Tick(round(_across(when, span), 1), when.strftime(form))
        for when in (span[0], span[0] + length / 2, span[1])
    )
