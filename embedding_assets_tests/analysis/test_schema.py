from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedding_assets.analysis.errors import AnalysisRejected
from embedding_assets.analysis.schema import DESCRIPTIVE_FIELDS, VisionAnalysis, clean_text, json_schema
from embedding_assets_tests.analysis.strategies import analyses


def test_texts_are_cleaned_and_lists_hold_no_doubles() -> None:
    analysis = VisionAnalysis(
        material_type="  por\x00ce\u200blain \n tile ",
        finish=" \t ",
        colors=["White", "", "white ", "grey"],
        physical_properties={" slip ": " R10 ", "empty": "", "": "x"},
        primary_color_hex="#a1b2c3",
    )
    assert analysis.material_type == "porcelain tile"
    assert analysis.finish is None
    assert analysis.colors == ["White", "grey"]
    assert analysis.physical_properties == {"slip": "R10"}
    assert analysis.primary_color_hex == "#A1B2C3"


@pytest.mark.parametrize(
    "bad",
    [
        {"primary_color_hex": "white"}, {"primary_color_hex": "#FFF"}, {"confidence": 1.1}, {"confidence": -0.1},
        {"confidence": float("nan")}, {"colors": "white"}, {"material_type": 3}, {"mood": "calm"},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VisionAnalysis(**bad)


def test_four_descriptive_fields_are_enough_and_three_are_not() -> None:
    three = VisionAnalysis(
        material_type="oak", colors=["brown"], finish="oiled", confidence=1.0, extra={"a": 1}
    )
    with pytest.raises(AnalysisRejected, match="material_type, colors, finish"):
        three.require_descriptive()
    four = three.model_copy(update={"description": "A plank."})
    assert four.require_descriptive() is four
    assert four.descriptive_fields() == ("material_type", "colors", "finish", "description")


@given(analyses())
def test_an_analysis_survives_json(analysis: VisionAnalysis) -> None:
    assert VisionAnalysis(**json.loads(json.dumps(analysis.to_json()))) == analysis
    assert VisionAnalysis.model_validate_json(analysis.model_dump_json()) == analysis


@given(st.text(), st.integers(1, 30))
def test_cleaning_twice_is_cleaning_once(text: str, limit: int) -> None:
    once = clean_text(text, limit)
    assert clean_text(once, limit) == once
    assert len(once) <= limit
    assert once == once.strip()
    assert "  " not in once
    assert once.isprintable() or not once.isascii()


def test_the_provider_schema_is_strict() -> None:
    def check(node: dict[str, Any]) -> None:
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
            for inner in node["properties"].values():
                check(inner)
        if "items" in node:
            check(node["items"])

    schema = json_schema()
    check(schema)
    assert set(schema["properties"]) == {*DESCRIPTIVE_FIELDS, "primary_color_hex", "confidence"}
    assert schema["properties"]["finish"]["type"] == ["string", "null"]
