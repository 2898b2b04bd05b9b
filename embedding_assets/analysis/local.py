"""The local analyser: no network, no key. What can be measured, read or told by the SLIG model, and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedding_assets.analysis.ocr import read_text
from embedding_assets.analysis.palette import Color, grain_of, palette_of
from embedding_assets.analysis.protocol import ImageContext
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.sentence import describe
from embedding_assets.analysis.specifications import read_specifications
from embedding_assets.analysis.vocabulary import ATTRIBUTES, Vocabulary, load_vocabulary
from embedding_assets.analysis.zero_shot import TEMPERATURE, Guess, ZeroShotClassifier
from embedding_assets.encoders.protocol import Encoder, Prepared
from embedding_assets.errors import EmbeddingAssetsError

if TYPE_CHECKING:
    from PIL.Image import Image

PROVIDER = "local"
LOCAL_VERSION = "local-1"
"""Goes up when the analyser or its vocabulary changes: analyses of another version are made anew."""

MIN_MARGIN = 0.15
"""A guess that leads the second by less is not reported."""
STRONG_MARGIN = 0.9
"""A guess that leads by less gives way to what the text near the image says. High, as margins are no calibrated
probabilities: of the demo model's guesses that lead by 0.6 or more, one material in seven is wrong."""
CONFIDENCE_CAP = 0.6
"""No local analysis claims more: softmax margins over a fixed vocabulary are no calibrated probabilities."""

_CAPTION_TRUST = 1.0
_NEARBY_TRUST = 0.8


@dataclass(frozen=True)
class LocalInput:
    """One image, measured and read; only the model's part is still to do."""

    pixels: Prepared
    palette: list[Color]
    grain: str
    lines: list[str]
    context: ImageContext


@dataclass(frozen=True)
class _Finding:
    value: str
    source: str
    trust: float


class LocalAnalyzer:
    """Implements `protocol.VisionAnalyzer` on this machine.

    Colours and grain are measured, material, pattern, finish and style are told by zero-shot classification with
    the encoder's two towers, text is read by OCR, sizes and ratings are taken from that text and from the
    document's text. What the caption says beats what the model guesses; `extra` says where each came from.

    Args:
        encoder: both towers; its space is part of the model's name.
        decode: an image file's bytes to an RGB picture; raises ImageRejected. Called from several threads.
        vocabulary: the values to tell apart; None: those that come with the package.
        ocr: whether text in the picture is read (most of the time that an image takes).
        temperature: of the softmax; see `zero_shot.TEMPERATURE`.
        min_margin: see `MIN_MARGIN`.
    """

    def __init__(
        self,
        encoder: Encoder,
        decode: Callable[[bytes], Image],
        *,
        vocabulary: Vocabulary | None = None,
        ocr: bool = True,
        temperature: float = TEMPERATURE,
        min_margin: float = MIN_MARGIN,
    ) -> None:
        self._encoder = encoder
        self._decode = decode
        self._vocabulary = vocabulary or load_vocabulary()
        self._classifier = ZeroShotClassifier(encoder, self._vocabulary, temperature)
        self._ocr = ocr
        self._min_margin = min_margin

    @property
    def provider(self) -> str:
        """ "local"."""
        return PROVIDER

    @property
    def model(self) -> str:
        """Version and embedding space: "local-1/<space id>", with "/no-ocr" where OCR is off. Loads the model."""
        return f"{LOCAL_VERSION}/{self._encoder.space.space_id}{'' if self._ocr else '/no-ocr'}"

    def prepare(self, data: bytes, context: ImageContext) -> LocalInput:
        """Decodes, measures and reads one image. Safe to call from several threads; OCR takes its turn.

        Raises:
            ImageRejected: the bytes can't be decoded.
            ModelUnavailable: the encoder or the text reader can't be had.
        """
        image = self._decode(data)
        return LocalInput(
            pixels=self._encoder.prepare(data),
            palette=palette_of(image),
            grain=grain_of(image),
            lines=read_text(image) if self._ocr else [],
            context=context,
        )

    def analyze(self, batch: Sequence[Any]) -> Sequence[VisionAnalysis | Exception]:
        """Analyses, one for each input and in their order; AnalysisRejected where too little was found.

        Raises:
            What the encoder raises: it concerns the whole batch.
        """
        inputs: list[LocalInput] = list(batch)
        if not inputs:
            return []
        vectors = self._encoder.encode_images([one.pixels for one in inputs])
        results: list[VisionAnalysis | Exception] = []
        for one, guesses in zip(inputs, self._classifier.classify(vectors), strict=True):
            try:
                results.append(self._analysis(one, guesses).require_descriptive())
            except EmbeddingAssetsError as error:
                results.append(error)
        return results

    def _analysis(self, one: LocalInput, guesses: dict[str, Guess]) -> VisionAnalysis:
        caption, nearby = one.context.caption or "", one.context.nearby_text or ""
        seen = "\n".join(one.lines)
        texts = [seen, caption, nearby]
        found = {
            name: finding
            for name in ATTRIBUTES
            if (finding := self._finding(name, guesses[name], caption, f"{seen}\n{nearby}")) is not None
        }
        specifications = read_specifications(texts)
        matchers = self._vocabulary.matchers
        looks = matchers["material"].looks("\n".join(texts))
        material = found.get("material")
        fields: dict[str, Any] = {
            "material_type": material and material.value,
            "material_subtype": f"{looks[0]} look" if len(looks) == 1 and material else None,
            "category": self._category(texts, material),
            "colors": [color.name for color in one.palette],
            "primary_color_hex": one.palette[0].hex,
            "textures": [one.grain],
            "pattern": found["pattern"].value if "pattern" in found else None,
            "finish": found["finish"].value if "finish" in found else None,
            "design_style": found["style"].value if "style" in found else None,
            "applications": matchers["application"].named("\n".join(texts)),
            "dimensions": ", ".join(specifications.sizes) or None,
            "physical_properties": specifications.properties,
            "detected_text": one.lines,
            "confidence": round(CONFIDENCE_CAP * sum(f.trust for f in found.values()) / len(ATTRIBUTES), 3),
            "extra": {
                **{f"{name}_source": finding.source for name, finding in found.items()},
                "guesses": {
                    name: {
                        "value": guess.value,
                        "probability": round(guess.probability, 3),
                        "margin": round(guess.margin, 3),
                    }
                    for name, guess in guesses.items()
                },
                "palette": [{"hex": c.hex, "name": c.name, "share": c.share} for c in one.palette],
            },
        }
        return VisionAnalysis(**fields, description=describe(fields))

    def _finding(self, name: str, guess: Guess, caption: str, nearby: str) -> _Finding | None:
        """The caption's word, else a strong guess, else the nearby text's word, else a guess above the margin.

        A text that names several values says nothing: it may speak of other products. Nearby text names a style
        only as "modern style" or "modern look": "modern" alone stands in any running text.
        """
        matcher = self._vocabulary.matchers[name]
        named = matcher.named(caption)
        if len(named) == 1:
            return _Finding(named[0], "text", _CAPTION_TRUST)
        if guess.margin < STRONG_MARGIN:
            named = matcher.looks(nearby) if name == "style" else matcher.named(nearby)
            if len(named) == 1:
                return _Finding(named[0], "text", _NEARBY_TRUST)
        if guess.margin >= self._min_margin:
            return _Finding(guess.value, "image", guess.margin)
        return None

    def _category(self, texts: Sequence[str], material: _Finding | None) -> str | None:
        for text in texts:
            named = self._vocabulary.matchers["category"].named(text)
            if len(named) == 1:
                return named[0]
        if material is None:
            return None
        return self._vocabulary.attributes["material"].values[material.value].category or None
