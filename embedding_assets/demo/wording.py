"""How people put what they look for into words: the judged queries' texts, drawn from a few forms and synonyms."""

import random
from collections.abc import Mapping
from typing import Any

from embedding_assets.demo.captions import SYNONYMS

_NOUNS = {"oak": ("floor", "flooring", "planks"), "wool": ("carpet", "floor covering", "flooring")}
_TILES = ("tiles", "tile", "floor tiles")
_ANY = ("surface", "floor", "floor covering")
_ADJECTIVES = frozenset({"wooden", "woollen"})
"""Words for materials that can't stand without a noun."""


def query_text(asked: Mapping[str, Any], synonyms: bool, rng: random.Random) -> str:
    """Draw one wording of a query.

    Args:
        asked: attribute name (a field of `ProductSpec`, or "style") -> value; not empty.
        synonyms: whether looks are named by other words than the catalogue's, where there are any.
        rng: decides form and words.
    """
    words = {
        name: _word(value, synonyms, rng)
        for name, value in asked.items()
        if name in ("finish", "colour", "pattern", "material", "style")
    }
    figures = _figures(asked, rng)
    if not words:
        noun = rng.choice(("", "", "floor "))
        return noun + rng.choice((" ", ", ")).join(rng.sample(figures, len(figures)))
    looks = _looks(
        words, rng.choice(_NOUNS.get(asked.get("material", ""), _TILES if "material" in asked else _ANY)), rng
    )
    if not figures:
        return looks
    return rng.choice(
        (f"{looks} {' '.join(figures)}", f"{looks}, {', '.join(figures)}", f"{' '.join(figures)} {looks}")
    )


def _word(value: str, synonyms: bool, rng: random.Random) -> str:
    plain, *others = SYNONYMS.get(value, (value,))
    return rng.choice(others) if synonyms and others else plain


def _looks(words: Mapping[str, str], noun: str, rng: random.Random) -> str:
    style = f"{words['style']} style" if "style" in words else ""
    before = [words[name] for name in ("finish", "colour", "pattern", "material") if name in words]
    form = rng.choice(("terse", "noun", "trailing", "in"))
    if form == "terse" and words.get("material") not in _ADJECTIVES:
        return " ".join([part for part in (style, *before) if part])
    if form == "trailing":
        head = [words[name] for name in ("colour", "material") if name in words]
        tail = [f"{words[name]} {name}" for name in ("pattern", "finish") if name in words]
        tail += [f"in {style}"] if style else []
        return ", ".join([" ".join([*head, noun]), *tail])
    if (
        form == "in"
        and ("colour" in words or "material" in words)
        and words.get("material") not in _ADJECTIVES
    ):
        head = [part for part in (style, words.get("pattern", ""), noun) if part]
        return f"{' '.join(head)} in {' '.join(words[n] for n in ('finish', 'colour', 'material') if n in words)}"
    return " ".join([part for part in (style, *before, noun) if part])


def _figures(asked: Mapping[str, Any], rng: random.Random) -> list[str]:
    figures = []
    if "size" in asked:
        a, b = str(asked["size"]).removesuffix(" cm").split("x")
        figures.append(rng.choice((f"{a}x{b}", f"{a}x{b} cm", f"{a} x {b} cm", f"{a} x {b}")))
    if "slip_rating" in asked:
        rating = asked["slip_rating"]
        figures.append(rng.choice((rating, rating, f"slip rating {rating}", f"anti-slip {rating}")))
    if "thickness_mm" in asked:
        number = f"{asked['thickness_mm']:g}"
        figures.append(rng.choice((f"{number} mm", f"{number} mm thick", f"thickness {number} mm")))
    return figures
