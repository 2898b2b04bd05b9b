"""The colours of a picture, measured: a few colours with their share of the area, the largest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedding_assets.analysis.color_names import color_name, to_hex

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 64
"""Pixels of the longer side of the copy that is measured: texture is averaged, areas stay."""
CLUSTERS = 8
ITERATIONS = 12
SHADES = 12.0
"""Distance (lightness at half weight) up to which clusters are shades of one colour: light and shadow on it."""
MAX_COLORS = 5
MIN_SHARE = 0.06
"""A colour on less of the area is not reported (the primary one always is)."""

# The page round a picture: paper white (L* 97 of 100, hardly any chroma), on most of the border, and round
# something that is clearly no paper. A white product that fills its picture is not paper: it has shades.
_PAPER_LIGHTNESS = 97.0
_PAPER_CHROMA = 3.0
_PAPER_BORDER = 0.6
_MIN_PRODUCT = 0.05
_COLORED_CHROMA = 8.0
_LARGE_PRODUCT = 0.25
_DARK_PRODUCT = 88.0

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)


@dataclass(frozen=True)
class Color:
    """One colour: "#RRGGBB", its name in `color_names.COLOR_NAMES`, and its share of the product's area, 0..1."""

    hex: str
    name: str
    share: float


def palette_of(image: Image) -> list[Color]:
    """The picture's colours, the largest share first; one to `MAX_COLORS`, no name twice.

    k-means in CIE L*a*b* with lightness at half weight (as `color_names.lab_distance`), started from the farthest
    points, so that the same pixels give the same palette. Clusters of one name are merged. Paper white at the
    picture's borders does not count where it surrounds something else.

    Args:
        image: mode RGB.
    """
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    rgb = np.asarray(small.convert("RGB"))
    lab = lab_of(rgb)
    product = ~_paper(lab)
    pixels, points = rgb[product], lab[product] * np.array([0.5, 1, 1], dtype=np.float32)
    labels = _merged(points, _clusters(points))
    shares: dict[str, list[NDArray[np.uint8]]] = {}
    for label in np.unique(labels):
        members = pixels[labels == label]
        shares.setdefault(color_name(_middle(members)), []).append(members)
    colors = [
        Color(_middle(members := np.concatenate(parts)), name, round(len(members) / len(pixels), 3))
        for name, parts in shares.items()
    ]
    colors.sort(key=lambda color: (-color.share, color.name))
    return [c for i, c in enumerate(colors[:MAX_COLORS]) if i == 0 or c.share >= MIN_SHARE]


def lab_of(rgb: NDArray[np.uint8]) -> Floats:
    """CIE L*a*b* (D65) of sRGB pixels: uint8, shape (..., 3) -> float32 of the same shape."""
    c = rgb.astype(np.float32) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _middle(pixels: NDArray[np.uint8]) -> str:
    red, green, blue = (int(v) for v in np.median(pixels, axis=0))
    return to_hex((red, green, blue))


def _paper(lab: Floats) -> Mask:
    """Where the page shows: white that hangs together with the border. Nowhere, if the rest is not a product."""
    white = (lab[..., 0] > _PAPER_LIGHTNESS) & (np.hypot(lab[..., 1], lab[..., 2]) < _PAPER_CHROMA)
    border = np.zeros_like(white)
    border[[0, -1], :] = border[:, [0, -1]] = True
    nothing = np.zeros_like(white)
    if white[border].mean() < _PAPER_BORDER:
        return nothing
    paper = white & border
    for _ in range(4 * SIDE):
        grown = _grown(paper) & white
        if (grown == paper).all():
            break
        paper = grown
    rest = lab[~paper]
    share = len(rest) / white.size
    if share < _MIN_PRODUCT:
        return nothing
    colored = float(np.median(np.hypot(rest[:, 1], rest[:, 2]))) >= _COLORED_CHROMA
    large = share >= _LARGE_PRODUCT and float(np.median(rest[:, 0])) < _DARK_PRODUCT
    if not (colored or large):
        return nothing
    edge = _grown(paper)  # pixels at the product's edge are part paper
    return paper if edge.all() else edge


def _grown(mask: Mask) -> Mask:
    """The mask and its neighbours above, below, left and right."""
    grown: Mask = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _clusters(points: Floats) -> NDArray[np.intp]:
    """k-means labels of points, shape (n, 3); deterministic."""
    centres = points.mean(axis=0, keepdims=True)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for _ in range(CLUSTERS - 1):
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(axis=1))
        if nearest.max() < 9:  # every point is within 3 units of a centre: nothing more to tell apart
            break
        centres = np.vstack([centres, points[nearest.argmax()]])
    labels = np.zeros(len(points), dtype=np.intp)
    for _ in range(ITERATIONS):
        distances = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2)
        labels = distances.argmin(axis=1)
        moved = np.stack(
            [
                points[labels == i].mean(axis=0) if (labels == i).any() else centres[i]
                for i in range(len(centres))
            ]
        )
        if np.abs(moved - centres).max() < 0.1:
            break
        centres = moved
    return labels


def _merged(points: Floats, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Labels where each cluster has joined the largest one that is within `SHADES` of it: shades of one colour."""
    found, counts = np.unique(labels, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    centres = {label: points[labels == label].mean(axis=0) for label in order}
    kept: list[np.intp] = []
    merged: NDArray[np.intp] = labels.copy()
    for label in order:
        near = next((k for k in kept if np.linalg.norm(centres[k] - centres[label]) < SHADES), None)
        if near is None:
            kept.append(label)
        else:
            merged[labels == label] = near
    return merged


def grain_of(image: Image) -> str:
    """How rough a surface looks, in one word: "smooth", "fine-grained" or "coarse-grained".

    The median over patches of 8 x 8 pixels of the spread of lightness (L*), on a copy of at most 256 pixels: the
    median leaves out joints and edges, which few patches hold.

    Args:
        image: mode RGB.
    """
    small = image.copy()
    small.thumbnail((256, 256))
    light = lab_of(np.asarray(small.convert("RGB")))[..., 0]
    rows, columns = max(1, light.shape[0] // 8), max(1, light.shape[1] // 8)
    cut = light[: rows * 8, : columns * 8]
    height, width = cut.shape[0] // rows, cut.shape[1] // columns
    patches = cut[: rows * height, : columns * width].reshape(rows, height, columns, width)
    spread = float(np.median(patches.std(axis=(1, 3))))
    return "smooth" if spread < 1.2 else "fine-grained" if spread < 5 else "coarse-grained"
