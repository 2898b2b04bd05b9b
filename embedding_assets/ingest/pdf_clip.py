"""Takes the clip path of a PDF image out of the way. Runs in the PDF worker only.

pdfium renders a single image object with the clip path that stands on the page. What ingest wants is the whole
picture, clipped or not, as it gets it where no rendering is needed; and pdfium has no call to remove a clip path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_float
from typing import Any

import pypdfium2.raw as pdfium_c

from embedding_assets.ingest.page_geometry import Box

_MARGIN = 8.0


@contextmanager
def unclipped(image: Any, width: float, height: float) -> Iterator[None]:
    """Blows the image's clip path up until it covers an image drawn from (0, 0) to (width, height), for a while.

    Exact for rectangles and for every shape that is convex; a shape with a dent in the middle may still clip.

    Args:
        image: a `pypdfium2.PdfImage`.
        width, height: in points.
    """
    clip = pdfium_c.FPDFPageObj_GetClipPath(image)
    visible = _intersection(clip)
    if visible is None or min(visible.width, visible.height) <= 0:
        yield
        return
    scale = _MARGIN * max(width / visible.width, height / visible.height, 1.0)
    x, y = (visible.left + visible.right) / 2, (visible.bottom + visible.top) / 2
    dx, dy = width / 2 - x * scale, height / 2 - y * scale
    pdfium_c.FPDFPageObj_TransformClipPath(image, scale, 0, 0, scale, dx, dy)
    try:
        yield
    finally:
        pdfium_c.FPDFPageObj_TransformClipPath(image, 1 / scale, 0, 0, 1 / scale, -dx / scale, -dy / scale)


def _intersection(clip: Any) -> Box | None:
    """What the bounding boxes of all the clip's paths have in common; None where there are no paths."""
    common: Box | None = None
    x, y = c_float(), c_float()
    for path in range(max(0, pdfium_c.FPDFClipPath_CountPaths(clip))):
        xs, ys = [], []
        for index in range(max(0, pdfium_c.FPDFClipPath_CountPathSegments(clip, path))):
            segment = pdfium_c.FPDFClipPath_GetPathSegment(clip, path, index)
            if pdfium_c.FPDFPathSegment_GetPoint(segment, byref(x), byref(y)):
                xs.append(x.value)
                ys.append(y.value)
        if not xs:
            continue
        box = Box(min(xs), min(ys), max(xs), max(ys))
        if common is not None:
            box = Box(
                max(common.left, box.left),
                max(common.bottom, box.bottom),
                min(common.right, box.right),
                min(common.top, box.top),
            )
        common = box
    return common
