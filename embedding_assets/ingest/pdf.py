"""Reads a PDF through a worker process, and survives whatever that does."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from embedding_assets.errors import DocumentError, InfrastructureError
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.page_geometry import Box
from embedding_assets.ingest.pdf_frames import MAX_HEADER_BYTES

WORKER_COMMAND = (sys.executable, "-m", "embedding_assets.ingest.pdf_worker")
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_CHUNK = 1 << 18
_STDERR_TAIL = 2000


@dataclass(frozen=True)
class PdfImage:
    """One image occurrence of a PDF, as the worker sent it.

    Attributes:
        page: number from 1.
        position: order on the page, from 0; None where the page itself could not be read.
        bbox: place on the page in PDF points, in the page's own coordinates.
        caption: the line that reads as its caption.
        nearby_text: the text nearest to it.
        serial: number of the image file; occurrences of one picture share it. None where there is no file.
        data: the image file, for the first occurrence; None for repetitions.
        verdict: "skipped" or "rejected" where there is no file, with the `reason`.
    """

    page: int
    position: int | None
    bbox: Box | None
    caption: str | None
    nearby_text: str | None
    serial: int | None = None
    data: bytes | None = None
    verdict: str | None = None
    reason: str | None = None


class PdfReader:
    """An open PDF: its number of pages and title at once, its images one by one as they are read.

    Use it in a `with` block: leaving it ends the worker, whatever state that is in.

    Args:
        path: a local PDF file.
        limits: time and memory of the worker, limits on images, `pdf_images`.
        command: what to run as the worker; it gets a JSON argument and speaks the frames of `pdf_frames`.

    Raises:
        DocumentError: the PDF is encrypted, empty or broken, or the worker crashed or ran out of time or memory.
        InfrastructureError: no worker can be started.
    """

    def __init__(self, path: Path, limits: IngestLimits, *, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._limits = limits
        self._left = limits.pdf_timeout_s
        self._page = 0
        self._buffer = bytearray()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the reader)
        request = json.dumps({"path": str(path.absolute()), "limits": asdict(limits)})
        try:
            self._process = subprocess.Popen(
                [*command, request],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise InfrastructureError(f"the PDF reader can't be started: {error}") from error
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        try:
            header, _ = self._frame()
            if header["record"] != "document":
                raise self._garbled()
            self.page_count = int(header["pages"])
            self.title: str | None = header.get("title") or None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PdfReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker and everything that it started. May be called twice."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if not self._pipe.closed:
            self._selector.close()
            self._pipe.close()
        self._stderr.close()

    def images(self) -> Iterator[PdfImage]:
        """The images, in reading order. One image is in memory at a time.

        Raises:
            DocumentError: the worker stopped before the end; the message says on which page and why. Images that
                came before are not the whole document.
        """
        while True:
            header, body = self._frame()
            record = header["record"]
            if record == "end":
                return
            if record == "page":
                self._page = int(header["page"])
            elif record == "image":
                yield _image(header, body)
            else:
                raise self._garbled()

    def _frame(self) -> tuple[dict[str, Any], bytes]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES + _CHUNK:
                raise self._garbled()
            if not self._receive():
                raise self._stopped()
        try:
            header = json.loads(self._buffer[:end])
            length = int(header.get("bytes", 0))
            record = header["record"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._garbled() from None
        del self._buffer[: end + 1]
        if length > self._limits.max_image_bytes:
            raise self._garbled()
        while len(self._buffer) < length:
            if not self._receive():
                raise self._stopped()
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        if record == "failed":
            raise DocumentError(str(header.get("reason")), hint=header.get("hint"))
        return header, body

    def _receive(self) -> bool:
        """Waits for more bytes; False at the end. Only time spent waiting counts against the limit."""
        started = time.monotonic()
        ready = self._selector.select(timeout=max(0.0, self._left))
        self._left -= time.monotonic() - started
        if not ready:
            raise DocumentError(
                f"reading it took longer than pdf_timeout_s={self._limits.pdf_timeout_s:g} s{self._where()}",
                hint="raise pdf_timeout_s, or save the PDF again with a viewer",
            )
        data = os.read(self._pipe.fileno(), _CHUNK)
        self._buffer += data
        return bool(data)

    def _stopped(self) -> DocumentError:
        """The worker's output ended too early: says how it died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        said = self._last_words()
        if code is not None and code < 0:
            how = f"crashed ({_signal_name(-code)})"
        else:
            how = f"stopped with exit code {code}" if code is not None else "closed its output"
        memory = f"; its memory limit is pdf_memory_mb={self._limits.pdf_memory_mb}"
        return DocumentError(
            f"the PDF reader {how}{self._where()}{memory}" + (f"; it said: {said}" if said else ""),
            hint="raise pdf_memory_mb if the PDF is large; otherwise save it again with a viewer",
        )

    def _garbled(self) -> DocumentError:
        return DocumentError(f"the PDF reader answered something that is no frame{self._where()}")

    def _where(self) -> str:
        return f" on page {self._page}" if self._page else " while opening it"

    def _last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        lines = self._stderr.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _image(header: dict[str, Any], body: bytes) -> PdfImage:
    bbox = header.get("bbox")
    same_as = header.get("same_as")
    return PdfImage(
        page=header["page"],
        position=header.get("position"),
        bbox=Box(*bbox) if bbox else None,
        caption=header.get("caption"),
        nearby_text=header.get("nearby_text"),
        serial=header.get("serial") if same_as is None else same_as,
        data=body if "serial" in header else None,
        verdict=header.get("verdict"),
        reason=header.get("reason"),
    )


def _environment() -> dict[str, str]:
    """The worker's environment: the parent's, and the package importable where it is not installed."""
    environment = dict(os.environ)
    if _PACKAGE_PARENT.name not in {"site-packages", "dist-packages"}:
        paths = [str(_PACKAGE_PARENT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
