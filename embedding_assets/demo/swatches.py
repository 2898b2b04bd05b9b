"""Draws a product's swatch: its material, colour and pattern under a light that differs from photograph to photograph.

numpy and Pillow only. The same specification, size and seed give the same pixels.
"""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedding_assets.demo.layouts import Layout, lay
from embedding_assets.demo.specification import ProductSpec
from embedding_assets.demo.textures import Field, Noise, texture

RGB = npt.NDArray[np.float32]
"""A float32 array of shape (height, width, 3), 0..1."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "white": (236, 235, 231),
    "black": (32, 31, 33),
    "grey": (134, 135, 138),
    "beige": (214, 194, 160),
    "brown": (108, 70, 43),
    "red": (178, 36, 40),
    "orange": (226, 116, 32),
    "yellow": (232, 196, 52),
    "green": (52, 122, 64),
    "turquoise": (54, 172, 168),
    "blue": (52, 106, 196),
    "navy": (26, 38, 92),
    "purple": (112, 56, 142),
    "pink": (230, 148, 172),
}
"""sRGB of each colour before light, tone and texture."""

_NEUTRAL = frozenset({"white", "black", "grey"})
_TONE = 0.26
_JOINT_CONTRAST = 0.5


def draw_swatch(spec: ProductSpec, size: int = 384, seed: int = 0) -> Image.Image:
    """Draw a product's swatch.

    Args:
        spec: the product; only material, colour, pattern and finish show.
        size: side of the square image in pixels, 16 or more.
        seed: another seed gives another piece of the same product: other veins, scale, offset and light.

    Returns:
        An RGB image of size x size pixels.

    Raises:
        ValueError: `size` is below 16.
    """
    if size < 16:
        raise ValueError(f"size must be 16 pixels or more, got {size}")
    rng = np.random.default_rng(_entropy(spec, seed))
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    shift = rng.random(2, dtype=np.float32) * 8
    layout = lay(spec.pattern, x + shift[0], y + shift[1], float(rng.uniform(3.2, 4.6)))
    grain = _cut_texture(spec.material, x + shift[0], y + shift[1], layout, Noise(rng))
    surface = _paint(spec.colour, grain + _TONE * layout.tone, layout.joint, rng)
    lit = _light(surface, x, y, spec.finish, rng)
    return Image.fromarray((np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")


def _entropy(spec: ProductSpec, seed: int) -> int:
    key = f"{spec.material}|{spec.colour}|{spec.pattern}|{spec.finish}|{seed}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _cut_texture(material: str, x: Field, y: Field, layout: Layout, noise: Noise) -> Field:
    if material == "wool":  # woven in one piece, never cut
        return texture(material, x, y, noise)
    u, v = np.where(layout.turned, y, x), np.where(layout.turned, x, y)
    return texture(material, u + layout.cell * 3.7 % 11, v + layout.cell * 5.3 % 13, noise)


def _paint(colour: str, tone: Field, joint: Field, rng: np.random.Generator) -> RGB:
    base = np.asarray(PALETTE[colour], dtype=np.float32) / 255
    # Batches differ in shade; on a neutral colour a cast shows sooner, so it gets less of one.
    cast = 0.008 if colour in _NEUTRAL else 0.03
    base = np.clip(base * rng.normal(1, cast, 3) + rng.normal(0, 0.012), 0, 1).astype(np.float32)
    lightness = float(base @ np.asarray((0.299, 0.587, 0.114), dtype=np.float32))
    # White can't get lighter nor black darker, so their tones are moved to where they show.
    if lightness > 0.5:
        tone = tone - min(1.0, (lightness - 0.5) * 2.2) * np.percentile(tone, 85).astype(np.float32)
    else:
        tone = tone - min(1.0, (0.5 - lightness) * 2.2) * np.percentile(tone, 15).astype(np.float32)
    towards = 0.0 if lightness > 0.45 else 1.0
    tone = tone * (1 - joint) + joint * (_JOINT_CONTRAST if towards else -_JOINT_CONTRAST)
    tone = np.clip(tone, -0.75, 0.75)[..., None]
    return np.asarray(np.where(tone > 0, base + (1 - base) * tone * 0.8, base * (1 + tone)), dtype=np.float32)


def _light(surface: RGB, x: Field, y: Field, finish: str, rng: np.random.Generator) -> RGB:
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    fall = 1 + rng.uniform(0.05, 0.25) * across
    warmth = 1 + rng.normal(0, 0.015) * np.asarray((1, 0, -1), dtype=np.float32)
    lit = surface * (rng.uniform(0.9, 1.08) * fall)[..., None] * warmth
    if finish == "glossy":
        lit = np.clip((lit - 0.5) * 1.12 + 0.49, 0, 1)
        return np.asarray(lit + (1 - lit) * _highlight(x, y, angle, rng)[..., None], dtype=np.float32)
    # A matte surface scatters: less contrast, and no point of it mirrors the light.
    return np.asarray((lit - 0.5) * 0.92 + 0.505 + rng.normal(0, 0.008, lit.shape), dtype=np.float32)


def _highlight(x: Field, y: Field, angle: float, rng: np.random.Generator) -> Field:
    """Return 0..1, how much of each point mirrors the light: a bright lamp spot and a soft band through it."""
    cx, cy = rng.uniform(0.25, 0.75, 2)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    spot = 0.5 * np.exp(-((u / 0.13) ** 2 + (v / 0.24) ** 2))
    band = 0.24 * np.exp(-((u / 0.2) ** 2)) + 0.14 * np.exp(-(((u - 0.3) / 0.06) ** 2))
    return np.asarray(np.clip(spot + band, 0, 0.9), dtype=np.float32)
