"""What ingest accepts, and what of it changes the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the PDF worker imports this module, and has to start quickly
    from embedding_assets.settings import Settings

EXTRACTION_VERSION = 1
"""Raise it when the same file would yield other images, captions or verdicts: every document is then read anew."""

PdfImages = Literal["embedded", "pages", "auto"]


@dataclass(frozen=True)
class IngestLimits:
    """Limits on images and PDFs.

    Attributes:
        max_image_bytes: a larger image file is rejected, before it is read (bytes).
        max_image_pixels: an image with more pixels is rejected, before it is decoded.
        min_image_side: a sound image with a shorter side is skipped (pixels).
        pdf_images: `embedded`: a PDF's raster images; `pages`: each page rendered; `auto`: embedded images, and
            a page without a usable one is rendered.
        pdf_render_dpi: resolution of rendered pages.
        pdf_timeout_s: seconds that the reader may work on one PDF (time that the caller takes is not counted).
        pdf_memory_mb: memory that the reader of one PDF may use (MiB).
    """

    max_image_bytes: int = 64 * 2**20
    max_image_pixels: int = 100_000_000
    min_image_side: int = 64
    pdf_images: PdfImages = "embedded"
    pdf_render_dpi: int = 150
    pdf_timeout_s: float = 300.0
    pdf_memory_mb: int = 2048

    @classmethod
    def from_settings(cls, settings: Settings) -> IngestLimits:
        """The limits that the settings of the same names give."""
        return cls(
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            min_image_side=settings.min_image_side,
            pdf_images=settings.pdf_images,
            pdf_render_dpi=settings.pdf_render_dpi,
            pdf_timeout_s=settings.pdf_timeout_s,
            pdf_memory_mb=settings.pdf_memory_mb,
        )

    @property
    def fingerprint(self) -> str:
        """The limits that decide which images a document yields; part of every document's content hash."""
        return (
            f"v{EXTRACTION_VERSION} bytes<={self.max_image_bytes} pixels<={self.max_image_pixels} "
            f"side>={self.min_image_side}"
        )

    @property
    def pdf_fingerprint(self) -> str:
        """As `fingerprint`, with what matters for PDFs only.

        Time and memory limits stay out: they decide whether a PDF can be read, never what comes out of it.
        """
        dpi = "" if self.pdf_images == "embedded" else f" dpi={self.pdf_render_dpi}"
        return f"{self.fingerprint} pdf={self.pdf_images}{dpi}"
