"""The process that reads one PDF: `python -m embedding_assets.ingest.pdf_worker '<JSON>'`, frames on its output.

A PDF is input from anywhere and pdfium is C++; so each is read in a process of its own, with limits on memory,
processor time and disk that it sets on itself before it looks at the file. It may crash or hang: the parent
(`pdf`) notices, and nothing else suffers. It imports neither torch nor dagster nor numpy, so that it starts in
about 0.2 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

import pypdfium2 as pdfium

from embedding_assets.errors import DocumentError
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.pdf_extraction import Extraction
from embedding_assets.ingest.pdf_frames import write_frame
from embedding_assets.ingest.pdf_images import DocumentTraits

CPU_GRACE_S = 30
"""Processor seconds beyond pdf_timeout_s: this limit is for the case that no parent is left to look at the clock."""
REOPEN_BYTES = 64 * 2**20
"""pdfium keeps the data of every image that it has read until the document is closed; so now and then it is."""

# FPDF_ERR_SUCCESS (which is what pdfium says of a document without pages), FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
_NO_PAGES, _PASSWORD_ERROR, _SECURITY_ERROR = 0, 4, 5


def main(argv: list[str]) -> int:
    """Reads the PDF that the JSON in `argv[1]` names (`path`, `limits`), and writes frames to standard output."""
    request = json.loads(argv[1])
    limits = IngestLimits(**request["limits"])
    _limit_resources(limits)
    out = _private_output()
    try:
        _read(Path(request["path"]), limits, out)
    except DocumentError as error:
        write_frame(out, "failed", reason=error.message, hint=error.hint)
    except MemoryError:
        reason = f"reading it needs more memory than pdf_memory_mb={limits.pdf_memory_mb} allows"
        write_frame(out, "failed", reason=reason, hint="raise pdf_memory_mb")
    else:
        write_frame(out, "end")
    out.close()
    return 0


def _limit_resources(limits: IngestLimits) -> None:
    """Bounds this process: address space, processor time, and the size of files that it could write."""
    for kind, value in (
        (resource.RLIMIT_AS, limits.pdf_memory_mb * 2**20),
        (resource.RLIMIT_CPU, int(limits.pdf_timeout_s) + CPU_GRACE_S),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some; a lower hard limit may stand
            resource.setrlimit(kind, (value, value))


def _private_output() -> BinaryIO:
    """The pipe to the parent, moved away from file descriptor 1: nothing else can write into the frames."""
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    return out


def _read(path: Path, limits: IngestLimits, out: BinaryIO) -> None:
    if path.stat().st_size == 0:
        raise DocumentError("empty: the file has 0 bytes", hint="export or copy the PDF again")
    with path.open("rb") as file:
        traits = DocumentTraits.scan(file)
    pdf = _open(path)
    try:
        pages = len(pdf)
        if pages < 1:
            raise DocumentError("empty: it has 0 pages", hint="export the PDF again")
        title = " ".join(pdf.get_metadata_value("Title").split())[:500]
        write_frame(out, "document", pages=pages, title=title)
        extraction = Extraction(limits, traits, out)
        opened_at = 0
        for number in range(1, pages + 1):
            if extraction.bytes_read - opened_at > REOPEN_BYTES:
                pdf.close()
                pdf = _open(path)
                opened_at = extraction.bytes_read
            write_frame(out, "page", page=number)
            try:
                page = pdf[number - 1]
            except pdfium.PdfiumError as error:
                extraction.reject_page(number, f"the page can't be read ({error})")
                continue
            extraction.read_page(page, number)
            page.close()
    finally:
        pdf.close()


def _open(path: Path) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: pdfium.PdfiumError) -> DocumentError:
    if error.err_code == _PASSWORD_ERROR:
        return DocumentError("encrypted: it needs a password to open", hint="save it without a password")
    if error.err_code == _SECURITY_ERROR:
        return DocumentError(
            "encrypted in a way that can't be opened here", hint="save it without encryption"
        )
    if error.err_code == _NO_PAGES:
        return DocumentError("empty: it has 0 pages that could be found", hint="export the PDF again")
    with path.open("rb") as file:
        start = file.read(8)
    return DocumentError(
        f"broken: it is no readable PDF ({error}); a PDF starts with b'%PDF-', this starts with {start!r}",
        hint="open it in a PDF viewer and save it again",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
