"""Which of a page's text belongs to which of its images.

Catalogue pages repeat one pattern: a picture, and close to it its name, size, ratings. So lines are gathered into
blocks, and each block goes to the one image that it is nearest to, images competing for it: in a grid, an image
gets the text of its own product and not that of the product below. Below an image is better than above it, and
to its right better than to its left, unless the page's own habit is the opposite.

All coordinates are display space (`page_geometry`), in points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from embedding_assets.ingest.page_geometry import Box
from embedding_assets.ingest.page_lines import Line

MAX_NEARBY_CHARS = 500
MAX_CAPTION_CHARS = 300
MAX_DISTANCE = 144.0
"""Text further away than this (2 inches) is not near."""
CAPTION_DISTANCE = 40.0
"""A caption is not further away than this (points)."""
MAX_RIVALS = 300
"""A page with more images than this is a mosaic: no text belongs to one of its pieces."""

_BACKGROUND_SHARE = 0.6
"""An image that covers more of the page than this, with others upon it, is a background: it gets what is left."""
_BACKGROUND_PENALTY = 1000.0
_SMALLEST_RIVAL = 12.0
"""An image drawn smaller than this on a side (points) is an icon or a rule, and has no text of its own."""
_SHARED_SLACK = 1.15
_LONGEST_CAPTION_BLOCK = 8
"""Lines; a product's name, sizes and ratings take fewer, paragraphs take more."""

_NUMBERED = re.compile(
    r"(?:fig(?:ure|\.)?|abb(?:ildung|\.)?|photo|plate|image|picture|bild|foto|illustration|scheme)\s*[\d.:-]",
    re.IGNORECASE,
)
_PAGE_NUMBER = re.compile(r"(?:page|seite|p\.?)?\s*[-–]?\s*\d{1,4}\s*[-–]?", re.IGNORECASE)


@dataclass(frozen=True)
class NearText:
    """The text of one image: the line that reads as its caption, and the lines around it."""

    caption: str | None = None
    nearby: str | None = None


@dataclass(frozen=True)
class _Block:
    lines: tuple[Line, ...]
    box: Box


@dataclass(frozen=True)
class _Weights:
    """What a point of distance costs in each direction; `side` offsets keep ties with above and below apart."""

    below: float = 1.0
    above: float = 1.6
    right: float = 1.3
    left: float = 1.8


def texts_near(
    images: Sequence[Box], rivals: Sequence[bool], lines: Sequence[Line], page: Box
) -> list[NearText]:
    """The text that belongs to each image of a page.

    Args:
        images: where the images stand.
        rivals: for each image, whether it can have text of its own; icons and the like can't.
        lines: the page's text.
        page: the visible page.

    Returns:
        One for each image, in the order of `images`.
    """
    competing = [
        i
        for i, box in enumerate(images)
        if rivals[i] and min(box.width, box.height) >= _SMALLEST_RIVAL and box.shared_width(page) > 0
    ]
    results = [NearText() for _ in images]
    if not competing or not lines or len(competing) > MAX_RIVALS:
        return results
    boxes = [images[i] for i in competing]
    blocks = _blocks(lines, boxes)
    weights = _habit(boxes, blocks)
    backgrounds = {
        place
        for place, box in enumerate(boxes)
        if len(boxes) > 1 and box.area > _BACKGROUND_SHARE * page.area
    }
    owned: list[list[tuple[float, _Block]]] = [[] for _ in boxes]
    for block in blocks:
        for place, cost in _owners(block, boxes, backgrounds, weights):
            owned[place].append((cost, block))
    for place, i in enumerate(competing):
        results[i] = NearText(_caption(boxes[place], owned[place]), _nearby(boxes[place], owned[place]))
    return results


def whole_text(lines: Sequence[Line]) -> str | None:
    """The beginning of a page's text, for a page that is one image."""
    return _joined([line.text for line in lines], MAX_NEARBY_CHARS)


def _blocks(lines: Sequence[Line], images: Sequence[Box]) -> list[_Block]:
    """Lines that stand close under each other in one column."""
    open_blocks: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (-line.box.top, line.box.left)):
        for block in reversed(open_blocks):
            if _continues(block[-1].box, line.box):
                block.append(line)
                break
        else:
            open_blocks.append([line])
    blocks: list[_Block] = []
    for found in open_blocks:
        whole = _block(found)
        beside = [box for box in images if len(found) > 1 and _relation(box, whole.box) in ("left", "right")]
        # A column of text along a column of images is one block by its looks, but belongs to them line by line.
        blocks += [_block([line]) for line in found] if len(beside) > 1 and _stacked(beside) else [whole]
    return blocks


def _block(lines: Sequence[Line]) -> _Block:
    box = lines[0].box
    for line in lines[1:]:
        box = box.union(line.box)
    return _Block(tuple(lines), box)


def _stacked(boxes: Sequence[Box]) -> bool:
    first = boxes[0]
    return any(box.shared_height(first) < 0.3 * min(box.height, first.height) for box in boxes[1:])


def _continues(above: Box, below: Box) -> bool:
    height = max(above.height, below.height, 1.0)
    gap = above.bottom - below.top
    return (
        -0.5 * height <= gap <= 0.9 * height
        and above.shared_width(below) >= 0.5 * min(above.width, below.width)
        and max(above.height, below.height) <= 1.7 * max(min(above.height, below.height), 1.0)
    )


def _relation(image: Box, text: Box) -> str | None:
    """Where the text stands, seen from the image; None where it is off the corner."""
    in_column = image.shared_width(text) >= 0.3 * min(image.width, text.width)
    in_row = image.shared_height(text) >= 0.3 * min(image.height, text.height)
    if in_column and in_row:
        return "inside"
    if in_column:
        return "below" if text.bottom < image.bottom else "above"
    if in_row:
        return "right" if text.right > image.right else "left"
    return None


def _cost(image: Box, text: Box, weights: _Weights) -> float | None:
    """How far the text is from the image, weighted by direction; None where it is not near at all."""
    if -image.shared_height(text) > MAX_DISTANCE or -image.shared_width(text) > MAX_DISTANCE:
        return None
    relation = _relation(image, text)
    if relation is None:
        return None
    if relation == "inside":
        return 0.0
    shared = image.shared_height(text) if relation in ("below", "above") else image.shared_width(text)
    distance = max(0.0, -shared)
    return distance * float(getattr(weights, relation))


def _habit(images: Sequence[Box], blocks: Sequence[_Block]) -> _Weights:
    """Whether this page puts text above its images rather than below them."""
    nearest: dict[str, list[float]] = {"below": [], "above": []}
    for image in images:
        gaps = {"below": MAX_DISTANCE, "above": MAX_DISTANCE}
        for block in blocks:
            gap = max(0.0, -image.shared_height(block.box))
            relation = _relation(image, block.box) if gap < MAX_DISTANCE else None
            if relation in ("below", "above"):
                gaps[relation] = min(gaps[relation], gap)
        for relation, gap in gaps.items():
            if gap < MAX_DISTANCE:
                nearest[relation].append(gap)
    below, above = nearest["below"], nearest["above"]
    if above and (not below or (len(above) >= len(below) and median(above) < 0.6 * median(below))):
        return _Weights(below=1.6, above=1.0)
    return _Weights()


def _owners(
    block: _Block, images: Sequence[Box], backgrounds: set[int], weights: _Weights
) -> list[tuple[int, float]]:
    """The image that the block belongs to; or several, where it is a heading that spans them."""
    costs: list[tuple[float, float, int]] = []
    for place, image in enumerate(images):
        cost = _cost(image, block.box, weights)
        if cost is not None:
            cost += _BACKGROUND_PENALTY if place in backgrounds else 0.0
            costs.append((cost, image.area, place))
    if not costs:
        return []
    best, _, owner = min(costs)
    spanned = [
        (place, cost)
        for cost, _, place in costs
        if place != owner
        and cost <= best * _SHARED_SLACK + 2
        and block.box.shared_width(images[place]) >= 0.5 * images[place].width
        and block.box.shared_width(images[owner]) >= 0.5 * images[owner].width
        and images[place].shared_width(images[owner]) <= 0
    ]
    return [(owner, best), *spanned]


def _caption(image: Box, owned: Sequence[tuple[float, _Block]]) -> str | None:
    """The line that reads as the image's caption: a numbered one ("Figure 3"), else below, beside, above."""
    near = []
    for cost, block in owned:
        relation = _relation(image, block.box)
        gap = (
            -image.shared_height(block.box)
            if relation in ("below", "above")
            else -image.shared_width(block.box)
        )
        if relation in ("below", "right", "left", "above") and gap <= CAPTION_DISTANCE:
            near.append((("below", "right", "left", "above").index(relation), cost, relation, block))
    near.sort(key=lambda item: item[:2])
    for _, _, _, block in near:
        for start, line in enumerate(block.lines):
            if _NUMBERED.match(line.text):
                return _joined([line.text for line in block.lines[start:]], MAX_CAPTION_CHARS, " ")
    for _, _, relation, block in near:
        # Of text above an image, the last line is the one next to it.
        if len(block.lines) > _LONGEST_CAPTION_BLOCK:
            continue  # running text
        ordered = block.lines[::-1] if relation == "above" else block.lines
        for line in ordered:
            if _reads_as_caption(line.text):
                return line.text
    return None


def _reads_as_caption(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return letters >= 3 and len(text) <= 120 and not text[0].islower() and not _PAGE_NUMBER.fullmatch(text)


def _nearby(image: Box, owned: Sequence[tuple[float, _Block]]) -> str | None:
    ranked: list[tuple[float, float, int, Line]] = []
    for cost, block in owned:
        for line in block.lines:
            away = max(0.0, -image.shared_height(line.box)) + max(0.0, -image.shared_width(line.box))
            ranked.append((cost, away, len(ranked), line))
    ranked.sort(key=lambda item: item[:3])
    chosen: list[Line] = []
    room = MAX_NEARBY_CHARS
    for _, _, _, line in ranked:
        if len(line.text) + 1 > room:
            if not chosen:
                chosen.append(line)
            break
        chosen.append(line)
        room -= len(line.text) + 1
    chosen.sort(key=lambda line: (-round(line.box.top / 4), line.box.left))
    return _joined([line.text for line in chosen], MAX_NEARBY_CHARS)


def _joined(texts: Sequence[str], limit: int, separator: str = "\n") -> str | None:
    text = separator.join(texts)
    if len(text) > limit:
        text = text[:limit].rsplit(None, 1)[0]
    return text or None
