"""Sizes, ratings and codes out of catalogue text: captions, page text, and text read in the picture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_NUMBER = r"\d{1,4}(?:[.,]\d{1,3})?"
_UNIT = r"(?:mm|cm|m|inch(?:es)?|in|″|\")"
_SIZE = re.compile(
    rf"(?P<label>\b(?:size|sizes|format|formats|dimensions?|measures)\s*[:=]?\s*)?"
    rf"(?<![\w.,/-])(?P<a>{_NUMBER})\s?(?P<unit_a>{_UNIT})?\s?(?:[x×✕*]|\bby\b)\s?(?P<b>{_NUMBER})"
    rf"(?:\s?(?P<unit_b>{_UNIT})?\s?[x×✕*]\s?(?P<c>{_NUMBER}))?(?:\s?(?P<unit>{_UNIT}))?(?![\w×])",
    re.IGNORECASE,
)
_THICKNESS = re.compile(
    rf"(?:\b(?:thickness|thick\.?|spessore|épaisseur|stärke|dicke)\s*[:=]?\s*(?P<after>{_NUMBER})\s?(?P<unit_after>mm|cm)\b"
    rf"|(?<![\w.,/×-])(?P<before>{_NUMBER})\s?(?P<unit_before>mm|cm)\s*(?:thick|thickness)\b)",
    re.IGNORECASE,
)
_BARE_THICKNESS = re.compile(rf"(?<![\w.,/×±<>-])(?P<value>{_NUMBER})\s?mm\b", re.IGNORECASE)
_NOT_THICKNESS = re.compile(
    r"(?:joint|joints|grout|gap|spacer|radius|tolerance|width|length|height)\W*$", re.IGNORECASE
)
_THICKNESS_MM = (2.0, 60.0)
_SLIP = re.compile(r"(?<![\w.-])R\s?-?\s?(9|1[0-3]|1[Oo])(?![\w.,]?\d|\w)")
_PEI = re.compile(r"\bPE[Il1]\s*[-:]?\s*(?:class\s*)?([Il]V|V|[Il]{1,3}|[0-5])\b", re.IGNORECASE)
_SHADE = re.compile(r"(?<![\w-])V\s?([1-4])(?![\w.,]?\d|\w)")
_FROST = re.compile(r"\b(not\s+|non[- ])?(frost)[- ]?(proof|resistant|resistance|free)\b", re.IGNORECASE)
_ABSORPTION = re.compile(
    r"\bwater absorption\b\s*[:=]?\s*(?:\([^)]{0,12}\)\s*)?([<>≤≥]?)\s*(\d{1,2}(?:[.,]\d{1,2})?)\s?%",
    re.IGNORECASE,
)
_RECTIFIED = re.compile(r"\b(non[- ]|not\s+)?rectified\b", re.IGNORECASE)
_CODE = re.compile(
    r"(?<![\w-])(?!(?:DIN|EN|ISO|UNI|ASTM|ANSI|BS|NF)\b)[A-Z]{2,5}-\d{3,7}(?:-[A-Z0-9]{1,4})?(?![\w-])"
)
_LABELLED_CODE = re.compile(
    r"\b(?:SKU|art(?:icle)?\.?\s?(?:no|nr|number)?\.?|ref(?:erence)?\.?|item\s(?:no|number)\.?|code)\s*[:#.]?\s*"
    r"(?=[A-Z0-9./-]*\d)([A-Z0-9][A-Z0-9./-]{2,19})(?!\w)",
    re.IGNORECASE,
)
_ROMAN = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5"}
_MAX_TEXT = 20_000
_MAX_VALUES = 6


@dataclass(frozen=True)
class Specifications:
    """What catalogue text states.

    Attributes:
        sizes: "60x120 cm" as stated, with the size in centimetres behind one in millimetres.
        properties: slip_rating ("R10", DIN 51130), thickness ("9 mm"), pei_rating ("4", ISO 10545-7),
            shade_variation ("V2", ANSI A137.1), frost_resistance, water_absorption ("<= 0.5 %"), edge,
            product_code; several values of one text are joined by commas.
    """

    sizes: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)


def read_specifications(texts: Iterable[str]) -> Specifications:
    """Reads specifications; of several texts the first that states a property (or a size) is believed.

    Args:
        texts: the most trusted first: text in the picture, the caption, the page's text near the picture.
    """
    sizes: tuple[str, ...] = ()
    properties: dict[str, str] = {}
    for text in texts:
        text = " ".join(text[:_MAX_TEXT].split())
        found, rest, thickness = _sizes(text)
        sizes = sizes or found
        for name, values in _properties(text, rest, thickness).items():
            if values:
                properties.setdefault(name, ", ".join(list(dict.fromkeys(values))[:_MAX_VALUES]))
    return Specifications(sizes, dict(sorted(properties.items())))


def _sizes(text: str) -> tuple[tuple[str, ...], str, list[str]]:
    """Sizes, the text without them, and thicknesses given as a third measure."""
    found: list[str] = []
    thickness: list[str] = []

    def take(match: re.Match[str]) -> str:
        unit = _unit(match["unit"] or match["unit_b"] or match["unit_a"])
        sides = [_number(match[name]) for name in ("a", "b", "c") if match[name]]
        if not all(float(side) > 0 for side in sides) or not (unit or match["label"]):
            return match[0]
        size = f"{'x'.join(sides)} {unit}".strip()
        if unit == "mm":
            size += f" ({'x'.join(f'{float(side) / 10:g}' for side in sides)} cm)"
        found.append(size)
        if len(sides) == 3:
            thickness.append(f"{sides[2]} {unit}".strip())
        return " ; "

    rest = _SIZE.sub(take, text)
    return tuple(dict.fromkeys(found))[:_MAX_VALUES], rest, thickness


def _properties(text: str, rest: str, thickness: list[str]) -> dict[str, list[str]]:
    return {
        "slip_rating": ["R" + grade.upper().replace("O", "0") for grade in _SLIP.findall(text)],
        "thickness": _thickness(rest) or thickness,
        "pei_rating": [_pei(grade) for grade in _PEI.findall(text)],
        "shade_variation": [f"V{grade}" for grade in _SHADE.findall(text)],
        "frost_resistance": [
            f"{'not ' if negated else ''}frost {'resistant' if kind.lower() == 'resistance' else kind.lower()}"
            for negated, _, kind in _FROST.findall(text)
        ],
        "water_absorption": [
            " ".join(filter(None, (sign, _number(value), "%"))) for sign, value in _ABSORPTION.findall(text)
        ],
        "edge": ["not rectified" if negated else "rectified" for negated in _RECTIFIED.findall(text)],
        "product_code": _codes(text),
    }


def _thickness(text: str) -> list[str]:
    stated = [
        f"{_number(match['after'] or match['before'])} {(match['unit_after'] or match['unit_before']).lower()}"
        for match in _THICKNESS.finditer(text)
    ]
    if stated:
        return stated
    low, high = _THICKNESS_MM
    return [
        f"{_number(match['value'])} mm"
        for match in _BARE_THICKNESS.finditer(text)
        if low <= float(_number(match["value"])) <= high and not _NOT_THICKNESS.search(text[: match.start()])
    ]


def _codes(text: str) -> list[str]:
    labelled = [code.rstrip("./-") for code in _LABELLED_CODE.findall(text)]
    return [*_CODE.findall(text), *(code for code in labelled if not _SIZE.fullmatch(code))]


def _pei(grade: str) -> str:
    return _ROMAN.get(grade.upper().replace("L", "I"), grade)  # text readers take I for l


def _number(text: str) -> str:
    return f"{float(text.replace(',', '.')):g}"


def _unit(text: str | None) -> str:
    unit = (text or "").lower()
    return "in" if unit.startswith(("in", "″", '"')) else unit
