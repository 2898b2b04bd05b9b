"""Which arms count how much: the profiles, and the rules that choose one for a text.

The weights stand in `profiles.json` and nowhere else; the words that the rules know, in the vocabulary of
`analysis` (`analysis/vocabulary.json`). No model is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from embedding_assets.analysis.specifications import read_specifications
from embedding_assets.analysis.vocabulary import Vocabulary, load_vocabulary
from embedding_assets.search.arms import ARMS

AUTO = "auto"
BALANCED = "balanced"


def _load_profiles() -> dict[str, dict[str, float]]:
    text = resources.files("embedding_assets.search").joinpath("profiles.json").read_text("utf-8")
    profiles: dict[str, dict[str, float]] = json.loads(text)
    for name, weights in profiles.items():
        if set(weights) != set(ARMS) or abs(sum(weights.values()) - 1) > 1e-9:
            raise ValueError(f"profiles.json: {name} has to give the seven arms weights that sum to 1")
    return profiles


PROFILES: Mapping[str, Mapping[str, float]] = _load_profiles()
"""Profile -> weight by arm; each sums to 1."""

_QUOTED = re.compile(r"[\"“„«][^\"”“»]{2,}[\"”“»]")
_SIZE = re.compile(
    r"(?<![\w.])\d{1,4}(?:[.,]\d+)?\s?(?:mm|cm|m)?\s?[x×]\s?\d{1,4}(?:[.,]\d+)?(?:\s?(?:mm|cm|m)\b)?",
    re.IGNORECASE,
)
_STATED = r"(?:(?:anti[- ]?)?slip(?:[- ](?:rating|resistance|class))?|thick(?:ness)?)"
_SPECIFICATION_WORDS = re.compile(
    rf"(?:\b(?:sku|{_STATED}|sizes?|format|pei|class)\b[\s:]*)?"
    r"(?<!\w)(?=[\w.,×/-]*\d)[\w.,×/-]+(?:\s?(?:mm|cm|m|kg)\b)?"
    rf"(?:\s*(?:x|×|by)\s*(?=\d))?(?:\s*\b{_STATED}\b)?",
    re.IGNORECASE,
)
"""Words with a digit, the units behind them and the words for what they state."""
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_NO_NAMES = frozenset(
    """
    a an and any are by find for from give i in is like look looking me my need of on or please search see show some
    something that the this to want we with without product products image images photo picture size sizes
    """.split()  # noqa: SIM905 (prose reads better than a list)
)

_RULES = (
    ("color_finish", ("color", "finish"), "a colour or finish"),
    ("texture_pattern", ("pattern", "texture"), "a pattern or texture"),
    ("material_search", ("material",), "a material"),
    ("style_aesthetic", ("style", "application"), "a style or use"),
)
"""What decides after product names and specifications, in this order."""

ASPECT_KINDS = {
    "color": ("color",),
    "texture": ("pattern", "texture"),
    "style": ("style",),
    "material": ("material",),
}
"""Aspect arm -> kinds of words that speak of it. A use ("floor") is no style."""

TOGETHER = 0.2
"""Weight that the visual arm gains for each further attribute that a text names: "blue herringbone" asks for both in
one picture, and an aspect arm sees only its own. Chosen on the tuning half of the judged set."""


@dataclass(frozen=True)
class QueryWords:
    """What a text names, by the vocabulary.

    Attributes:
        kinds: kind of word ("color", "pattern", ...) -> the values named.
        specifications: sizes, ratings and codes, as people write them.
        names: what looks like a product's or collection's name, or an article number.
    """

    kinds: Mapping[str, tuple[str, ...]]
    specifications: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def aspects(self) -> tuple[str, ...]:
        """The aspect arms that the text says something of."""
        return tuple(
            arm for arm, kinds in ASPECT_KINDS.items() if any(self.kinds.get(kind) for kind in kinds)
        )

    @property
    def attributes(self) -> int:
        """How many attributes of a look it names: the aspects, and the finish."""
        return len(self.aspects) + bool(self.kinds.get("finish"))


@lru_cache(maxsize=1)
def _vocabulary() -> Vocabulary:
    return load_vocabulary()


def read_query(text: str) -> QueryWords:
    """What the text names."""
    kinds = {name: tuple(matcher.named(text)) for name, matcher in _vocabulary().matchers.items()}
    stated = read_specifications([text])
    codes = tuple(stated.properties[name] for name in ("product_code",) if name in stated.properties)
    sizes = stated.sizes or tuple(" ".join(match[0].split()) for match in _SIZE.finditer(text))
    specifications = sizes + tuple(
        f"{name.replace('_', ' ')} {value}"
        for name, value in stated.properties.items()
        if name != "product_code"
    )
    names = tuple(match[0] for match in _QUOTED.finditer(text)) + codes + _capitalised(text)
    return QueryWords({kind: values for kind, values in kinds.items() if values}, specifications, names)


def looks_of(text: str) -> str:
    """The text without its specifications, which no picture shows: "matte grey, R11" becomes "matte grey".

    Nor does a picture show what else a text of specifications says of use and kind: "floor tiles 60x60" is "".
    """
    stated = read_specifications([text])
    if not (stated.sizes or stated.properties or _SIZE.search(text)):
        return " ".join(text.split())
    rest = " ".join(_SPECIFICATION_WORDS.sub(" ", text).split())
    rest = re.sub(r" (?=[,;:.])", "", rest).strip(" ,;:-/")
    unseen = [_vocabulary().matchers[kind].pattern for kind in ("application", "category")]
    left = rest.lower()
    for pattern in unseen:
        left = pattern.sub(" ", left)
    return rest if any(word[0] not in _NO_NAMES for word in _WORD.finditer(left)) else ""


def _capitalised(text: str) -> tuple[str, ...]:
    """Capitalised words that the vocabulary does not know, where capitals mean something.

    They do not where a text is all capitals, nor at its beginning, unless the word after it has one too
    ("Hygge Blue Herringbone").
    """
    words = [match[0] for match in _WORD.finditer(text)]
    if not any(word[1:].islower() for word in words if word[0].isupper()):
        return ()
    found = []
    for number, word in enumerate(words):
        if not (word[0].isupper() and word[1:].islower() and len(word) > 2):
            continue
        alone_at_first = number == 0 and not (len(words) == 1 or words[1][0].isupper())
        if alone_at_first or word.lower() in _NO_NAMES or _is_known(word):
            continue
        found.append(word)
    return tuple(found)


def _is_known(word: str) -> bool:
    return any(matcher.named(word) for matcher in _vocabulary().matchers.values())


def choose_profile(words: QueryWords) -> tuple[str, str]:
    """The profile of a text, and why it was chosen; the first rule that fits decides."""
    if words.names:
        return "product_name", f"names a product: {', '.join(words.names)}"
    if words.specifications:
        return "specification", f"states a specification: {', '.join(words.specifications)}"
    for profile, kinds, what in _RULES:
        named = [value for kind in kinds for value in words.kinds.get(kind, ())]
        if named:
            return profile, f"names {what}: {', '.join(named)}"
    return BALANCED, "names nothing that the rules know"
