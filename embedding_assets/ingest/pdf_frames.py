"""What the PDF worker says to its parent: frames on a pipe.

    frame  = header newline body
    header = one JSON object on one line, 64 KiB at most; "bytes" is the length of the body, 0 where absent
    body   = an image file

Records, by the header's "record":

    document  pages, title                      first; the PDF is open
    page      page                              the worker begins with this page, counted from 1
    image     page, position, bbox, caption, nearby_text, and one of
                  serial, format + body         an image file that has not been sent before
                  same_as                       the serial of an image already sent
                  verdict, reason               "skipped" or "rejected", without a file
    failed    reason, hint                      last: the document can't be read
    end                                         last: everything was said

A pipe and not a folder of files: when the parent is slow the worker waits, so neither memory nor disk fills with
images, and nothing is left behind when either of them is killed.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 64 * 1024


def write_frame(out: BinaryIO, record: str, body: bytes = b"", **fields: Any) -> None:
    """Writes one frame and flushes it."""
    header = {"record": record, **fields}
    if body:
        header["bytes"] = len(body)
    out.write(json.dumps(header).encode("ascii") + b"\n")
    out.write(body)
    out.flush()
