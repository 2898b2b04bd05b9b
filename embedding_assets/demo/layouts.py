"""The patterns: how a surface is divided into cells, with joints or two tones between them.

Every layout works on coordinates in units of the swatch's side, so that a pattern looks the same at any size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""A float array of shape (height, width); float32 throughout, though the type does not insist."""
Mask = npt.NDArray[np.bool_]

JOINT = 0.011
"""Half the width of a joint in swatch sides: at 64 px a joint is still more than one pixel wide."""


@dataclass(frozen=True)
class Layout:
    """A pattern laid over a surface; all arrays have the shape (height, width).

    Attributes:
        cell: an integer for each cell, float32; textures are shifted by it, so that each piece is cut elsewhere.
        tone: -1..1, lighter or darker than the product's colour.
        joint: 0..1, how much of the pixel is joint.
        turned: True where the piece lies across, so that its grain runs the other way.
    """

    cell: Field
    tone: Field
    joint: Field
    turned: Mask


def lay(pattern: str, x: Field, y: Field, repeats: float) -> Layout:
    """Lay a pattern over the points (x, y).

    Args:
        pattern: a value of `specification.PATTERNS`.
        x, y: coordinates in swatch sides, float32, shape (height, width).
        repeats: how many pattern units fit in one side (about 3 to 5).

    Raises:
        KeyError: the pattern is not known.
    """
    return _LAYOUTS[pattern](x, y, repeats)


def _plain(x: Field, y: Field, repeats: float) -> Layout:
    return _layout(np.zeros_like(x))


def _stripes(x: Field, y: Field, repeats: float) -> Layout:
    band = np.floor(x * repeats * 2)
    return _layout(np.zeros_like(x), tone=_alternate(band))


def _checker(x: Field, y: Field, repeats: float) -> Layout:
    column, row = np.floor(x * repeats * 1.4), np.floor(y * repeats * 1.4)
    return _layout(column + 31 * row, tone=_alternate(column + row))


def _grid(x: Field, y: Field, repeats: float) -> Layout:
    u, v = x * repeats * 1.5, y * repeats * 1.5
    column, row = np.floor(u), np.floor(v)
    edge = np.minimum(_edge_of(u - column), _edge_of(v - row)) / (repeats * 1.5)
    return _layout(column + 31 * row, joint=_joint(edge), spread=0.12)


def _brick_bond(x: Field, y: Field, repeats: float) -> Layout:
    v = y * repeats * 2
    row = np.floor(v)
    u = x * repeats + 0.5 * (row % 2)
    column = np.floor(u)
    edge = np.minimum(_edge_of(u - column) / repeats, _edge_of(v - row) / (repeats * 2))
    return _layout(column + 31 * row, joint=_joint(edge), spread=0.15)


def _basketweave(x: Field, y: Field, repeats: float) -> Layout:
    u, v = x * repeats, y * repeats
    column, row = np.floor(u), np.floor(v)
    turned = (column + row) % 2 == 1
    along = np.where(turned, v - row, u - column)
    across = np.where(turned, u - column, v - row) * 3
    plank = np.floor(across)
    edge = np.minimum(_edge_of(along) / repeats, _edge_of(across - plank) / (repeats * 3))
    tone = np.where(turned, 0.35, -0.35)
    return _layout(column + 31 * row + 7 * plank, tone=tone, joint=_joint(edge), turned=turned)


def _herringbone(x: Field, y: Field, repeats: float) -> Layout:
    # Planks of 1 x 3 units. On the unit lattice, the diagonal (column - row) modulo 6 tells which plank a square
    # belongs to: 0-2 are the three squares of a lying plank, 3-5 those of a standing one.
    unit = repeats * 2
    turn = np.float32(np.sqrt(0.5))
    u, v = (x + y) * turn * unit, (y - x) * turn * unit
    column, row = np.floor(u), np.floor(v)
    place = (column - row) % 6
    lying = place < 3
    along = np.where(lying, u - column + place, v - row + (5 - place))
    across = np.where(lying, v - row, u - column)
    edge = np.minimum(_edge_of(across), np.minimum(along, 3 - along)) / unit
    cell = np.where(lying, (column - place) + 57 * row, column + 57 * (row - (5 - place)) + 13)
    return _layout(cell, tone=np.where(lying, 0.3, -0.3), joint=_joint(edge), turned=~lying)


def _chevron(x: Field, y: Field, repeats: float) -> Layout:
    u = x * repeats
    column = np.floor(u)
    fold = np.abs(u - column - 0.5) * 2
    v = y * repeats * 2 + fold
    row = np.floor(v)
    return _layout(column + 31 * row, tone=_alternate(row))


def _hexagon(x: Field, y: Field, repeats: float) -> Layout:
    # Two shifted rectangular lattices; the nearer centre owns the point (the usual hexagon lookup).
    height = np.float32(np.sqrt(3))
    u, v = x * repeats * 1.3, y * repeats * 1.3
    ax, ay = np.floor(u) + 0.5, (np.floor(v / height) + 0.5) * height
    bx, by = np.round(u), np.round(v / height) * height
    first = (u - ax) ** 2 + (v - ay) ** 2 < (u - bx) ** 2 + (v - by) ** 2
    cx, cy = np.where(first, ax, bx), np.where(first, ay, by)
    dx, dy = np.abs(u - cx), np.abs(v - cy)
    edge = (0.5 - np.maximum(dx, dx * 0.5 + dy * height * 0.5)) / (repeats * 1.3)
    return _layout(2 * cx + 37 * np.round(2 * cy / height), joint=_joint(edge), spread=0.15)


def _dots(x: Field, y: Field, repeats: float) -> Layout:
    v = y * repeats * 1.5
    row = np.floor(v)
    u = x * repeats * 1.5 + 0.5 * (row % 2)
    radius = np.hypot(u - np.floor(u) - 0.5, v - row - 0.5)
    return _layout(np.zeros_like(x), tone=np.where(radius < 0.31, 1.0, -0.5))


def _diamond(x: Field, y: Field, repeats: float) -> Layout:
    u, v = x * repeats * 1.5, y * repeats * 0.85
    first, second = np.floor(u + v), np.floor(u - v)
    return _layout(first + 31 * second, tone=_alternate(first + second))


def _scallop(x: Field, y: Field, repeats: float) -> Layout:
    # Rows of overlapping discs, half a disc apart, each row covering the one above it.
    v = y * repeats * 2.6
    tone, cell, joint = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    covered = np.zeros(x.shape, dtype=bool)
    base = np.floor(v)
    for step in (1, 0, -1):
        row = base + step
        u = x * repeats * 1.3 + 0.5 * (row % 2)
        column = np.floor(u)
        radius = np.hypot(u - column - 0.5, (v - row) * 0.5)
        inside = (radius < 0.5) & (v >= row - 1) & ~covered
        tone = np.where(inside, radius * 1.6 - 0.5, tone)
        cell = np.where(inside, column + 31 * row, cell)
        joint = np.where(inside, _joint((0.5 - radius) / (repeats * 1.3)), joint)
        covered |= inside
    return _layout(cell, tone=tone, joint=joint)


_LAYOUTS: dict[str, Callable[[Field, Field, float], Layout]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checker": _checker,
    "herringbone": _herringbone,
    "chevron": _chevron,
    "hexagon": _hexagon,
    "basketweave": _basketweave,
    "brick bond": _brick_bond,
    "dots": _dots,
    "diamond": _diamond,
    "scallop": _scallop,
    "grid": _grid,
}


def _layout(
    cell: Field,
    *,
    tone: Field | None = None,
    joint: Field | None = None,
    turned: Mask | None = None,
    spread: float = 0.0,
) -> Layout:
    if tone is None:
        # A little variation from piece to piece, as in a real batch of tiles.
        tone = spread * np.sin(cell * 12.9898)
    return Layout(
        cell=cell.astype(np.float32),
        tone=tone.astype(np.float32),
        joint=np.zeros(cell.shape, dtype=np.float32) if joint is None else joint,
        turned=np.zeros(cell.shape, dtype=bool) if turned is None else turned,
    )


def _alternate(index: Field) -> Field:
    return np.asarray(index % 2 * 2 - 1, dtype=np.float32)


def _edge_of(fraction: Field) -> Field:
    return np.asarray(np.minimum(fraction, 1 - fraction))


def _joint(edge: Field) -> Field:
    """Turn a distance from the cell's edge, in swatch sides, to joint coverage with a soft border."""
    return np.asarray(np.clip((JOINT - edge) / (JOINT * 0.5) + 0.5, 0, 1), dtype=np.float32)
