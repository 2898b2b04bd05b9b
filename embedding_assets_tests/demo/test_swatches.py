"""Swatches: the same input draws the same pixels, and each attribute changes what is seen."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from embedding_assets.demo.specification import (
    COLOURS,
    FINISHES,
    MATERIALS,
    PATTERNS,
    ProductSpec,
    make_products,
)
from embedding_assets.demo.swatches import draw_swatch

BASE = replace(make_products(1)[0], material="porcelain", colour="blue", pattern="plain", finish="matte")


def pixels(spec: ProductSpec, seed: int = 0, size: int = 64) -> npt.NDArray[np.float64]:
    return np.asarray(draw_swatch(spec, size, seed), dtype=np.float64)


def test_the_same_product_size_and_seed_give_the_same_pixels() -> None:
    assert draw_swatch(BASE, 96, 3).tobytes() == draw_swatch(BASE, 96, 3).tobytes()


def test_another_seed_gives_another_piece_of_the_same_product() -> None:
    assert np.abs(pixels(BASE, 1) - pixels(BASE, 2)).mean() > 0.5


def test_what_only_the_page_tells_does_not_show() -> None:
    relabelled = replace(BASE, sku="POR-99999", size="1x1 cm", slip_rating="R12", thickness_mm=30.0)
    assert draw_swatch(relabelled, 64).tobytes() == draw_swatch(BASE, 64).tobytes()


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_material_takes_every_pattern_at_the_size_asked_for(material: str, pattern: str) -> None:
    image = draw_swatch(replace(BASE, material=material, pattern=pattern), 48)
    assert (image.mode, image.size) == ("RGB", (48, 48))
    assert pattern == "plain" or np.asarray(image).std(axis=(0, 1)).max() > 4


def test_mean_colours_of_plain_swatches_lie_closest_to_their_own_colour() -> None:
    centres = {
        colour: np.mean(
            [pixels(replace(BASE, colour=colour), seed).mean(axis=(0, 1)) for seed in range(4)], axis=0
        )
        for colour in COLOURS
    }
    for colour in COLOURS:
        seen = pixels(replace(BASE, colour=colour), 77).mean(axis=(0, 1))
        assert min(centres, key=lambda other: float(np.linalg.norm(centres[other] - seen))) == colour


def test_a_glossy_finish_mirrors_the_light_and_a_matte_one_does_not() -> None:
    matte, glossy = (pixels(replace(BASE, finish=finish)).mean(axis=2) for finish in FINISHES)
    assert glossy.max() - np.median(glossy) > 2 * (matte.max() - np.median(matte))


def test_a_swatch_looks_alike_at_any_size() -> None:
    spec = replace(BASE, pattern="herringbone", material="oak")
    large = np.asarray(draw_swatch(spec, 256).resize((64, 64)), dtype=np.float64)
    assert np.corrcoef(large.ravel(), pixels(spec).ravel())[0, 1] > 0.9


def test_a_size_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="16 pixels"):
        draw_swatch(BASE, 15)
