"""Boxes and turns on a PDF page.

Two coordinate systems, both in PDF points with y upwards: *user space*, in which the page's content is written,
and *display space*, in which a reader sees it, after the page's /Rotate, with the origin at the lower left corner
of what is visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Matrix = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f of PDF 32000-1, section 8.3.3: x' = ax + cy + e, y' = bx + dy + f."""

T = TypeVar("T")


class Box(NamedTuple):
    """A rectangle: left, bottom, right, top in points."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def width(self) -> float:
        """Points from left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Points from bottom to top."""
        return self.top - self.bottom

    @property
    def area(self) -> float:
        """Square points."""
        return max(0.0, self.width) * max(0.0, self.height)

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(
            min(self.left, other.left),
            min(self.bottom, other.bottom),
            max(self.right, other.right),
            max(self.top, other.top),
        )

    def shared_width(self, other: Box) -> float:
        """Points of horizontal overlap; negative: the horizontal gap."""
        return min(self.right, other.right) - max(self.left, other.left)

    def shared_height(self, other: Box) -> float:
        """Points of vertical overlap; negative: the vertical gap."""
        return min(self.top, other.top) - max(self.bottom, other.bottom)


def multiply(first: Matrix, second: Matrix) -> Matrix:
    """The matrix that applies `first`, then `second`."""
    a, b, c, d, e, f = first
    p, q, r, s, t, u = second
    return (
        a * p + b * r,
        a * q + b * s,
        c * p + d * r,
        c * q + d * s,
        e * p + f * r + t,
        e * q + f * s + u,
    )


def unit_square_box(matrix: Matrix) -> Box:
    """Where a matrix puts the unit square: the bounding box of an image drawn with it."""
    a, b, c, d, e, f = matrix
    xs, ys = (e, e + a, e + c, e + a + c), (f, f + b, f + d, f + b + d)
    return Box(min(xs), min(ys), max(xs), max(ys))


def to_display(box: Box, page: Box, rotation: int) -> Box:
    """A box of user space in display space.

    Args:
        box: in user space.
        page: the visible part of the page, in user space.
        rotation: the page's /Rotate: 0, 90, 180 or 270 degrees clockwise.
    """
    left, bottom, right, top = box
    if rotation == 90:
        return Box(bottom - page.bottom, page.right - right, top - page.bottom, page.right - left)
    if rotation == 180:
        return Box(page.right - right, page.top - top, page.right - left, page.top - bottom)
    if rotation == 270:
        return Box(page.top - top, left - page.left, page.top - bottom, right - page.left)
    return Box(left - page.left, bottom - page.bottom, right - page.left, top - page.bottom)


def orientation(matrix: Matrix, rotation: int) -> int:
    """How an image drawn with `matrix` stands on the displayed page, as an EXIF orientation (1 to 8).

    Turns other than by right angles are taken as the nearest right angle.
    """
    a, b, c, d = matrix[:4]
    for _ in range(rotation // 90 % 4):  # a quarter turn clockwise takes (x, y) to (y, -x)
        a, b, c, d = b, -a, d, -c
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[(a >= 0, d >= 0)]
    return {(False, False): 5, (False, True): 6, (True, True): 7, (True, False): 8}[(b >= 0, c >= 0)]


def reading_order(items: Sequence[tuple[Box, T]]) -> list[tuple[Box, T]]:
    """Sorts by rows from top to bottom, and within a row from left to right.

    Args:
        items: boxes in display space, each with anything. A row is what begins no lower than the middle of the
            row's first (highest) box.
    """
    rows: list[list[tuple[Box, T]]] = []
    for item in sorted(items, key=lambda item: (-item[0].top, item[0].left)):
        first = rows[-1][0][0] if rows else None
        if first is not None and item[0].top > first.top - first.height / 2:
            rows[-1].append(item)
        else:
            rows.append([item])
    return [item for row in rows for item in sorted(row, key=lambda item: (item[0].left, -item[0].top))]
