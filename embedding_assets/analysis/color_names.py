"""Names of colours: a small table, and the nearest name by how different colours look.

Pure Python: the text template needs it for one colour at a time. The table is ours: the names that catalogues use
for surfaces, most of them CSS names, with sRGB values of typical products (a "beige" tile is darker than CSS's).
A change of the table changes the text of analyses, so it goes with `to_text.TEMPLATE_VERSION`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

COLOR_NAMES: dict[str, str] = {
    "white": "#F4F3F0",
    "ivory": "#F3EAD3",
    "cream": "#EFE2BE",
    "beige": "#D6C2A0",
    "sand": "#C8AD7F",
    "tan": "#B98F60",
    "taupe": "#8B7D70",
    "light grey": "#C9C9C9",
    "grey": "#88898B",
    "dark grey": "#58595B",
    "charcoal": "#3A3B3D",
    "black": "#1B1A1B",
    "brown": "#6C462B",
    "dark brown": "#3F2A1D",
    "rust": "#A24A28",
    "terracotta": "#C4704F",
    "red": "#B9252A",
    "burgundy": "#6B1A2B",
    "orange": "#E27420",
    "peach": "#F2B995",
    "gold": "#C9A13B",
    "yellow": "#E8C434",
    "olive": "#77752F",
    "light green": "#A5CE9A",
    "green": "#347A40",
    "dark green": "#1F4A30",
    "sage": "#9CA88B",
    "mint": "#B4E0CC",
    "turquoise": "#36ACA8",
    "teal": "#1F6F73",
    "light blue": "#A9CBE6",
    "blue": "#346AC4",
    "navy": "#1A265C",
    "slate blue": "#5D7389",
    "lavender": "#BDB0DC",
    "purple": "#70388E",
    "magenta": "#B5307E",
    "pink": "#E694AC",
    "light pink": "#F3CDD4",
}
"""Name -> #RRGGBB."""

Lab = tuple[float, float, float]

_HEX = re.compile(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{8}|[0-9a-fA-F]{3})")
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})\s*[, ]\s*(\d{1,3})\s*[, ]\s*(\d{1,3})\b.*\)", re.IGNORECASE)


def parse_hex(text: str) -> str | None:
    """A colour as "#RRGGBB" from "#RRGGBB", "RRGGBB", "#RGB", "#RRGGBBAA" or "rgb(r, g, b)"; None if it is none."""
    text = text.strip()
    if match := _HEX.fullmatch(text):
        digits = match[1]
        if len(digits) == 3:
            digits = "".join(2 * digit for digit in digits)
        return f"#{digits[:6].upper()}"
    if match := _RGB.fullmatch(text):
        channels = [int(part) for part in match.groups()]
        if max(channels) <= 255:
            return to_hex((channels[0], channels[1], channels[2]))
    return None


def to_hex(rgb: tuple[int, int, int]) -> str:
    """sRGB channels, 0..255, as "#RRGGBB"."""
    return "#{:02X}{:02X}{:02X}".format(*rgb)


def to_lab(color: str) -> Lab:
    """CIE L*a*b* (D65, 2 degrees) of "#RRGGBB", by the sRGB formula of IEC 61966-2-1."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in channels)
    xyz = (
        (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047,
        0.2126729 * red + 0.7151522 * green + 0.0721750 * blue,
        (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def lab_distance(one: Lab, other: Lab) -> float:
    """How different two colours look: CIE76 (Euclidean) with lightness at half weight.

    Lightness counts less because the same product is photographed lighter and darker, while its hue stays.
    """
    lightness, a, b = (x - y for x, y in zip(one, other, strict=True))
    return math.sqrt(0.25 * lightness**2 + a**2 + b**2)


@lru_cache(maxsize=4096)
def color_name(color: str) -> str:
    """The name in `COLOR_NAMES` nearest to a colour ("#RRGGBB") by `lab_distance`; the first of equal ones."""
    lab = to_lab(color)
    return min(_labs(), key=lambda entry: lab_distance(entry[1], lab))[0]


@lru_cache(maxsize=1)
def _labs() -> tuple[tuple[str, Lab], ...]:
    return tuple((name, to_lab(value)) for name, value in COLOR_NAMES.items())
