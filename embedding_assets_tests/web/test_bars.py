"""Bars, words and labels of the pages."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.pipeline.asset_stages import ASSET_STAGES
from embedding_assets.search.arms import ARMS
from embedding_assets.search.profiles import AUTO, PROFILES
from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.web import labels, routes
from embedding_assets.web.bars import stage_view
from embedding_assets.web.image_page import analysis_rows


def test_a_bar_has_a_piece_for_each_kind_and_leaves_the_rest_free() -> None:
    view = stage_view("slig", CoverageTotal(images=10, embedded=5, skipped=2, rejected=1, missing=2))
    assert [(part.kind, part.start, part.width) for part in view.bar.parts] == [
        ("done", 0.0, 50.0),
        ("skipped", 50.0, 20.0),
        ("rejected", 70.0, 10.0),
    ]
    assert view.words == "5 of 8 done, 2 to do, 1 failed, 2 left out"
    assert view.percent == "62.5 %"


def test_where_all_is_left_out_there_is_nothing_to_do() -> None:
    view = stage_view("text", CoverageTotal(images=3, skipped=3))
    assert view.words == "nothing to do, 3 left out"
    assert view.percent == "100 %"


def test_nothing_at_all_is_an_empty_bar() -> None:
    assert stage_view("slig", CoverageTotal()).bar.parts == ()


@pytest.mark.parametrize(
    ("ratio", "shown"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.9876, "98.8 %"), (0.5, "50 %"), (0.0, "0 %")]
)
def test_only_a_complete_stage_is_a_hundred_percent(ratio: float, shown: str) -> None:
    assert labels.percent(ratio) == shown


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (timedelta(seconds=20), "under a minute"),
        (timedelta(minutes=12), "12 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(days=5), "5 days"),
    ],
)
def test_a_time_span_is_told_in_its_largest_unit(span: timedelta, shown: str) -> None:
    assert labels.duration(span) == shown


def test_everything_that_has_a_name_has_a_label() -> None:
    assert set(labels.ARM_LABELS) == set(ARMS)
    assert set(labels.PROFILE_LABELS) == {AUTO, *PROFILES}
    assert set(labels.STAGE_LABELS) == {"ingest", *(stage.name for stage in ASSET_STAGES)}
    assert set(labels.ANALYSIS_LABELS) == set(VisionAnalysis.model_fields) - {"extra"}
    assert set(get_args(routes.Arm)) == {"", *labels.MORE_OF}


def test_an_analysis_becomes_rows_of_what_it_says() -> None:
    rows = analysis_rows(
        {
            "finish": "matte",
            "colors": ["grey", "white"],
            "primary_color_hex": "#777777",
            "physical_properties": {"slip_rating": "R11"},
            "confidence": 0.5,
            "extra": {"other": "things"},
        }
    )
    assert [(row.label, row.value) for row in rows] == [
        ("Colours", "grey, white"),
        ("Main colour", "#777777"),
        ("Finish", "matte"),
        ("Properties", "slip rating R11"),
        ("Confidence", "0.50"),
    ]
    assert [row.color for row in rows if row.color] == ["#777777"]
    assert analysis_rows(None) == []
