"""What an analyser is to the rest of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from embedding_assets.analysis.schema import VisionAnalysis


@dataclass(frozen=True)
class ImageContext:
    """What the document says about an image.

    Attributes:
        caption: the image's caption; None where there is none.
        nearby_text: the page's text nearest to the image; None where there is none.
        page_number: from 1; None where the source has no pages.
    """

    caption: str | None = None
    nearby_text: str | None = None
    page_number: int | None = None


class VisionAnalyzer(Protocol):
    """Turns images into analyses. One call is one attempt: the batch core owns all retries."""

    @property
    def provider(self) -> str:
        """Who analyses: "local", "qwen". Stored with every analysis."""

    @property
    def model(self) -> str:
        """Which model and version of it; another name makes analyses of its own. May load the model."""

    def prepare(self, data: bytes, context: ImageContext) -> Any:
        """One stored image, ready for `analyze`. Safe to call from several threads at once.

        Args:
            data: the image file's bytes.
            context: what the document says about it.

        Raises:
            ImageRejected: the bytes can't be decoded.
        """

    def analyze(self, batch: Sequence[Any]) -> Sequence[VisionAnalysis | Exception]:
        """Analyses of prepared images, one for each and in their order.

        Returns:
            For each image its analysis, or the error that is its own (AnalysisRejected, say).

        Raises:
            Errors of the five classes of `embedding_assets.errors` that concern the whole call.
        """
