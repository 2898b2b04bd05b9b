"""The lines of text on a PDF page, with their places. Runs in the PDF worker only."""

from __future__ import annotations

import re
from ctypes import byref
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium_c

from embedding_assets.ingest.page_geometry import Box

MAX_CHARS = 50_000
"""Characters read from one page; a dense page has about 8,000."""

_WIDE_GAP = 1.5
"""A gap wider than this many text heights ends a line: it is a column's gap, not a word's."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HYPHENS = str.maketrans(
    {"\x02": "-", "\ufffe": "-", "\xad": "-"}
)  # pdfium's marks of a hyphen at a line's end
_LINE_ENDS = frozenset({10, 13})
_SPACES = frozenset({0, 32, 160})


class Line(NamedTuple):
    """A line of text of one column: its text, and its place in user or display space."""

    text: str
    box: Box


def read_lines(page: Any) -> list[Line]:
    """The lines of a `pypdfium2.PdfPage` in user space, in the order in which pdfium reads them."""
    textpage = page.get_textpage()
    try:
        return _lines_of(textpage)
    finally:
        textpage.close()


def _lines_of(textpage: Any) -> list[Line]:
    # Plain floats and one reused rectangle: this runs for each character of a document.
    lines: list[Line] = []
    codes: list[int] = []
    rect = pdfium_c.FS_RECTF()
    rect_pointer = byref(rect)
    get_unicode, get_box = pdfium_c.FPDFText_GetUnicode, pdfium_c.FPDFText_GetLooseCharBox
    raw = textpage.raw
    line_left = line_bottom = line_right = line_top = 0.0
    last: tuple[float, float, float, float] | None = None

    for index in range(min(max(0, textpage.count_chars()), MAX_CHARS)):
        code = get_unicode(raw, index)
        if code in _LINE_ENDS:
            if last is not None:
                _add(lines, codes, Box(line_left, line_bottom, line_right, line_top))
                last = None
            codes.clear()
            continue
        if code in _SPACES:
            codes.append(32)
            continue
        if not get_box(raw, index, rect_pointer):
            codes.append(code)
            continue
        left, bottom, right, top = rect.left, rect.bottom, rect.right, rect.top
        if last is not None and _ends_line(last, (left, bottom, right, top)):
            _add(lines, codes, Box(line_left, line_bottom, line_right, line_top))
            codes.clear()
            last = None
        codes.append(code)
        if last is None:
            line_left, line_bottom, line_right, line_top = left, bottom, right, top
        else:
            line_left = left if left < line_left else line_left
            line_bottom = bottom if bottom < line_bottom else line_bottom
            line_right = right if right > line_right else line_right
            line_top = top if top > line_top else line_top
        last = (left, bottom, right, top)
    if last is not None:
        _add(lines, codes, Box(line_left, line_bottom, line_right, line_top))
    return lines


def _add(lines: list[Line], codes: list[int], box: Box) -> None:
    text = _clean(codes)
    if text:
        lines.append(Line(text, box))


def _ends_line(last: tuple[float, float, float, float], char: tuple[float, float, float, float]) -> bool:
    """Whether a character begins another line: off the last one's row, or further along than a word gap."""
    last_left, last_bottom, last_right, last_top = last
    left, bottom, right, top = char
    last_height, height = last_top - last_bottom, top - bottom
    shared_height = min(last_top, top) - max(last_bottom, bottom)
    gap = max(last_left, left) - min(last_right, right)
    if shared_height < 0.3 * min(last_height, height):
        # Turned text runs up or down: its characters share a column, and follow each other closely.
        return -gap < 0.3 * min(last_right - last_left, right - left) or -shared_height > max(
            last_height, height
        )
    return gap > _WIDE_GAP * max(last_height, height, 1.0)


def _clean(codes: list[int]) -> str:
    units = b"".join(
        code.to_bytes(2, "little") if code < 0x10000 else chr(code).encode("utf-16-le", "replace")
        for code in codes
        if code <= 0x10FFFF
    )
    text = units.decode("utf-16-le", "ignore").translate(_HYPHENS)
    return " ".join(_CONTROL.sub(" ", text).split())
