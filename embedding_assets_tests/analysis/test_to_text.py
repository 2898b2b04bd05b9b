from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embedding_assets.analysis.schema import DESCRIPTIVE_FIELDS, VisionAnalysis
from embedding_assets.analysis.to_text import LABELS, analysis_to_text, is_worth_embedding
from embedding_assets.analysis.values import is_nothing
from embedding_assets_tests.analysis.strategies import SINGLE_TEXTS, analyses

FULL = VisionAnalysis(
    material_type="porcelain",
    material_subtype="full body",
    category="tile",
    subcategory="floor tile",
    colors=["white", "grey"],
    primary_color_hex="#EDEBE6",
    textures=["smooth", "veined"],
    pattern="herringbone",
    finish="matte",
    design_style="modern",
    applications=["floor", "wall"],
    dimensions="60x120 cm",
    physical_properties={"thickness": "9 mm", "slip_rating": "R10"},
    detected_text=["Aurelia", "R10"],
    description="A bright tile.",
    confidence=0.9,
    extra={"note": "kept aside"},
)

PROPERTIES = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["price", "id", "supplier_id", "created_at", "Price"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.lists(st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    max_size=5,
)  # fmt: skip


def test_the_whole_template_in_its_order() -> None:
    assert analysis_to_text(FULL, {"origin": "Italy", "lead time": 14}) == (
        "Material: porcelain, full body. Category: tile, floor tile. Colors: white, grey. "
        "Primary color: #EDEBE6 (white). Textures: smooth, veined. Finish: matte. Pattern: herringbone. "
        "Style: modern. Description: A bright tile. Applications: floor, wall. Dimensions: 60x120 cm. "
        "Properties: slip rating: R10, thickness: 9 mm. Text detected: Aurelia, R10. "
        "Material properties: origin: Italy."
    )


def test_identifiers_and_time_stamps_are_left_out() -> None:
    properties = {
        "id": 7,
        "supplier_id": "a1",
        "created_at": "yesterday",
        "updatedAt": "2024-05-01T10:00:00Z",
        "key": "0b9f3c3e-1b1e-4c9d-9f60-6f2f9c5f1a11",
        "seen": "2024-05-01 10:00",
        "grade": "A",
        "empty": None,
    }
    assert analysis_to_text(VisionAnalysis(), properties) == "Material properties: grade: A."


def test_one_texture_has_its_own_label() -> None:
    assert analysis_to_text(VisionAnalysis(textures=["smooth"])) == "Texture: smooth."


def test_nothing_is_no_text() -> None:
    assert analysis_to_text(VisionAnalysis(confidence=0.3, extra={"a": "b"}), {"id": 3}) == ""


@given(analyses(), PROPERTIES)
def test_the_same_value_gives_the_same_text(analysis: VisionAnalysis, properties: dict[str, Any]) -> None:
    text = analysis_to_text(analysis, properties)
    data = json.loads(json.dumps(analysis.to_json(), sort_keys=True))
    data["physical_properties"] = dict(reversed(data.get("physical_properties", {}).items()))
    assert analysis_to_text(VisionAnalysis(**data), dict(reversed(properties.items()))) == text


@given(analyses())
def test_no_field_is_lost(analysis: VisionAnalysis) -> None:
    text = analysis_to_text(analysis)
    for name in DESCRIPTIVE_FIELDS:
        value = getattr(analysis, name)
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for one in values:
            assert not one or is_nothing(one) or one in text
    assert (analysis.primary_color_hex or "") in text


@given(analyses(), PROPERTIES)
def test_the_text_is_one_clean_line(analysis: VisionAnalysis, properties: dict[str, Any]) -> None:
    text = analysis_to_text(analysis, properties)
    assert text == " ".join(text.split())
    assert not any(c in text for c in "\x00\n\r\t\u2028")


@given(analyses(), PROPERTIES)
def test_no_label_is_empty(analysis: VisionAnalysis, properties: dict[str, Any]) -> None:
    said = json.dumps([analysis.to_json(), properties])
    assume(not any(f"{label}:" in said for label in LABELS))
    assume(not re.search(r'"[.,]', said))  # a value that begins with a full stop looks like none
    text = analysis_to_text(analysis, properties)
    assert not re.search(rf"({'|'.join(LABELS)}): ?([.,] |[.,]?$)", text)


@given(
    st.dictionaries(
        st.sampled_from(SINGLE_TEXTS), st.sampled_from([None, "None", "none", "N/A", "unknown", "oak"])
    )
)
def test_nothing_never_reads_none(fields: dict[str, Any]) -> None:
    text = analysis_to_text(VisionAnalysis(**fields), {"a": None, "b": [None], "c": {"d": None}, "e": "oak"})
    assert "none" not in text.lower()
    assert "null" not in text.lower()


@pytest.mark.parametrize(
    ("text", "worth"),
    [("", False), ("Material: oak.", False), ("Properties: R10.", False), ("--- ... ---", False),
     ("Oak planks", True), ("Material: porcelain.", True), ("Material: oak. Colors: brown.", True)],
)  # fmt: skip
def test_labels_alone_are_not_worth_a_vector(text: str, worth: bool) -> None:
    assert is_worth_embedding(text) is worth
