"""What a run did, counted from what changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from embedding_assets.keys import DocumentKey

DETAILED_FAILURES = 5
"""How many failures a run logs in detail."""


@dataclass(frozen=True)
class FailedImage:
    """One image that was not embedded, and why.

    `index` is its position in its document (from 0) and `attempts` the number of tries in this run.
    """

    index: int
    image_id: uuid.UUID
    document: DocumentKey
    path: str
    page_number: int | None
    error: str
    error_type: str
    error_class: str
    attempts: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "image_id": str(self.image_id), "document": str(self.document)}


@dataclass
class StageReport:
    """Counts and timings of one stage over some images. Reports of several steps add up.

    `embedded` means done, whatever the stage does: a vector stored, an image analysed.

    Attributes:
        embedded: images that have their vectors now and had not before, copied ones included.
        copied: those of them that got the vector of another image with the same bytes.
        failed: images that failed in this run.
        skipped: images that the stage left out, each for a stated reason.
        tokens: tokens that a provider charged.
        calls: calls to the encoder or provider.
        encoded: images in these calls, those of failed calls included.
        retries: images' tries after their first.
        decode_s: seconds that threads spent preparing images (summed over threads).
        encode_s: seconds in the encoder.
        write_s: seconds in the database.
        wait_s: seconds waited for retries and throttling.
        elapsed_s: seconds from start to end (summed over steps).
    """

    embedded: int = 0
    copied: int = 0
    failed: list[FailedImage] = field(default_factory=list)
    skipped: int = 0
    tokens: int = 0
    batches: int = 0
    calls: int = 0
    encoded: int = 0
    retries: int = 0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    wait_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images embedded a second of elapsed time, waits left out; 0 where nothing was done."""
        busy = self.elapsed_s - self.wait_s
        return self.embedded / busy if self.embedded and busy > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """Counts and timings without the list of failures, fit for JSON."""
        values = asdict(self)
        values["failed"] = len(self.failed)
        return values

    @classmethod
    def total(cls, summaries: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Adds up summaries of several steps."""
        total = cls().summary()
        for summary in summaries:
            for name, value in summary.items():
                total[name] += value
        return total
