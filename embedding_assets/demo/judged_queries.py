"""The judged queries: what people ask of a catalogue, in several wordings, with the attributes that they ask for.

Eight families make the gate, `ASPECT_FAMILIES` compare the aspect vectors. Everything is drawn from fixed seeds: the
same catalogue gives the same queries.

    family          asks for                                      for example
    visual          colour and pattern, with or without a third   "blue herringbone"
    colour          colour, with or without finish                "polished teal surface"
    texture         pattern, with or without finish or material   "zigzag pattern"
    material        material, with or without colour or finish    "wooden floor"
    style           style, with or without material or colour     "loft style"
    specification   size, slip rating, thickness; no looks        "60x120 R10"
    joint           looks and specifications                      "matte grey porcelain R11"
    image           another piece of a product, as a picture
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from itertools import chain, count, islice
from typing import Any, Literal

from embedding_assets.demo.closeness import grade
from embedding_assets.demo.judged_catalogue import judged_items
from embedding_assets.demo.specification import ProductSpec, make_products
from embedding_assets.demo.swatches import draw_swatch
from embedding_assets.demo.wording import query_text

Split = Literal["tuning", "gate"]

GATE_FAMILIES = ("visual", "colour", "texture", "material", "style", "specification", "joint", "image")
ASPECTS = {"color": "colour", "texture": "pattern", "style": "style", "material": "material"}
"""Search arm -> the attribute that it is about."""
ASPECT_FAMILIES = tuple(f"{aspect}-by-{kind}" for aspect in ASPECTS for kind in ("text", "image"))

REQUIRED_LEAD = {**dict.fromkeys(GATE_FAMILIES, -0.01), "joint": 0.05}
"""By family, how far nDCG@10 of fused search has to lead that of the best single arm on the gate's half: never
behind by more than the noise of two dozen queries, and clearly ahead where looks and specifications are asked for
together."""

QUERIES_PER_FAMILY = 48
MIN_ANSWERS = 5
"""Products of the top grade that every query has at least."""

_SEED = 13
_PIECE = 70_000
"""Pieces that query pictures show are numbered from here; no catalogue draws them."""
_PICTURE_PX = 256
_MAX_DRAWS = 5_000
_HELD_OUT_LOOKS = 560
"""All looks that training never showed."""

_ASKED: dict[str, tuple[tuple[str, ...], ...]] = {
    "visual": (
        ("colour", "pattern"),
        ("colour", "pattern", "finish"),
        ("colour", "pattern", "material"),
    ),
    "colour": (("colour",), ("colour", "finish")),
    "texture": (("pattern",), ("pattern", "finish"), ("pattern", "material")),
    "material": (("material",), ("material", "colour"), ("material", "finish")),
    "style": (("style",), ("style", "material"), ("style", "colour")),
    "specification": (
        ("size", "slip_rating"),
        ("slip_rating", "thickness_mm"),
        ("size", "thickness_mm"),
        ("size",),
        ("size", "slip_rating", "thickness_mm"),
    ),
    "joint": (
        ("finish", "colour", "material", "slip_rating"),
        ("colour", "pattern", "size"),
        ("pattern", "material", "slip_rating"),
        ("colour", "material", "size"),
        ("finish", "colour", "slip_rating"),
        ("pattern", "size", "slip_rating"),
        ("style", "colour", "thickness_mm"),
    ),
    **{f"{aspect}-by-text": ((attribute,),) for aspect, attribute in ASPECTS.items()},
}
"""By family, which attributes its queries ask for; the queries are spread evenly over these."""

_LOOKS_OF_PICTURE = ("colour", "pattern", "material")
"""What another piece of a product has to share with it. Finish is left to the other surface of the same series."""


@dataclass(frozen=True)
class JudgedQuery:
    """One query of the judged set.

    Attributes:
        query_id: "family/words"; never changes with the catalogue's ids.
        family: one of `GATE_FAMILIES` or `ASPECT_FAMILIES`.
        split: "tuning" to choose calibration, weights and methods by; "gate" to judge what was chosen.
        text: what is typed; None for a picture.
        pictured: the product whose other piece is shown, and which piece; None for a text.
        asked: attribute name (a field of `ProductSpec`, or "style") -> value, what the grades follow from.
    """

    query_id: str
    family: str
    split: Split
    text: str | None
    pictured: tuple[ProductSpec, int] | None
    asked: Mapping[str, Any]

    def picture(self) -> bytes | None:
        """The PNG file that is uploaded; None for a text query."""
        if self.pictured is None:
            return None
        buffer = BytesIO()
        draw_swatch(self.pictured[0], _PICTURE_PX, self.pictured[1]).save(buffer, "PNG")
        return buffer.getvalue()

    def grades(self) -> dict[str, int]:
        """Stock codes of the catalogue's products that are relevant, with grades 1 to 3 (`closeness.grade`)."""
        graded = {item.spec.sku: grade(self.asked, item.spec) for item in judged_items()}
        return {sku: value for sku, value in graded.items() if value}


@cache
def judged_queries() -> tuple[JudgedQuery, ...]:
    """Return all queries, family by family; `split` says which half of its family each is in."""
    families = [
        *(_text_queries(family) for family in _ASKED),
        _piece_queries(),
        *(_likeness_queries(aspect, attribute) for aspect, attribute in ASPECTS.items()),
    ]
    order = {family: number for number, family in enumerate((*GATE_FAMILIES, *ASPECT_FAMILIES))}
    families.sort(key=lambda queries: order[queries[0].family])
    return tuple(query for queries in families for query in _halved(queries))


def _halved(queries: Sequence[JudgedQuery]) -> Iterator[JudgedQuery]:
    """Puts half of a family to each side by the hashes of the ids: neither order nor subject decides."""
    by_hash = sorted(queries, key=lambda query: hashlib.sha256(query.query_id.encode()).digest())
    tuning = {query.query_id for query in by_hash[: len(by_hash) // 2]}
    for query in queries:
        yield replace(query, split="tuning" if query.query_id in tuning else "gate")


def _text_queries(family: str) -> list[JudgedQuery]:
    """The text queries of a family: its kinds of question in turn, each over all the values that it can ask for."""
    queries: dict[str, JudgedQuery] = {}
    kinds = [_asked_in_turn(family, names) for names in _ASKED[family]]
    rng = random.Random(f"{_SEED}:{family}")
    for asked, synonyms in islice(chain.from_iterable(zip(*kinds, strict=True)), _MAX_DRAWS):
        text = query_text(asked, synonyms, rng)
        query_id = f"{family}/{text}"
        queries.setdefault(query_id, JudgedQuery(query_id, family, "gate", text, None, asked))
        if len(queries) == QUERIES_PER_FAMILY:
            return list(queries.values())
    raise AssertionError(f"{family}: {len(queries)} different texts in {_MAX_DRAWS} draws")


def _asked_in_turn(family: str, names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], bool]]:
    """All combinations of values with enough answers, shuffled, over and over: every other one to be put in other
    words than the catalogue's, and the other way round when it comes again."""
    answers = Counter(tuple(getattr(item.spec, name) for name in names) for item in judged_items())
    enough = sorted(
        values for values, products in answers.items() if products >= MIN_ANSWERS and None not in values
    )
    random.Random(f"{_SEED}:{family}:{names}").shuffle(enough)
    for turn in count():
        for number, values in enumerate(enough):
            yield dict(zip(names, values, strict=True)), (turn + number) % 2 == 1


def _piece_queries() -> list[JudgedQuery]:
    """Pictures of products of the catalogue, each another piece than the catalogue shows."""
    products = sorted((item.spec for item in judged_items()), key=lambda spec: spec.sku)
    chosen = random.Random(f"{_SEED}:image").sample(products, QUERIES_PER_FAMILY)
    return [
        JudgedQuery(
            query_id=f"image/{spec.sku}",
            family="image",
            split="gate",
            text=None,
            pictured=(spec, _PIECE + number),
            asked={name: getattr(spec, name) for name in _LOOKS_OF_PICTURE},
        )
        for number, spec in enumerate(chosen)
    ]


def _likeness_queries(aspect: str, attribute: str) -> list[JudgedQuery]:
    """ "More of this colour": pictures of looks that the catalogue does not have, judged by one attribute alone."""
    known = {(item.spec.colour, item.spec.pattern, item.spec.material) for item in judged_items()}
    others = [
        spec
        for spec in make_products(_HELD_OUT_LOOKS, _SEED, "held-out")
        if (spec.colour, spec.pattern, spec.material) not in known
    ]
    family = f"{aspect}-by-image"
    return [
        JudgedQuery(
            query_id=f"{family}/{spec.sku}",
            family=family,
            split="gate",
            text=None,
            pictured=(spec, _PIECE + QUERIES_PER_FAMILY + number),
            asked={attribute: getattr(spec, attribute)},
        )
        for number, spec in enumerate(others[:QUERIES_PER_FAMILY])
    ]
