"""Words for products: fixed captions for evaluation, varied ones for training.

A training caption names only some of a product's attributes, in one of several words and orders, and comes with the
attributes that it names. With them a loss can tell which *other* pictures of a batch the caption fits too.
"""

import random
from dataclasses import dataclass

from embedding_assets.demo.specification import ATTRIBUTE_VALUES, ProductSpec

SYNONYMS: dict[str, tuple[str, ...]] = {
    "porcelain": ("porcelain", "smooth porcelain", "porcelain stoneware"),
    "marble": ("marble", "veined marble"),
    "oak": ("oak", "wood", "wooden", "oak wood"),
    "terrazzo": ("terrazzo", "speckled terrazzo"),
    "concrete": ("concrete", "cement"),
    "slate": ("slate", "slate stone"),
    "terracotta": ("terracotta", "clay", "cotto"),
    "wool": ("wool", "fabric", "textile", "woollen"),
    "grey": ("grey", "gray"),
    "beige": ("beige", "cream", "sand"),
    "turquoise": ("turquoise", "teal"),
    "navy": ("navy", "dark blue", "navy blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "plain": ("plain", "solid", "unpatterned"),
    "stripes": ("stripes", "striped"),
    "checker": ("checker", "checkered", "checkerboard", "chequered"),
    "herringbone": ("herringbone", "fishbone"),
    "chevron": ("chevron", "zigzag"),
    "hexagon": ("hexagon", "hexagonal", "honeycomb"),
    "basketweave": ("basketweave", "basket weave"),
    "brick bond": ("brick bond", "brick", "subway tile", "running bond"),
    "dots": ("dots", "dotted", "polka dot"),
    "diamond": ("diamond", "diamonds", "rhombus"),
    "scallop": ("scallop", "fish scale", "scalloped"),
    "grid": ("grid", "square grid", "mosaic grid"),
    "matte": ("matte", "matt"),
    "glossy": ("glossy", "polished", "shiny"),
    "modern": ("modern", "contemporary"),
    "rustic": ("rustic", "country"),
    "classic": ("classic", "traditional"),
    "industrial": ("industrial", "loft"),
    "scandinavian": ("scandinavian", "nordic"),
    "retro": ("retro", "vintage"),
}
"""Words that mean the same attribute value, the plain one first. A value without an entry has one word."""

_NAMES = tuple(ATTRIBUTE_VALUES)
_NOUNS = ("tile", "tiles", "surface", "swatch", "floor", "covering", "material", "")
_OPENINGS = ("", "", "", "a ", "an image of ", "a photo of ", "a swatch of ", "close-up of ")
_KEEP = {"material": 0.7, "colour": 0.8, "pattern": 0.8, "finish": 0.6, "style": 0.2}
_ALONE = 0.2
_COMPLETE = 0.25


@dataclass(frozen=True)
class TrainingCaption:
    """A caption and the attributes that it names, as attribute name -> value ("colour" -> "blue")."""

    text: str
    mentioned: dict[str, str]


def captions(spec: ProductSpec) -> tuple[str, ...]:
    """Return a product's fixed captions, the complete one first.

    The first names material, colour, pattern and finish, and so differs between any two looks of the grid. The
    others name fewer attributes, as a person's query would.
    """
    return (
        f"{spec.colour} {spec.pattern} {spec.material} tile, {spec.finish} finish",
        f"{spec.colour} {spec.pattern}",
        f"{spec.finish} {spec.colour} {spec.material}",
        f"{spec.pattern} {spec.material}",
        f"{spec.style} style {spec.colour} {spec.material}",
    )


def prompt(attribute: str, value: str) -> str:
    """Return the text that stands for one attribute value when a picture is classified by prompts."""
    return {
        "material": f"{value} tile",
        "colour": f"{value} tile",
        "pattern": f"{value} pattern",
        "finish": f"{value} finish",
        "style": f"{value} style",
    }[attribute]


def training_caption(spec: ProductSpec, rng: random.Random) -> TrainingCaption:
    """Draw one varied caption: parts dropped at random, synonyms, several orders.

    One caption in five names a single attribute, one in four names all four visible ones.
    """
    fate = rng.random()
    if fate < _ALONE:
        named = {rng.choice(_NAMES)}
    elif fate < _ALONE + _COMPLETE:
        named = {"material", "colour", "pattern", "finish"}
    else:
        named = {name for name in _NAMES if rng.random() < _KEEP[name]}
        named = named or {rng.choice(_NAMES)}
    mentioned = {name: value for name, value in spec.attributes.items() if name in named}
    words = {name: rng.choice(SYNONYMS.get(value, (value,))) for name, value in mentioned.items()}
    return TrainingCaption(_phrase(words, rng), mentioned)


def _phrase(words: dict[str, str], rng: random.Random) -> str:
    before: list[str] = []
    after: list[str] = []
    for name in rng.sample(sorted(words), len(words)):
        word = words[name]
        trails = rng.random() < 0.4
        if name == "finish":
            _place(word, f"{word} finish", trails, before, after)
        elif name == "style":
            _place(f"{word} style" if rng.random() < 0.6 else word, f"in {word} style", trails, before, after)
        elif name == "pattern":
            _place(word, f"{word} pattern", trails, before, after)
        else:
            before.append(word)
    noun = rng.choice(_NOUNS)
    head = " ".join([*before, noun]).strip()
    opening = rng.choice(_OPENINGS) if before and noun else ""
    joint = rng.choice((", ", " "))
    return opening + joint.join([part for part in (head, *after) if part])


def _place(adjective: str, phrase: str, trails: bool, before: list[str], after: list[str]) -> None:
    if trails:
        after.append(phrase)
    else:
        before.append(adjective)
