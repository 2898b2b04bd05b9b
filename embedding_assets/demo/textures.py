"""The materials: tone fields whose statistics set one material apart from another at any colour.

A texture is a function of coordinates, not of pixels, so that a laid piece can be cut from anywhere of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""A float array of shape (height, width); float32 throughout, though the type does not insist."""

_LATTICE = 256
_MASK = _LATTICE - 1  # wraps an index round, negative ones too


class Noise:
    """Seeded value noise and scattered points over an endless plane."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._values = rng.random((_LATTICE, _LATTICE), dtype=np.float32)
        self._points = rng.random((3, _LATTICE, _LATTICE), dtype=np.float32)

    def value(self, x: Field, y: Field) -> Field:
        """Return smooth noise in -1..1 with features of about one unit of the coordinates."""
        left, top = np.floor(x), np.floor(y)
        fx, fy = x - left, y - top
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        i, j = left.astype(np.int32) & _MASK, top.astype(np.int32) & _MASK
        i1, row, row1 = (i + 1) & _MASK, j * _LATTICE, ((j + 1) & _MASK) * _LATTICE
        take = self._values.ravel().take
        upper = take(row + i) * (1 - fx) + take(row + i1) * fx
        lower = take(row1 + i) * (1 - fx) + take(row1 + i1) * fx
        return np.asarray((upper * (1 - fy) + lower * fy) * 2 - 1, dtype=np.float32)

    def fractal(self, x: Field, y: Field, octaves: int) -> Field:
        """Return the sum of noises of doubling frequency and halving strength, about -1..1."""
        total = np.zeros_like(x)
        for octave in range(octaves):
            total += self.value(x * 2**octave + 17 * octave, y * 2**octave + 5 * octave) * 0.5**octave
        return np.asarray(total / (2 - 0.5 ** (octaves - 1)), dtype=np.float32)

    def chips(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return the distance to the nearest scattered point, in lattice units, and that point's number in 0..1."""
        left, top = np.floor(x), np.floor(y)
        nearest = np.full(x.shape, 9, dtype=np.float32)
        number = np.zeros_like(x)
        for dj in (-1, 0, 1):
            for di in (-1, 0, 1):
                i = (left.astype(np.int32) + di) & _MASK
                j = (top.astype(np.int32) + dj) & _MASK
                dx = left + di + self._points[0][j, i] - x
                dy = top + dj + self._points[1][j, i] - y
                distance = np.abs(dx) + np.abs(dy) + 0.5 * np.abs(dx - dy)
                closer = distance < nearest
                nearest = np.where(closer, distance, nearest)
                number = np.where(closer, self._points[2][j, i], number)
        return nearest, number


def texture(material: str, x: Field, y: Field, noise: Noise) -> Field:
    """Return the tone of a material at the points (x, y): negative is darker, positive lighter, about -0.6..0.6.

    Args:
        material: a value of `specification.MATERIALS`.
        x, y: coordinates in swatch sides, float32, shape (height, width).
        noise: the seeded source of all irregularity.

    Raises:
        KeyError: the material is not known.
    """
    return np.asarray(_TEXTURES[material](x, y, noise), dtype=np.float32)


def _porcelain(x: Field, y: Field, noise: Noise) -> Field:
    return 0.03 * noise.fractal(x * 2, y * 2, 2)


def _marble(x: Field, y: Field, noise: Noise) -> Field:
    bend = noise.fractal(x * 2.5, y * 2.5, 3)
    ridge = 1 - np.abs(noise.fractal(x * 2.2 + 1.1 * bend, y * 2.2 + 1.1 * bend + 40, 3))
    fine = 1 - np.abs(noise.value(x * 5 + bend + 80, y * 5 - bend))
    return 0.75 * ridge**14 + 0.35 * fine**18 + 0.14 * bend - 0.1


def _oak(x: Field, y: Field, noise: Noise) -> Field:
    rings = y * 9 + 1.6 * noise.fractal(x * 0.9, y * 2.2, 2)
    fibre = noise.fractal(x * 3.5, y * 42, 2)
    return -0.26 * np.abs(np.sin(np.pi * rings)) ** 3 + 0.24 * fibre + 0.08


def _terrazzo(x: Field, y: Field, noise: Noise) -> Field:
    distance, number = noise.chips(x * 11, y * 11)
    chip = np.clip((0.62 - distance) * 8, 0, 1)
    return np.asarray(chip * np.where(number > 0.5, 0.75, -0.6) * (0.6 + 0.4 * np.sin(number * 40)) + 0.02)


def _concrete(x: Field, y: Field, noise: Noise) -> Field:
    cloud = noise.fractal(x * 3.2, y * 3.2, 3)
    distance, number = noise.chips(x * 13 + 9, y * 13 + 9)
    pits = np.clip((0.33 - distance) * 6, 0, 1) * (number > 0.55)
    return np.asarray(0.34 * cloud - 0.55 * pits)


def _slate(x: Field, y: Field, noise: Noise) -> Field:
    u, v = x * 0.8 + y * 0.6, y * 0.8 - x * 0.6
    wobble = 0.12 * noise.value(u * 3, v * 3)

    def height(along: Field, across: Field) -> Field:
        return noise.fractal(along * 2.4, (across + wobble) * 11, 3)

    return np.asarray(1.1 * (height(u, v) - height(u + 0.012, v + 0.016)) + 0.1 * noise.value(u * 2, v * 2))


def _terracotta(x: Field, y: Field, noise: Noise) -> Field:
    grain = noise.value(x * 30, y * 30) + 0.7 * noise.value(x * 55 + 3, y * 55)
    return 0.3 * grain + 0.1 * noise.fractal(x * 4, y * 4, 2)


def _wool(x: Field, y: Field, noise: Noise) -> Field:
    columns = 13
    u = x * columns
    slant = np.abs(u - np.floor(u) - 0.5) * 2
    stitch = np.sin(2 * np.pi * (y * columns + 0.75 * slant))
    gap = np.abs(np.sin(np.pi * u)) ** 0.5
    fuzz = noise.value(x * 60, y * 60)
    return np.asarray(0.26 * stitch * gap - 0.25 * (1 - gap) + 0.08 * fuzz)


_TEXTURES: dict[str, Callable[[Field, Field, Noise], Field]] = {
    "porcelain": _porcelain,
    "marble": _marble,
    "oak": _oak,
    "terrazzo": _terrazzo,
    "concrete": _concrete,
    "slate": _slate,
    "terracotta": _terracotta,
    "wool": _wool,
}
