"""Weights and rules: which profile a text gets, and what it names."""

from __future__ import annotations

import pytest

from embedding_assets.search.arms import ARMS, COLLECTION_OF_ARM
from embedding_assets.search.profiles import PROFILES, choose_profile, looks_of, read_query
from embedding_assets.store.models import FLAGS


@pytest.mark.parametrize("name", PROFILES)
def test_weights_of_a_profile_sum_to_one_over_the_seven_arms(name: str) -> None:
    assert set(PROFILES[name]) == set(ARMS)
    assert sum(PROFILES[name].values()) == pytest.approx(1, abs=1e-12)
    assert all(weight > 0 for weight in PROFILES[name].values())


def test_every_arm_searches_a_collection_of_its_own() -> None:
    assert set(COLLECTION_OF_ARM) == set(ARMS)
    assert set(COLLECTION_OF_ARM.values()) == set(FLAGS)


@pytest.mark.parametrize(
    ("text", "profile", "because"),
    [
        ("Hygge Blue Herringbone", "product_name", "Hygge"),
        ('"Carrara" in white', "product_name", "Carrara"),
        ("POR-00123", "product_name", "POR-00123"),
        ("60x120 R10", "specification", "60x120"),
        ("matte grey porcelain R11", "specification", "R11"),
        ("porcelain tile 60 x 120 cm", "specification", "60x120"),
        ("something 8.5 mm thick", "specification", "8.5 mm"),
        ("blue herringbone", "color_finish", "blue"),
        ("polished stone", "color_finish", "polished"),
        ("zigzag", "texture_pattern", "chevron"),
        ("rough surface", "texture_pattern", "rough"),
        ("oak", "material_search", "oak"),
        ("scandinavian living room", "style_aesthetic", "scandinavian"),
        ("for the bathroom", "style_aesthetic", "bathroom"),
        ("cosy autumn feeling", "balanced", "nothing"),
        ("Show me blue tiles", "color_finish", "blue"),
        ("BLUE TILES", "color_finish", "blue"),
        ("Blue Herringbone", "color_finish", "blue"),
        ("marble-look tiles", "balanced", "nothing"),
    ],
)
def test_the_first_rule_that_fits_chooses_and_says_why(text: str, profile: str, because: str) -> None:
    chosen, reason = choose_profile(read_query(text))
    assert chosen == profile, reason
    assert because in reason


@pytest.mark.parametrize(
    ("text", "aspects"),
    [
        ("blue herringbone", ("color", "texture")),
        ("matte oak", ("material",)),
        ("rustic floor", ("style",)),
        ("floor", ()),
        ("60x120 R10", ()),
        ("gray knitted wool in nordic style", ("color", "texture", "style", "material")),
    ],
)
def test_aspects_are_those_that_the_words_speak_of(text: str, aspects: tuple[str, ...]) -> None:
    assert read_query(text).aspects == aspects


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("matte grey porcelain R11", "matte grey porcelain"),
        ("porcelain tile 60 x 120 cm", "porcelain tile"),
        ("60×120cm R10", ""),
        ("R10 slip rating", ""),
        ("wool 8.5 mm thick, blue", "wool, blue"),
        ("SKU POR-00123", ""),
        ("anti-slip R11 30 x 30 cm", ""),
        ("floor tiles 60x60, R10", ""),
        ("floor tiles", "floor tiles"),
        ("cosy floor R9", "cosy floor"),
        ("blue herringbone", "blue herringbone"),
    ],
)
def test_what_no_picture_shows_is_taken_out_for_the_looks(text: str, looks: str) -> None:
    assert looks_of(text) == looks
