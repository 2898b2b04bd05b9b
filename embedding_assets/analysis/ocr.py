"""Text in pictures, by RapidOCR on this machine.

The models lie in the rapidocr wheel: no network, no key. They are loaded when first needed, once per process. One
picture is read at a time, by one thread: RapidOCR keeps the state of a call on the object, and its default of all
cores is three times slower than one as soon as other threads decode or encode beside it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_assets.analysis.schema import MAX_DETECTED_ITEMS, MAX_DETECTED_TEXT, clean_list
from embedding_assets.errors import ModelUnavailable

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 960
"""Pixels of the longer side of the copy that is read. Letters need about 10 pixels of it in height."""
MIN_SCORE = 0.6
"""RapidOCR's score below which a line is dropped: veins and joints read as letters score lower."""

_PARAMETERS: dict[str, Any] = {
    "Global.log_level": "critical",
    "Global.text_score": MIN_SCORE,
    "Global.use_cls": False,  # text upside down is rare on products, and the classifier costs a tenth
    "Det.limit_type": "max",  # the default blows small pictures up to 736 px: four times slower on a 384 px one
    "Det.limit_side_len": MAX_SIDE,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}

_lock = threading.Lock()
_reader: Any = None


def read_text(image: Image) -> list[str]:
    """Lines of text in a picture, from top to bottom; cleaned, without doubles.

    Args:
        image: mode RGB, any size; a copy of at most `MAX_SIDE` pixels a side is read.

    Raises:
        ModelUnavailable: rapidocr or onnxruntime can't be loaded.
    """
    copy = image.convert("RGB")
    copy.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels = np.ascontiguousarray(np.asarray(copy)[:, :, ::-1])  # RapidOCR takes BGR arrays
    with _lock:
        found = _loaded()(pixels)
    lines = [text for text in found.txts or () if sum(c.isalnum() for c in text) >= 2]
    return clean_list(lines, items=MAX_DETECTED_ITEMS, limit=MAX_DETECTED_TEXT)


def _loaded() -> Any:
    """The reader of this process; call with the lock held."""
    global _reader
    if _reader is None:
        try:
            from rapidocr import RapidOCR

            _reader = RapidOCR(params=_PARAMETERS)
        except Exception as error:
            raise ModelUnavailable(
                f"the text reader can't be loaded: {type(error).__name__}: {error}",
                hint="install rapidocr and onnxruntime, or switch OCR off",
            ) from error
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return _reader
