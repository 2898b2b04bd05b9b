"""Coverage over time as lines and columns."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.web.chart import History, coverage_chart, throughput_chart

START = datetime(2026, 3, 1, tzinfo=timezone.utc)


def history(*embedded: int, images: int = 100, hours: float = 1.0) -> History:
    """One stage, looked at every so many hours."""
    return {
        "slig": [
            (START + n * timedelta(hours=hours), CoverageTotal(images=images, embedded=done))
            for n, done in enumerate(embedded)
        ]
    }


def places(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


def test_one_moment_is_no_line_yet() -> None:
    assert coverage_chart({}) is None
    assert coverage_chart(history(50)) is None
    assert throughput_chart(history(50), "slig") is None


def test_a_line_goes_from_left_to_right_and_up_as_images_are_embedded() -> None:
    chart = coverage_chart(history(0, 50, 100))
    assert chart is not None
    (left, low), (middle, half), (right, high) = places(chart.lines[0].points)
    assert (left, right) == (chart.left, chart.right)
    assert left < middle < right
    assert low > half > high
    assert [tick.label for tick in chart.up] == ["0 %", "50 %", "100 %"]
    assert (low, high) == (chart.up[0].at, chart.up[-1].at)


def test_where_all_is_nearly_done_the_axis_begins_higher() -> None:
    chart = coverage_chart(history(97, 99))
    assert chart is not None
    assert [tick.label for tick in chart.up] == ["90 %", "95 %", "100 %"]


def test_columns_hold_what_was_embedded_meanwhile_and_a_fall_is_none() -> None:
    chart = throughput_chart(history(0, 40, 20, 50), "slig")
    assert chart is not None
    assert [column.label.split(" until")[0] for column in chart.columns] == ["40 images", "30 images"]
    highest, lower = chart.columns
    assert highest.height > lower.height > 0
    assert highest.y + highest.height == lower.y + lower.height
    assert chart.up[-1].label == "40"


def test_a_stage_without_history_has_no_columns() -> None:
    assert throughput_chart(history(0, 40), "vision") is None


def test_times_are_told_as_finely_as_they_are_apart() -> None:
    for hours, expected in ((0.01, "00:00:00"), (1.0, "00:00"), (50.0, "01 Mar")):
        chart = coverage_chart(history(0, 50, hours=hours))
        assert chart is not None
        assert chart.across[0].label == expected
