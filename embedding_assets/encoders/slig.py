"""SLIG vectors from an open_clip model in this process.

SLIG is the SigLIP2 family served with L2-normalised vectors; any open_clip model with an image and a text
tower works the same way. `space` says which one it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedding_assets.encoders.device import Precision
from embedding_assets.encoders.device_errors import device_errors
from embedding_assets.encoders.loading import LoadedModel, ModelRequest, load_model
from embedding_assets.encoders.protocol import EmbeddingSpace, Prepared, Vectors
from embedding_assets.encoders.tokenizing import Tokenizer, load_tokenizer
from embedding_assets.errors import FatalError, ModelUnavailable, PermanentError, SettingsError
from embedding_assets.settings import DEMO_MODEL, Settings

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

DEMO_LABEL = "demo model (drawn swatches only)"
TEXTS_PER_CALL = 64
"""Texts in one forward pass: enough to fill a device, little memory beside a batch of images."""


class OpenClipEncoder:
    """Encodes images and texts with an open_clip model. Implements `protocol.Encoder`.

    The model is loaded when first needed, once per process for equal arguments, whichever thread comes first.

        encoder = OpenClipEncoder.from_settings(load_settings(), decode=decode, demo_model=demo_model_path)
        vectors = encoder.encode_images([encoder.prepare(data) for data in batch])
    """

    def __init__(
        self,
        model: str,
        pretrained: str = "",
        *,
        decode: Callable[[bytes], Image],
        device: str = "auto",
        dtype: str = "auto",
        hf_token: str | None = None,
        label: str = "",
    ) -> None:
        """Remembers what to load; loads nothing.

        Args:
            model: an open_clip name, `hf-hub:<organisation>/<name>` or `local-dir:<folder>`.
            pretrained: a tag of open_clip's or a weights file, for a name; "random" or "random:seed=<n>" for
                random weights, which nothing but this word gives.
            decode: stored bytes to an RGB picture, EXIF orientation applied; raises ImageRejected. Called
                from several threads.
            device: "auto", or a device as torch names it.
            dtype: "auto", "float32", "bfloat16" or "float16".
            hf_token: for gated repositories.
            label: the space's name for people, if another than the model's.
        """
        self._request = ModelRequest(model, pretrained, device, dtype)
        self._decode = decode
        self._hf_token = hf_token
        self._label = label
        self._model: LoadedModel | None = None
        self._tokenizer: Tokenizer | None = None
        self._tokenizer_lock = threading.Lock()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        decode: Callable[[bytes], Image],
        demo_model: Callable[[], Path] | None = None,
    ) -> OpenClipEncoder:
        """The encoder that the settings describe.

        Args:
            settings: slig_model, slig_pretrained, slig_device, slig_dtype and hf_token are read.
            decode: as for the class.
            demo_model: the demo model's folder; called only if slig_model is "demo".

        Raises:
            SettingsError: the demo model is asked for where there is none to be had.
            ModelUnavailable: the demo model's files are missing.
        """
        model, label = settings.slig_model, ""
        if model == DEMO_MODEL:
            if demo_model is None:
                raise SettingsError(
                    f"EMBEDDING_ASSETS_SLIG_MODEL={DEMO_MODEL}: the demo model is not offered here"
                )
            try:
                model, label = f"local-dir:{demo_model()}", DEMO_LABEL
            except FileNotFoundError as error:
                raise ModelUnavailable(f"EMBEDDING_ASSETS_SLIG_MODEL={DEMO_MODEL}: {error}") from error
        token = settings.hf_token.get_secret_value() if settings.hf_token else None
        return cls(
            model,
            settings.slig_pretrained,
            decode=decode,
            device=settings.slig_device,
            dtype=settings.slig_dtype,
            hf_token=token or None,
            label=label,
        )

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors. Loads the model; raises ModelUnavailable, SettingsError."""
        space = self._loaded().space
        return replace(space, label=self._label) if self._label else space

    @property
    def dimension(self) -> int:
        """Numbers in a vector. Loads the model."""
        return self._loaded().dimension

    @property
    def precision(self) -> Precision:
        """Device and number format in use, and why. Loads the model."""
        return self._loaded().precision

    def load(self, *, tokenizer: bool = False) -> None:
        """Loads the model now, and the tokenizer if asked; otherwise both come when first needed."""
        self._loaded()
        if tokenizer:
            self._loaded_tokenizer()

    def prepare(self, data: bytes) -> Prepared:
        """Decodes and preprocesses one stored image. Safe to call from several threads at once.

        Returns:
            A tensor, uint8, shape (3, height, width) of the model's input.

        Raises:
            ImageRejected: the bytes can't be decoded (from `decode`).
        """
        return self._loaded().preprocessing.prepare(self._decode(data))

    def encode_images(self, batch: Sequence[Prepared]) -> Vectors:
        """Vectors of prepared images: float32, shape (len(batch), dimension), rows of unit length.

        Raises:
            TooLargeError: the batch does not fit into memory.
            InfrastructureError: the device failed.
            PermanentError: the model gave no usable vector for an image of the batch.
            FatalError: the vectors have another dimension than the space.
        """
        model = self._loaded()
        if not batch:
            return np.empty((0, model.dimension), dtype=np.float32)
        import torch

        with device_errors(model.precision.device, len(batch), "images"), torch.inference_mode():
            pixels = model.preprocessing.batch(batch, model.device, model.dtype)
            features = model.network.encode_image(pixels).float().cpu().numpy()
        return unit_rows(features, model.dimension, "image")

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts: float32, shape (len(texts), dimension), rows of unit length.

        Texts longer than the model's context are cut at its end (64 tokens for SigLIP2).

        Raises:
            PermanentError: a text is empty; and as `encode_images`.
            ModelUnavailable: the tokenizer's files can't be had.
        """
        model = self._loaded()
        if not texts:
            return np.empty((0, model.dimension), dtype=np.float32)
        for index, text in enumerate(texts):
            if not text.strip():
                raise PermanentError(f"text {index} of {len(texts)} is empty: there is nothing to search for")
        tokenizer = self._loaded_tokenizer()
        import torch

        parts = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            part = list(texts[start : start + TEXTS_PER_CALL])
            with device_errors(model.precision.device, len(part), "texts"), torch.inference_mode():
                with self._tokenizer_lock:  # fast tokenizers refuse a second thread ("Already borrowed")
                    tokens = tokenizer(part)
                features = model.network.encode_text(tokens.to(model.device)).float().cpu().numpy()
            parts.append(unit_rows(features, model.dimension, "text"))
        return np.concatenate(parts)

    def _loaded(self) -> LoadedModel:
        if self._model is None:  # a race only asks twice: load_model answers both with the same model
            self._model = load_model(self._request, self._hf_token)
        return self._model

    def _loaded_tokenizer(self) -> Tokenizer:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self._loaded().source, self._hf_token)
            return self._tokenizer


def unit_rows(features: Vectors, dimension: int, what: str) -> Vectors:
    """Rows scaled to unit length (L2), checked.

    Args:
        features: float32, shape (n, dimension), as the model gave them.
        dimension: what the space says.
        what: "image" or "text", for messages.

    Raises:
        PermanentError: a row holds NaN or infinity, or is all zeros: no direction, so no embedding.
        FatalError: the shape is not (n, dimension).
    """
    if features.ndim != 2 or features.shape[1] != dimension:
        raise FatalError(
            f"the model gives {what} vectors of shape {features.shape}, expected (n, {dimension})"
        )
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    bad = [index for index, norm in enumerate(norms) if not (np.isfinite(norm) and norm > 0)]
    if bad:
        kinds = "non-finite numbers" if not np.isfinite(norms[bad]).all() else "zeros only"
        raise PermanentError(
            f"the model gives {kinds} for {what} {', '.join(map(str, bad[:5]))} of a batch of {len(features)}"
        )
    return np.ascontiguousarray(features / norms[:, None], dtype=np.float32)
