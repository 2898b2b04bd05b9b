"""A bad PDF becomes one document error with its reason, whatever it does to its reader."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen import canvas

from embedding_assets.errors import DocumentError, TransientError
from embedding_assets.ingest.pdf import PdfReader
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.ingest.sources import read_document
from embedding_assets_tests.ingest.pdf_writer import PdfWriter, draw
from embedding_assets_tests.ingest.reading import LIMITS, landing_document, read_all, read_pdf, store_beside
from embedding_assets_tests.ingest.samples import encoded, noise


def _good(pages: int = 1) -> PdfWriter:
    pdf = PdfWriter()
    for number in range(pages):
        pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.jpeg(96, 96, encoded(noise(seed=number), "JPEG"))})
    return pdf


def _encrypted(user: str, tmp: Path) -> bytes:
    page = canvas.Canvas(str(tmp / "e.pdf"), encrypt=StandardEncryption(user, ownerPassword="owner"))
    page.drawString(100, 100, "secret")
    page.save()
    return (tmp / "e.pdf").read_bytes()


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "0 bytes": (lambda tmp: b"", "empty: the file has 0 bytes"),
    "one byte": (lambda tmp: b"%", "broken: it is no readable PDF"),
    "text": (lambda tmp: b"Dear customer, here is our catalogue", "this starts with b'Dear cus'"),
    "a JPEG with the wrong name": (lambda tmp: encoded(noise(), "JPEG"), "this starts with b'\\xff\\xd8"),
    "zero bytes only": (lambda tmp: bytes(5000), "broken: it is no readable PDF"),
    "a header and nothing else": (lambda tmp: b"%PDF-1.7\n%%EOF\n", "broken: it is no readable PDF"),
    "a quarter of a PDF": (lambda tmp: _good().bytes()[:400], "broken: it is no readable PDF"),
    "random bytes after the header": (
        lambda tmp: b"%PDF-1.4\n" + noise().tobytes(),
        "broken: it is no readable PDF",
    ),
    "no pages": (lambda tmp: PdfWriter().bytes(), "empty: it has 0 pages"),
    "a password": (lambda tmp: _encrypted("user", tmp), "encrypted: it needs a password to open"),
    "an unknown encryption": (
        lambda tmp: _good().bytes("/Encrypt << /Filter /Mystery /V 9 /R 9 >> /ID [<00> <00>]"),
        "encrypted",
    ),
    "a page tree that is a page": (
        lambda tmp: _good().bytes().replace(b"/Type /Catalog /Pages 2 0 R", b"/Type /Catalog /Pages 9 0 R"),
        "",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pdf_is_a_document_error_with_its_reason(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    with pytest.raises(DocumentError) as caught:
        read_pdf(tmp_path, make(tmp_path))
    assert reason in caught.value.message
    assert caught.value.hint


def test_a_pdf_that_opens_without_a_password_is_read(tmp_path: Path) -> None:
    path = tmp_path / "e.pdf"
    _encrypted("", tmp_path)
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        assert (content.page_count, list(content.images)) == (1, [])


def test_a_pdf_without_images_is_no_error(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.title("Price list")
    pdf.page("BT /F 12 Tf 50 700 Td (No pictures) Tj ET")
    path = tmp_path / "prices.pdf"
    path.write_bytes(pdf.bytes())
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        assert (content.title, content.page_count, list(content.images)) == ("Price list", 1, [])


def test_a_broken_page_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    pdf = _good(2)
    pdf.pages.insert(1, pdf.add(b"(this is no page)"))
    found = read_pdf(tmp_path, pdf.bytes())
    statuses = [image.status for image in found]
    assert statuses == [ImageStatus.READY, ImageStatus.REJECTED, ImageStatus.READY]
    assert found[1].reference == "page 2"
    assert "the page can't be read" in (found[1].reason or "")


def test_forms_that_contain_themselves_end(tmp_path: Path) -> None:
    pdf = PdfWriter()
    number = len(pdf.objects) + 1
    assert pdf.form("/F Do", f"/XObject << /F {number} 0 R >>") == number
    pdf.page("/F Do", {"F": number})
    assert read_pdf(tmp_path, pdf.bytes()) == []


def _worker(how: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "embedding_assets_tests.ingest.bad_worker", how)


@pytest.mark.parametrize(
    ("how", "timeout", "reason"),
    [
        ("hang at once", 0.5, "longer than pdf_timeout_s=0.5 s while opening it"),
        ("hang", 3, "longer than pdf_timeout_s=3 s on page 2"),
        ("drip", 3, "on page 2"),
        ("crash", 60, "the PDF reader crashed (SIGSEGV) on page 2"),
        (
            "exit",
            60,
            "the PDF reader stopped with exit code 1 on page 2; its memory limit is pdf_memory_mb=2048; ",
        ),
        ("exit", 60, "it said: something went wrong"),
        ("half a frame", 60, "stopped with exit code 0 on page 2"),
        ("garbage", 60, "answered something that is no frame on page 2"),
        ("endless line", 60, "on page 2"),
        ("too large", 60, "answered something that is no frame on page 2"),
    ],
)
def test_a_worker_that_misbehaves_is_a_document_error(
    tmp_path: Path, how: str, timeout: float, reason: str
) -> None:
    path = tmp_path / "any.pdf"
    path.write_bytes(b"%PDF-")
    limits = replace(LIMITS, pdf_timeout_s=timeout)
    with pytest.raises(DocumentError) as caught:
        read_all(path, limits, command=_worker(how))
    assert reason in caught.value.message


def test_a_hanging_worker_is_killed_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "any.pdf"
    path.write_bytes(b"%PDF-")
    with PdfReader(path, LIMITS, command=_worker("hang with a child")) as reader:
        child = psutil.Process(int(next(reader.images()).reason or "0"))
        worker = child.parent()
        assert worker is not None
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not worker.is_running()


def test_a_real_pdf_that_keeps_pdfium_busy_is_cut_off(tmp_path: Path) -> None:
    pdf = PdfWriter()
    # Each form draws the next one ten times: ten to the eighth form objects.
    inner = pdf.form("0 0 1 1 re f", "")
    for _ in range(8):
        inner = pdf.form("/F Do " * 10, f"/XObject << /F {inner} 0 R >>")
    pdf.page("/F Do", {"F": inner})
    started = time.monotonic()
    with pytest.raises(DocumentError) as caught:
        read_pdf(tmp_path, pdf.bytes(), replace(LIMITS, pdf_timeout_s=2, pdf_memory_mb=512))
    assert "on page 1" in caught.value.message
    assert time.monotonic() - started < 30


def test_a_real_pdf_that_wants_too_much_memory_is_cut_off(tmp_path: Path) -> None:
    pdf = PdfWriter()
    side = 12_000
    data = zlib.compress(bytes(side * side))

    def grey(more: str = "") -> int:
        return pdf.image(side, side, data, filters="[/FlateDecode]", colorspace="/DeviceGray", more=more)

    image, masked = grey(), grey(f"/SMask {grey()} 0 R")
    names = {"A": image, "M": masked, "B": pdf.jpeg(96, 96, encoded(noise(), "JPEG"))}
    pdf.page(draw("A", 0, 0, 96, 96) + draw("M", 200, 0, 96, 96) + draw("B", 300, 0, 96, 96), names)
    limits = replace(LIMITS, max_image_pixels=10**9, pdf_memory_mb=256)
    try:
        found = read_pdf(tmp_path, pdf.bytes(), limits)
    except DocumentError as error:
        assert "pdf_memory_mb=256" in error.message  # noqa: PT017 (either verdict is right: pdfium may die of it)
    else:
        assert [image.status for image in found][:2] == [ImageStatus.REJECTED] * 2
        assert "pdf_memory_mb" in (found[0].reason or "") + (found[1].reason or "")


def test_a_caller_that_takes_its_time_is_not_counted_against_the_pdf(tmp_path: Path) -> None:
    path = tmp_path / "many.pdf"
    path.write_bytes(_good(40).bytes())
    limits = replace(LIMITS, pdf_timeout_s=10)
    with PdfReader(path, limits) as reader:
        reader._left = 5.0
        images = reader.images()
        next(images)
        left = reader._left
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        for _ in images:
            pass
        assert left - reader._left < 5.0


def test_leaving_early_ends_the_worker_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = tmp_path / "many.pdf"
    path.write_bytes(_good(40).bytes())
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        next(content.images)
    workers = [
        process for process in psutil.Process().children(recursive=True) if "pdf_worker" in _command(process)
    ]
    assert workers == []
    assert list(scratch.iterdir()) == []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_pdf_written_while_it_is_read_is_read_again_later(tmp_path: Path) -> None:
    path = tmp_path / "growing.pdf"
    path.write_bytes(_good(2).bytes())
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        next(content.images)
        os.utime(path, ns=(1, 1))
        with pytest.raises(TransientError, match="changed while it was read"):
            list(content.images)
