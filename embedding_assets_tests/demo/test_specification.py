"""The product grid: distinct looks, seeded draws, and the line between training and held-out combinations."""

from itertools import product as cartesian_product

import pytest

from embedding_assets.demo.captions import captions
from embedding_assets.demo.specification import (
    ATTRIBUTE_VALUES,
    COLOURS,
    GRID_SIZE,
    HELD_OUT_FRACTION,
    MATERIALS,
    PATTERNS,
    is_held_out,
    make_products,
)


def test_the_grid_holds_thousands_of_products_that_all_differ() -> None:
    products = make_products(GRID_SIZE)
    assert GRID_SIZE >= 2000
    assert len({product.sku for product in products}) == GRID_SIZE
    assert len({captions(product)[0] for product in products}) == GRID_SIZE


def test_the_same_seed_gives_the_same_products_and_a_longer_draw_begins_with_the_shorter() -> None:
    assert make_products(30, seed=5) == make_products(60, seed=5)[:30]
    assert make_products(30, seed=5) != make_products(30, seed=6)


def test_a_look_keeps_its_stock_code_under_every_seed() -> None:
    by_look = {tuple(p.attributes.values()): p.sku for p in make_products(GRID_SIZE, seed=1)}
    assert all(by_look[tuple(p.attributes.values())] == p.sku for p in make_products(200, seed=2))


@pytest.mark.parametrize(("count", "split"), [(-1, "all"), (GRID_SIZE + 1, "all"), (GRID_SIZE, "held-out")])
def test_a_count_beyond_the_split_is_refused_with_the_limit(count: int, split: str) -> None:
    with pytest.raises(ValueError, match=r"count must be 0 to \d+"):
        make_products(count, split=split)  # type: ignore[arg-type]


def test_held_out_combinations_are_about_their_stated_share_and_touch_every_value() -> None:
    held_out = [look for look in cartesian_product(MATERIALS, COLOURS, PATTERNS) if is_held_out(*look)]
    total = len(MATERIALS) * len(COLOURS) * len(PATTERNS)
    assert len(held_out) / total == pytest.approx(HELD_OUT_FRACTION, abs=0.03)
    for position, values in enumerate((MATERIALS, COLOURS, PATTERNS)):
        assert {look[position] for look in held_out} == set(values)


def test_the_training_split_never_shows_a_held_out_combination() -> None:
    held_out_looks = sum(is_held_out(p.material, p.colour, p.pattern) for p in make_products(GRID_SIZE))
    train = make_products(GRID_SIZE - held_out_looks, split="train")
    assert not any(is_held_out(p.material, p.colour, p.pattern) for p in train)
    evaluation = make_products(200, split="held-out")
    assert {(p.material, p.colour, p.pattern) for p in evaluation}.isdisjoint(
        (p.material, p.colour, p.pattern) for p in train
    )


def test_every_attribute_value_is_seen_in_training_including_each_style() -> None:
    train = make_products(2000, split="train")
    for name, values in ATTRIBUTE_VALUES.items():
        assert {product.attributes[name] for product in train} == set(values)


def test_only_wool_goes_without_a_slip_rating_and_only_rough_tiles_go_outdoors() -> None:
    for product in make_products(500):
        assert (product.slip_rating is None) == (product.material == "wool")
        assert ("outdoor" in product.applications) == (product.slip_rating in ("R11", "R12"))
