"""The judged set: a balanced catalogue, queries whose answers follow from specifications, halves that stay apart."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from embedding_assets.demo.captions import SYNONYMS
from embedding_assets.demo.closeness import CLOSE_VALUES, TOP_GRADE, closeness, grade
from embedding_assets.demo.judged_catalogue import PRODUCTS_PER_LOOK, judged_items
from embedding_assets.demo.judged_queries import (
    ASPECT_FAMILIES,
    ASPECTS,
    GATE_FAMILIES,
    MIN_ANSWERS,
    REQUIRED_LEAD,
    JudgedQuery,
    judged_queries,
)
from embedding_assets.demo.specification import ATTRIBUTE_VALUES, ProductSpec, is_held_out, product_of
from embedding_assets.demo.swatches import draw_swatch

LOOKS = tuple(ATTRIBUTE_VALUES)


def look_of(spec: ProductSpec) -> tuple[str, ...]:
    return spec.material, spec.colour, spec.pattern, spec.finish


def queries_of(family: str) -> list[JudgedQuery]:
    return [query for query in judged_queries() if query.family == family]


# -- the catalogue ---------------------------------------------------------------------------------------------


def test_the_catalogue_holds_over_600_products_and_every_value_of_every_attribute_often() -> None:
    specs = [item.spec for item in judged_items()]
    assert len(specs) >= 600
    assert len({spec.sku for spec in specs}) == len(specs)
    for attribute, values in ATTRIBUTE_VALUES.items():
        counts = Counter(spec.attributes[attribute] for spec in specs)
        assert set(counts) == set(values)
        assert min(counts.values()) >= 40, (attribute, counts)
    assert min(Counter(spec.slip_rating for spec in specs).values()) >= 60
    assert min(Counter(spec.thickness_mm for spec in specs).values()) >= 60
    assert len({spec.size for spec in specs}) >= 10


def test_most_combinations_were_never_shown_in_training() -> None:
    combinations = {(spec.material, spec.colour, spec.pattern) for spec in (i.spec for i in judged_items())}
    held_out = [combination for combination in combinations if is_held_out(*combination)]
    assert len(held_out) >= 0.8 * len(combinations)


def test_products_of_one_look_differ_in_what_a_picture_can_not_tell_and_stand_in_different_documents() -> (
    None
):
    by_look: dict[tuple[str, ...], list[Any]] = {}
    for item in judged_items():
        by_look.setdefault(look_of(item.spec), []).append(item)
    for items in by_look.values():
        assert len(items) == PRODUCTS_PER_LOOK
        assert len({(i.spec.size, i.spec.slip_rating, i.spec.thickness_mm) for i in items}) == len(items)
        assert len({i.document for i in items}) == len(items)
        assert len({i.piece for i in items}) == len(items), "each product shows another piece"


def test_every_place_of_every_page_has_one_product() -> None:
    places = [(item.document, item.page, item.position) for item in judged_items()]
    assert len(set(places)) == len(places)
    assert min(position for _, _, position in places) == min(page for _, page, _ in places) == 1


# -- grades ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "asked", "found", "expected"),
    [
        ("colour", "blue", "blue", 1.0),
        ("colour", "blue", "navy", 0.5),
        ("colour", "navy", "blue", 0.5),
        ("colour", "blue", "red", 0.0),
        ("pattern", "herringbone", "chevron", 0.5),
        ("finish", "matte", "glossy", 0.0),
        ("slip_rating", "R10", "R11", 0.5),
        ("slip_rating", "R11", "R10", 0.0),
        ("slip_rating", "R9", "R10", 0.5),
        ("slip_rating", "R10", None, 0.0),
        ("thickness_mm", 9.0, 8.5, 0.5),
        ("thickness_mm", 9.0, 12.0, 0.0),
        ("size", "60x60 cm", "80x80 cm", 0.5),
        ("size", "60x60 cm", "60x120 cm", 0.0),
    ],
)
def test_closeness(attribute: str, asked: Any, found: Any, expected: float) -> None:
    assert closeness(attribute, asked, found) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"colour": "blue", "pattern": "herringbone"}, 3),
        ({"colour": "navy", "pattern": "herringbone"}, 2),
        ({"colour": "navy", "pattern": "chevron"}, 1),
        ({"colour": "red", "pattern": "herringbone"}, 1),
        ({"colour": "red", "pattern": "chevron"}, 0),
        ({"colour": "red", "pattern": "dots"}, 0),
        ({"colour": "navy"}, 2),
        ({"colour": "red"}, 0),
        ({"colour": "blue", "pattern": "herringbone", "material": "oak"}, 1),
        ({"colour": "red", "pattern": "dots", "material": "slate"}, 0),
        ({"style": "classic", "finish": "matte"}, 3),
    ],
)
def test_a_grade_falls_by_one_for_a_close_value_and_by_two_for_a_wrong_one(
    asked: dict[str, str], expected: int
) -> None:
    assert grade(asked, product_of("slate", "blue", "herringbone", "matte")) == expected


def test_every_value_that_is_called_close_is_one_of_the_grid() -> None:
    sizes = {item.spec.size for item in judged_items()}
    for attribute, pairs in CLOSE_VALUES.items():
        known = set(ATTRIBUTE_VALUES.get(attribute, sizes))
        assert all(len(pair) == 2 and pair <= known for pair in pairs), attribute


# -- queries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*GATE_FAMILIES, *ASPECT_FAMILIES])
def test_every_family_has_30_queries_or_more_with_answers_in_halves_of_one_size(family: str) -> None:
    queries = queries_of(family)
    assert len(queries) >= 30
    assert len({query.text or query.pictured for query in queries}) == len(queries)
    tuning = [query for query in queries if query.split == "tuning"]
    assert 2 * len(tuning) == len(queries)
    for query in queries:
        best = [sku for sku, value in query.grades().items() if value == TOP_GRADE]
        assert len(best) >= MIN_ANSWERS, query.query_id


def test_ids_are_unique_and_the_queries_are_the_same_every_time() -> None:
    queries = judged_queries()
    assert len({query.query_id for query in queries}) == len(queries)
    judged_queries.cache_clear()
    assert judged_queries() == queries


def test_the_gate_asks_for_a_lead_in_every_family_and_only_there() -> None:
    assert set(REQUIRED_LEAD) == set(GATE_FAMILIES)


def test_texts_name_every_value_that_they_ask_for_and_half_of_them_in_other_words() -> None:
    plain = other = 0
    for query in judged_queries():
        if query.text is None:
            continue
        for name, value in query.asked.items():
            if name not in LOOKS:
                continue
            words = SYNONYMS.get(value, (value,))
            assert any(word in query.text for word in words), query
            if len(words) > 1:
                in_other_words = any(word in query.text for word in words[1:] if word not in value)
                plain, other = plain + (not in_other_words), other + in_other_words
    assert 0.35 < other / (plain + other) < 0.65


def test_texts_state_the_specifications_that_they_ask_for_and_no_stock_code() -> None:
    for query in queries_of("specification") + queries_of("joint"):
        assert query.text is not None
        squeezed = query.text.replace(" ", "")
        if "size" in query.asked:
            assert query.asked["size"].removesuffix(" cm") in squeezed
        if "slip_rating" in query.asked:
            assert re.search(rf"\b{query.asked['slip_rating']}\b", query.text)
        if "thickness_mm" in query.asked:
            assert f"{query.asked['thickness_mm']:g}mm" in squeezed
        assert not re.search(r"[A-Z]{3}-\d", query.text)


def test_specification_queries_name_no_looks_and_joint_ones_name_both() -> None:
    assert all(not set(query.asked) & set(LOOKS) for query in queries_of("specification"))
    for query in queries_of("joint"):
        assert set(query.asked) & set(LOOKS)
        assert set(query.asked) - set(LOOKS)


def test_query_pictures_are_pieces_that_the_catalogue_does_not_show() -> None:
    shown = {(look_of(item.spec), item.piece) for item in judged_items()}
    for query in judged_queries():
        if query.pictured is not None:
            spec, piece = query.pictured
            assert (look_of(spec), piece) not in shown


def test_more_of_this_is_asked_with_looks_that_the_catalogue_does_not_have_and_judged_by_one_attribute() -> (
    None
):
    shown = {(i.spec.material, i.spec.colour, i.spec.pattern) for i in judged_items()}
    for aspect, attribute in ASPECTS.items():
        for query in queries_of(f"{aspect}-by-image"):
            assert query.pictured is not None
            spec = query.pictured[0]
            assert (spec.material, spec.colour, spec.pattern) not in shown
            assert dict(query.asked) == {attribute: getattr(spec, attribute)}


def test_an_image_query_is_answered_by_the_products_of_its_series_and_pattern() -> None:
    query = queries_of("image")[0]
    assert query.pictured is not None
    spec = query.pictured[0]
    assert query.grades()[spec.sku] == TOP_GRADE
    picture = query.picture()
    assert picture is not None
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture == query.picture()
    assert draw_swatch(spec, 32, query.pictured[1]) != draw_swatch(spec, 32, 0)
