from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from embedding_assets.analysis.color_names import COLOR_NAMES, color_name, parse_hex, to_lab
from embedding_assets.analysis.palette import grain_of, lab_of, palette_of

RED, BLUE, GREY = (185, 37, 42), (52, 106, 196), (136, 137, 139)


def names(image: Image.Image) -> list[str]:
    return [color.name for color in palette_of(image)]


@pytest.mark.parametrize("name", COLOR_NAMES)
def test_every_colour_of_the_table_has_its_own_name(name: str) -> None:
    assert color_name(COLOR_NAMES[name]) == name


@pytest.mark.parametrize("name", COLOR_NAMES)
def test_a_plain_surface_is_its_colour(name: str) -> None:
    colors = palette_of(Image.new("RGB", (300, 200), COLOR_NAMES[name]))
    assert [(c.hex, c.name, c.share) for c in colors] == [(COLOR_NAMES[name], name, 1.0)]


def test_shares_are_the_areas_and_the_largest_comes_first() -> None:
    image = Image.new("RGB", (400, 400), RED)
    ImageDraw.Draw(image).rectangle((0, 0, 399, 119), fill=BLUE)
    colors = palette_of(image)
    assert [c.name for c in colors] == ["red", "blue"]
    assert [c.share for c in colors] == pytest.approx([0.7, 0.3], abs=0.02)
    assert colors[0].hex == "#B9252A"


def test_the_white_page_round_a_product_does_not_count() -> None:
    image = Image.new("RGB", (400, 400), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((120, 120, 280, 280), fill=BLUE)
    assert names(image) == ["blue"]
    assert palette_of(image)[0].share > 0.95


def test_white_inside_a_product_counts() -> None:
    image = Image.new("RGB", (400, 400), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((50, 50, 350, 350), fill=BLUE)
    draw.rectangle((100, 100, 300, 300), fill=(255, 255, 255))
    assert sorted(names(image)) == ["blue", "white"]


def test_a_white_surface_is_white() -> None:
    assert names(Image.new("RGB", (400, 400), (255, 255, 255))) == ["white"]
    veined = Image.new("RGB", (400, 400), (250, 249, 247))
    ImageDraw.Draw(veined).line((0, 40, 400, 330), fill=(170, 170, 172), width=8)
    assert names(veined)[0] == "white"


def test_light_and_shadow_on_one_colour_stay_one_colour() -> None:
    x = np.linspace(0.85, 1.1, 300)[None, :, None]
    pixels = np.clip(np.array(BLUE) * x * np.ones((200, 1, 1)), 0, 255).astype(np.uint8)
    assert names(Image.fromarray(pixels)) == ["blue"]


def test_the_same_pixels_give_the_same_palette() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    assert palette_of(Image.fromarray(pixels)) == palette_of(Image.fromarray(pixels))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_the_smallest_pictures_have_a_palette_and_a_grain(size: tuple[int, int]) -> None:
    assert names(Image.new("RGB", size, RED)) == ["red"]
    assert grain_of(Image.new("RGB", size, RED)) == "smooth"


def test_grain_tells_noise_from_joints() -> None:
    tiles = Image.new("RGB", (256, 256), GREY)
    for x in range(0, 256, 64):
        ImageDraw.Draw(tiles).line((x, 0, x, 256), fill=(40, 40, 40), width=3)
    assert grain_of(tiles) == "smooth"
    noise = np.random.default_rng(1).normal(0, 1, (256, 256, 1))
    for spread, word in ((8, "fine-grained"), (40, "coarse-grained")):
        pixels = np.clip(np.array(GREY) + spread * noise, 0, 255).astype(np.uint8)
        assert grain_of(Image.fromarray(pixels)) == word


def test_lab_is_that_of_the_standard() -> None:
    # Values of sRGB red and grey under D65, as published by B. Lindbloom's calculator.
    assert to_lab("#FF0000") == pytest.approx((53.24, 80.09, 67.20), abs=0.05)
    assert to_lab("#FFFFFF") == pytest.approx((100, 0, 0), abs=0.05)
    pixels = np.array([[[255, 0, 0], [10, 20, 30]]], dtype=np.uint8)
    assert lab_of(pixels)[0] == pytest.approx(np.array([to_lab("#FF0000"), to_lab("#0A141E")]), abs=0.01)


@pytest.mark.parametrize(
    ("text", "code"),
    [("#abc", "#AABBCC"), ("aabbcc", "#AABBCC"), ("#aabbccdd", "#AABBCC"), ("rgb(1,2,3)", "#010203"),
     ("rgba(1, 2, 3, 0.5)", "#010203"), ("rgb(300,0,0)", None), ("white", None), ("", None), ("#12345", None)],
)  # fmt: skip
def test_hex_codes_are_read(text: str, code: str | None) -> None:
    assert parse_hex(text) == code
