"""Coverage over time: sums, speed, what is left, and what is forgotten."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import pytest
from PIL import Image
from sqlalchemy import text

from embedding_assets.errors import ErrorClass
from embedding_assets.pipeline.asset_stages import ASSET_STAGES as STAGES
from embedding_assets.pipeline.coverage_plot import plot_coverage
from embedding_assets.pipeline.coverage_report import (
    CoverageReport,
    images_per_hour,
    take_coverage,
    time_left,
)
from embedding_assets.store.coverage_history import coverage_history
from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets_tests.pipeline.project import Project

SLIG, TEXT = STAGES[0], STAGES[3]
KEEP = timedelta(days=30)
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def take(project: Project, keep: timedelta = KEEP) -> CoverageReport:
    return take_coverage(project.database, [SLIG, TEXT], 0.95, keep)


def age(project: Project, by: timedelta) -> None:
    """Makes all that was taken so far older."""
    with project.database.transaction() as connection:
        connection.execute(
            text("UPDATE coverage_history SET taken_at = taken_at - CAST(:by AS interval)"), {"by": by}
        )


# -- what is taken ---------------------------------------------------------------------------------------------


def test_totals_add_up() -> None:
    total = CoverageTotal(4, 1, 35, 27, 1, 2, 5)
    assert total.ratio == pytest.approx(27 / 34)
    assert total + total == CoverageTotal(8, 2, 70, 54, 2, 4, 10)
    assert CoverageTotal().ratio == 1


def test_every_workspace_and_stage_is_counted_and_kept(project: Project) -> None:
    first = project.ingested("shop/a", range(4))
    second = project.ingested("rival/b", range(10, 13))
    project.embedder().run("shop", project.ids(first))
    with project.database.transaction() as connection:
        record_failures(
            connection,
            [
                Failure(second, project.ids(second)[0], "slig", ErrorClass.TRANSIENT, "E", "m", 1),
                Failure(second, None, "ingest", ErrorClass.PERMANENT, "E", "m", 1),
            ],
        )
    report = take(project)
    slig, texts = report.stages
    assert slig.total == CoverageTotal(2, 1, 7, 4, 0, 0, 3)
    assert (slig.failures, texts.failures) == ({"transient": 1}, {})
    assert report.failures == {"ingest": {"permanent": 1}, "slig": {"transient": 1}}
    assert [(row.workspace_id, row.stage.name, row.total.missing) for row in report.workspaces] == [
        ("rival", "slig", 3),
        ("rival", "text", 3),
        ("shop", "slig", 0),
        ("shop", "text", 4),
    ]
    assert (slig.images_per_hour, slig.time_left) == (None, None)
    with project.database.transaction() as connection:
        kept = coverage_history(connection, "shop", timedelta(hours=1))
    assert [(record.stage, record.total.embedded) for record in kept] == [("slig", 4), ("text", 0)]


def test_history_gives_speed_and_time_left(project: Project) -> None:
    key = project.ingested("shop/a", range(12))
    take(project)
    age(project, timedelta(hours=1))
    project.embedder().run("shop", project.ids(key)[:4])
    slig = take(project).stages[0]
    assert slig.images_per_hour == pytest.approx(4, rel=0.01)
    assert slig.time_left is not None
    assert slig.time_left.total_seconds() == pytest.approx(2 * 3600, rel=0.01)
    project.embedder().run("shop", project.ids(key))
    report = take(project)
    assert report.stages[0].time_left == timedelta()
    assert [total.embedded for _, total in report.history["slig"]] == [0, 4, 12]
    assert report.history["slig"][0][0] < report.history["slig"][1][0]


def test_what_is_too_old_is_forgotten(project: Project) -> None:
    project.ingested("shop/a", range(1))
    take(project)
    age(project, timedelta(days=31))
    assert take(project).forgotten == 2
    age(project, timedelta(days=29))
    assert take(project).forgotten == 0
    with project.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM coverage_history")).scalar() == 4


def test_without_documents_there_is_nothing_to_report(project: Project) -> None:
    report = take(project)
    assert [row.total for row in report.stages] == [CoverageTotal(), CoverageTotal()]
    assert (report.workspaces, report.failures) == ((), {})
    assert plot_coverage(report.history)


# -- speed -----------------------------------------------------------------------------------------------------


def history(*points: tuple[float, int]) -> list[tuple[datetime, int]]:
    """(hours before noon, images embedded), oldest first."""
    return [(NOON - timedelta(hours=hours), count) for hours, count in points]


@pytest.mark.parametrize(
    ("points", "speed"),
    [
        ([], None),
        ([(0, 5)], None),
        ([(1, 100), (0, 160)], 60),
        ([(2, 0), (1, 100), (0, 160)], 60),
        ([(5, 0), (4, 100), (1, 100), (0, 100)], 20),
        ([(30, 0), (20, 0), (10, 40), (0, 40)], 2),
        ([(30, 0), (29, 500), (10, 500), (0, 500)], 0),
        ([(1, 100), (0.5, 20), (0, 50)], 30),
        ([(30, 0), (0, 500)], None),
    ],
)
def test_speed_is_that_of_the_shortest_window_in_which_something_moved(
    points: list[tuple[float, int]], speed: float | None
) -> None:
    assert images_per_hour(history(*points)) == (None if speed is None else pytest.approx(speed))


@pytest.mark.parametrize(
    ("missing", "speed", "left"),
    [
        (0, None, timedelta()),
        (0, 0.0, timedelta()),
        (50, 100.0, timedelta(minutes=30)),
        (50, 0.0, None),
        (50, None, None),
    ],
)
def test_time_left_is_known_only_while_something_moves(
    missing: int, speed: float | None, left: timedelta | None
) -> None:
    assert time_left(missing, speed) == left


def test_the_plot_is_a_picture_of_a_sensible_size() -> None:
    points = [(NOON + timedelta(hours=n), CoverageTotal(1, 0, 100, n, 0, 0, 100 - n)) for n in range(24 * 14)]
    png = plot_coverage({"slig": points, "text": points[::2]})
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    assert picture.width >= 600
    assert len(set(picture.convert("RGB").get_flattened_data())) > 3
    assert len(png) < 20_000
