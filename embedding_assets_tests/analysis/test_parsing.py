from __future__ import annotations

import json
from typing import Any

import pytest

from embedding_assets.analysis.answers import MAX_ANSWER
from embedding_assets.analysis.errors import (
    AnalysisBusy,
    AnalysisError,
    AnalysisRefused,
    AnalysisRejected,
    AnalysisUnreadable,
)
from embedding_assets.analysis.parsing import ALIASES, parse_analysis
from embedding_assets.analysis.schema import VisionAnalysis, json_schema
from embedding_assets.errors import ErrorClass, classify

GOOD: dict[str, Any] = {
    "material_type": "porcelain",
    "category": "tile",
    "colors": ["white", "grey"],
    "finish": "matte",
    "description": 'A {bright} tile, with "R10" on it.',
}
TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        f"\ufeff {TEXT}\n",
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"Here is what I see:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nAnything else?",
        f"Sure! {TEXT} I hope that helps {{really}}.",
        f"Use {{braces}} with care. {TEXT}",
        f'For example {{"x": 1}}. {TEXT}',
        f'<think>maybe {{"material_type": "oak"}}?</think>{TEXT}',
        f"[{TEXT}]",
        f"```json\n[{TEXT}]\n```",
        json.dumps({"result": GOOD}),
        json.dumps({"analysis": [GOOD]}),
        json.dumps({"data": {"vision_analysis": TEXT}}),
        json.dumps(TEXT),
        TEXT[:-1] + ', "error": null}',
        GOOD,
    ],
)
def test_the_object_is_found_whatever_it_is_wrapped_in(answer: str | dict[str, Any]) -> None:
    analysis = parse_analysis(answer)
    assert analysis == VisionAnalysis(**{**GOOD, "description": 'A {bright} tile, with "R10" on it.'})


@pytest.mark.parametrize("alias", [(field, name) for field, names in ALIASES.items() for name in names])
def test_every_alias_reaches_its_field(alias: tuple[str, str]) -> None:
    field, name = alias
    values = {"physical_properties": {"weight": "2 kg"}, "confidence": 0.5, "primary_color_hex": "#aabbcc"}
    value = values.get(field, "something")
    analysis = parse_analysis({name: value}, minimum=0)
    expected: Any = {"primary_color_hex": "#AABBCC"}.get(field, value)
    if field in ("colors", "textures", "applications", "detected_text"):
        expected = ["something"]
    assert getattr(analysis, field) == expected
    assert analysis.extra == {}


def test_names_are_read_in_any_case() -> None:
    analysis = parse_analysis(
        {"materialType": "oak", "Design Style": "rustic", "sub-category": "plank"}, minimum=0
    )
    assert (analysis.material_type, analysis.design_style, analysis.subcategory) == ("oak", "rustic", "plank")


def test_the_first_alias_that_is_not_empty_wins_and_no_value_is_lost() -> None:
    analysis = parse_analysis(
        {"colors": [], "dominant_colors": ["red"], "color_palette": "N/A", "color": "pink"}, minimum=0
    )
    assert analysis.colors == ["red"]
    assert analysis.extra == {"color": "pink"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"colors": "white, grey; blue"}, {"colors": ["white", "grey", "blue"]}),
        ({"colors": [{"name": "white", "hex": "#fff", "percentage": 80}]}, {"colors": ["white"]}),
        ({"colors": {"primary": "white", "secondary": ["grey", "White"]}}, {"colors": ["white", "grey"]}),
        ({"colors": ["#F4F3F0"]}, {"colors": ["white"], "primary_color_hex": "#F4F3F0"}),
        ({"textures": "veined"}, {"textures": ["veined"]}),
        ({"finish": ["matte", "honed"]}, {"finish": "matte, honed"}),
        ({"pattern": {"type": "herringbone"}}, {"pattern": "herringbone"}),
        ({"material": {"type": "porcelain", "subtype": "full body"}},
         {"material_type": "porcelain", "material_subtype": "full body"}),
        ({"dimensions": {"width": 60, "height": "120", "unit": "cm"}}, {"dimensions": "60 x 120 cm"}),
        ({"dimensions": {"width": "60 cm", "length": "120 cm", "thickness": "9 mm"}},
         {"dimensions": "60 cm x 120 cm x 9 mm"}),
        ({"size": 60.0}, {"dimensions": "60"}),
        ({"ocr_text": "60x120 cm, R10\nMade in Italy"}, {"detected_text": ["60x120 cm, R10", "Made in Italy"]}),
        ({"properties": {"Slip Rating": "R10", "wear": {"PEI": 4}}},
         {"physical_properties": {"slip_rating": "R10", "wear_pei": "4"}}),
        ({"properties": [{"name": "Weight", "value": 2.5, "unit": "kg"}]},
         {"physical_properties": {"weight": "2.5 kg"}}),
        ({"characteristics": ["frost proof", "PEI: 4"]},
         {"physical_properties": {"frost_proof": "yes", "pei": "4"}}),
        ({"characteristics": "Slip rating: R10, thickness: 9 mm"},
         {"physical_properties": {"slip_rating": "R10", "thickness": "9 mm"}}),
        ({"slip_rating": "R11", "properties": {"weight": "N/A"}},
         {"physical_properties": {"slip_rating": "R11"}}),
        ({"confidence": "85%"}, {"confidence": 0.85}),
        ({"confidence": 92}, {"confidence": 0.92}),
        ({"confidence": "0.7"}, {"confidence": 0.7}),
        ({"confidence": "high"}, {"extra": {"confidence": "high"}}),
        ({"confidence": -3}, {"extra": {"confidence": -3}}),
        ({"primary_color_hex": "rgb(255, 0, 16)"}, {"primary_color_hex": "#FF0010"}),
        ({"primary_color_hex": "fa0"}, {"primary_color_hex": "#FFAA00"}),
        ({"primary_color_hex": "whitish"}, {"extra": {"primary_color_hex": "whitish"}}),
        ({"mood": "calm", "score": {"a": [1, None]}}, {"extra": {"mood": "calm", "score": {"a": [1]}}}),
    ],
)  # fmt: skip
def test_values_of_other_shapes_are_read(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse_analysis(answer, minimum=0).to_json() == expected


@pytest.mark.parametrize(
    "nothing",
    ["", "N/A", "n/a.", "unknown", "None", "null", " - ", "Not visible", None, [], {}, ["N/A"], [None]],
)
@pytest.mark.parametrize("field", [name for name in ALIASES if name != "confidence"])
def test_words_for_nothing_are_nothing(field: str, nothing: Any) -> None:
    assert getattr(parse_analysis({field: nothing}, minimum=0), field) in (None, [], {})


@pytest.mark.parametrize(
    ("error", "kind", "error_class"),
    [
        ("Rate limit exceeded", AnalysisBusy, ErrorClass.TRANSIENT),
        ("The model is overloaded, try again later", AnalysisBusy, ErrorClass.TRANSIENT),
        ({"message": "server busy", "code": 503}, AnalysisBusy, ErrorClass.TRANSIENT),
        ({"code": 429}, AnalysisBusy, ErrorClass.TRANSIENT),
        ("I can't analyse pictures of people", AnalysisRefused, ErrorClass.PERMANENT),
        ({"message": "unsupported image"}, AnalysisRefused, ErrorClass.PERMANENT),
        (True, AnalysisRefused, ErrorClass.PERMANENT),
    ],
)
@pytest.mark.parametrize("wrap", ["{}", "```json\n{}\n```", "Sorry: {}", "[{}]", '{{"result": {}}}'])
def test_error_envelopes_are_refused(
    error: Any, kind: type[Exception], error_class: ErrorClass, wrap: str
) -> None:
    # even where the rest looks like an analysis
    with pytest.raises(kind) as caught:
        parse_analysis(wrap.format(json.dumps({**GOOD, "error": error})))
    assert isinstance(caught.value, AnalysisError)
    assert classify(caught.value) is error_class


def test_a_status_of_failure_is_an_error_too() -> None:
    with pytest.raises(AnalysisRefused, match="no credit"):
        parse_analysis({"status": "error", "message": "no credit"})
    with pytest.raises(AnalysisBusy):
        parse_analysis({"success": False, "message": "timed out"})


@pytest.mark.parametrize("cut", range(1, len(TEXT), 7))
def test_an_answer_that_was_cut_off_is_never_half_read(cut: int) -> None:
    for answer in (TEXT[:cut], f"```json\n{TEXT[:cut]}", f"Here: {TEXT[:cut]}"):
        with pytest.raises(AnalysisUnreadable) as caught:
            parse_analysis(answer)
        assert classify(caught.value) is ErrorClass.TRANSIENT


def test_an_inner_object_of_a_cut_answer_is_not_taken_for_the_answer() -> None:
    cut = '{"material_type": "oak", "properties": {"finish": "matte", "pattern": "plain"}, "colors": ["wh'
    with pytest.raises(AnalysisUnreadable):
        parse_analysis(cut, minimum=0)


@pytest.mark.parametrize(
    "answer",
    [
        "", "   ", "I see a tile.", "null", "42", '"tile"', "[]", "[1, 2]", f"[{TEXT}, {TEXT}]", "{}}{", "{'a': 1}",
        "{" * 100_000, "[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "x" * (MAX_ANSWER + 1),
    ],
)  # fmt: skip
def test_what_is_no_object_is_unreadable_and_says_how_it_begins(answer: str) -> None:
    with pytest.raises(AnalysisUnreadable) as caught:
        parse_analysis(answer)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "part", ["```", "```a", "<think>", "</think>", "{}", '{"', "[{", "```json\n{", "\\", "a"]
)
def test_hostile_answers_take_no_time(part: str) -> None:
    with pytest.raises(AnalysisError):
        parse_analysis(part * (MAX_ANSWER // len(part)))
    with pytest.raises(AnalysisError):
        parse_analysis("```" + part * ((MAX_ANSWER - 3) // len(part)))


def test_control_characters_of_a_bad_answer_stay_out_of_the_message() -> None:
    with pytest.raises(AnalysisUnreadable, match="begins: 'abc def'"):
        parse_analysis("a\x00b\x1b\x9bc\n\n def")


def test_an_analysis_that_says_too_little_is_rejected_by_name() -> None:
    with pytest.raises(AnalysisRejected, match=r"2 descriptive fields.*material_type, colors") as caught:
        parse_analysis(
            {"material_type": "oak", "colors": "brown", "primary_color_hex": "#112233", "confidence": 1}
        )
    assert classify(caught.value) is ErrorClass.PERMANENT
    with pytest.raises(AnalysisRejected, match="found: none"):
        parse_analysis("{}")


def test_deep_and_wide_values_are_bounded() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"a": [deep]}
    wide = {f"key {i}": "v" * 10_000 for i in range(500)}
    analysis = parse_analysis(
        {
            **GOOD,
            "deep": deep,
            "wide": wide,
            "properties": wide,
            "detected_text": ["t" * 9999] * 3 + [str(i) for i in range(999)],
        }
    )
    assert len(json.dumps(analysis.to_json())) < 60_000
    assert len(analysis.detected_text) == 100


def test_a_strict_answer_to_our_own_json_schema_is_read() -> None:
    schema = json_schema()
    answer: dict[str, Any] = {}
    for name, kind in schema["properties"].items():
        answer[name] = [] if kind["type"] == "array" else None
    answer.update(GOOD, physical_properties=[{"name": "slip rating", "value": "R10"}])
    assert parse_analysis(json.dumps(answer)).physical_properties == {"slip_rating": "R10"}
