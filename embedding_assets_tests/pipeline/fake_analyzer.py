"""A vision analyser that needs no model: an analysis drawn from the bytes' hash, and failures as told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from embedding_assets.analysis.protocol import ImageContext
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets_tests.pipeline.fake_encoder import PreparedImage, content_of


def analysis_of(content: str, model: str = "fake-model") -> VisionAnalysis:
    """The analysis that the analyser gives to these bytes."""
    return VisionAnalysis(
        material_type="porcelain",
        category="tile",
        colors=["beige"],
        description=f"Tile number {content[:12]} as {model} sees it.",
        confidence=0.9,
    )


class FakeAnalyzer:
    """Implements `analysis.protocol.VisionAnalyzer`.

    Attributes:
        model: of its analyses; may be changed.
        answers: analyses of certain images, by content hash, in place of `analysis_of`.
        faults: errors still to be given for an image, by its content hash; each try uses one up.
        down: raised by every call.
        calls: the content hashes of each call.
        before_analyze: called with the content hashes of a call, before it is answered.
    """

    provider = "fake"

    def __init__(self, model: str = "fake-model") -> None:
        self.model = model
        self.answers: dict[str, VisionAnalysis] = {}
        self.faults: dict[str, list[Exception]] = {}
        self.down: Exception | None = None
        self.calls: list[list[str]] = []
        self.before_analyze: Callable[[list[str]], None] = lambda contents: None

    def prepare(self, data: bytes, context: ImageContext) -> PreparedImage:
        return PreparedImage(content_of(data))

    def analyze(self, batch: Sequence[PreparedImage]) -> Sequence[VisionAnalysis | Exception]:
        contents = [image.content for image in batch]
        self.calls.append(contents)
        self.before_analyze(contents)
        if self.down is not None:
            raise self.down
        return [self._one(content) for content in contents]

    def _one(self, content: str) -> VisionAnalysis | Exception:
        waiting = self.faults.get(content)
        if waiting:
            return waiting.pop(0)
        return self.answers.get(content) or analysis_of(content, self.model)

    @property
    def analysed(self) -> Counter[str]:
        """How often each image was in a call, by content hash."""
        return Counter(content for call in self.calls for content in call)
