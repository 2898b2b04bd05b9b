from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.analysis.specifications import read_specifications


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("60x120 cm", ("60x120 cm",)),
        ("60x120cm", ("60x120 cm",)),
        ("60 × 120 CM", ("60x120 cm",)),
        ("600 × 1200 mm", ("600x1200 mm (60x120 cm)",)),
        ("60 cm x 120 cm", ("60x120 cm",)),
        ("59,5 x 119,5 cm", ("59.5x119.5 cm",)),
        ("60 by 120 cm", ("60x120 cm",)),
        ("24 x 48 in", ("24x48 in",)),
        ('24"x48"', ("24x48 in",)),
        ("60x120x0.9 cm", ("60x120x0.9 cm",)),
        ("Sizes: 30x60", ("30x60",)),
        ("30x60 cm, 60x60 cm and 60x120 cm; 30x60 cm", ("30x60 cm", "60x60 cm", "60x120 cm")),
        ("an 800x600 picture", ()),
        ("0x60 cm", ()),
        ("article 12x", ()),
        ("page 60", ()),
    ],
)
def test_sizes(text: str, sizes: tuple[str, ...]) -> None:
    assert read_specifications([text]).sizes == sizes


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("Slip rating R10", {"slip_rating": "R10"}),
        ("R 11 / R-9", {"slip_rating": "R11, R9"}),
        ("R1O", {"slip_rating": "R10"}),  # as text readers see it
        ("R8 R14 R100 AR10 r.10", {}),
        ("Thickness: 9 mm", {"thickness": "9 mm"}),
        ("9,5mm thick", {"thickness": "9.5 mm"}),
        ("60x120 cm, 9 mm", {"thickness": "9 mm"}),
        ("60x120x0.9 cm", {"thickness": "0.9 cm"}),
        ("joint 3 mm", {}),
        ("600x1200 mm", {}),
        ("1200 mm long", {}),
        ("PEI IV", {"pei_rating": "4"}),
        ("PEl lV", {"pei_rating": "4"}),
        ("PEI: 3", {"pei_rating": "3"}),
        ("shade V2", {"shade_variation": "V2"}),
        ("V8 engine", {}),
        ("Frost-proof", {"frost_resistance": "frost proof"}),
        ("not frost resistant", {"frost_resistance": "not frost resistant"}),
        ("Water absorption: < 0,5 %", {"water_absorption": "< 0.5 %"}),
        ("rectified edges", {"edge": "rectified"}),
        ("MAR-01234", {"product_code": "MAR-01234"}),
        ("SKU: AB12/34", {"product_code": "AB12/34"}),
        ("according to DIN 51130, EN-14411 and ISO-10545", {}),
        ("Art. no. 4711-A", {"product_code": "4711-A"}),
    ],
)
def test_properties(text: str, properties: dict[str, str]) -> None:
    assert read_specifications([text]).properties == properties


def test_a_catalogue_entry() -> None:
    found = read_specifications(
        [
            "Aurelia White Herringbone\nPOR-00017  ·  60x120 cm  ·  9 mm\n"
            "Slip rating R10, PEI 4, V2\nfrost proof, rectified"
        ]
    )
    assert found.sizes == ("60x120 cm",)
    assert found.properties == {
        "edge": "rectified",
        "frost_resistance": "frost proof",
        "pei_rating": "4",
        "product_code": "POR-00017",
        "shade_variation": "V2",
        "slip_rating": "R10",
        "thickness": "9 mm",
    }


def test_the_first_text_that_states_it_is_believed() -> None:
    found = read_specifications(["R10", "60x60 cm R11 PEI 3", "30x30 cm PEI 5 8 mm"])
    assert found.sizes == ("60x60 cm",)
    assert found.properties == {"slip_rating": "R10", "pei_rating": "3", "thickness": "8 mm"}


@given(st.lists(st.text() | st.from_regex(r"[0-9x×.,cmRPEIV \-]{0,40}", fullmatch=True), max_size=3))
def test_any_text_is_read_without_complaint(texts: list[str]) -> None:
    found = read_specifications(texts)
    assert all(found.sizes)
    assert all(found.properties.values())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["1" * 50_000, "1x" * 30_000, "60 x " * 9_000, "R" * 50_000, "A-" * 30_000, " " * 90_000]
)
def test_hostile_text_takes_no_time(text: str) -> None:
    read_specifications([text])
