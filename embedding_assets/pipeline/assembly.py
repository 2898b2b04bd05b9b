"""Where settings become the objects that do the work; the one place that knows how they fit together."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from embedding_assets.analysis.local import LocalAnalyzer
from embedding_assets.analysis.protocol import VisionAnalyzer
from embedding_assets.analysis.qwen_provider import open_qwen
from embedding_assets.analysis.to_text import TEMPLATE_VERSION
from embedding_assets.encoders.aspects import aspect_method
from embedding_assets.encoders.slig import OpenClipEncoder
from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.encoders.text_provider import open_text_embedder
from embedding_assets.errors import SettingsError
from embedding_assets.ingest.decode import decode_rgb
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess
from embedding_assets.pipeline.discovery import LandingWatch
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.pipeline.texts import NEARBY_TEMPLATE, NearbyTextEmbedder, UnderstandingEmbedder
from embedding_assets.pipeline.vision import VisionAnalysisRunner
from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.database import Database

UNDERSTANDING_TEMPLATE = f"analysis-{TEMPLATE_VERSION}"
"""Version of the text made of an analysis; part of the space of understanding vectors."""

_ENCODERS: dict[tuple[object, ...], OpenClipEncoder] = {}
_LOCK = threading.Lock()


def _demo_model_path() -> Path:
    from embedding_assets.demo import demo_model_path

    return demo_model_path()


def open_encoder(settings: Settings) -> OpenClipEncoder:
    """The image and text encoder of these settings: one object a process. Loads no model yet."""
    identity = (
        settings.slig_model,
        settings.slig_pretrained,
        settings.slig_device,
        settings.slig_dtype,
        settings.max_image_pixels,
    )
    with _LOCK:
        if identity not in _ENCODERS:
            _ENCODERS[identity] = OpenClipEncoder.from_settings(
                settings,
                decode=partial(decode_rgb, max_pixels=settings.max_image_pixels),
                demo_model=_demo_model_path,
            )
        return _ENCODERS[identity]


def open_image_store(settings: Settings) -> ImageStore:
    """The store of image bytes."""
    return ImageStore(settings.image_store)


def open_ingestor(settings: Settings, database: Database) -> DocumentIngestor:
    """What turns documents into image rows."""
    return DocumentIngestor(
        database,
        open_image_store(settings),
        landing_root=settings.landing,
        limits=IngestLimits.from_settings(settings),
        access=PostedAccess.from_settings(settings),
        max_retries=settings.max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
    )


def open_landing_watch(settings: Settings, database: Database) -> LandingWatch:
    """What finds new and changed documents in the landing folder."""
    return LandingWatch(
        database,
        settings.landing,
        IngestLimits.from_settings(settings),
        settle_s=settings.landing_settle_s,
        limit=settings.documents_per_tick,
    )


def open_slig_embedder(
    settings: Settings,
    database: Database,
    image_store: ImageStore,
    *,
    batch_size: int | None = None,
    max_retries: int | None = None,
) -> SligEmbedder:
    """What turns image rows into visual vectors; None takes the setting."""
    return SligEmbedder(
        database,
        image_store,
        open_encoder(settings),
        aspect_method=aspect_method(settings.aspect_method),
        batch_size=settings.batch_size if batch_size is None else batch_size,
        max_retries=settings.max_retries if max_retries is None else max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
        decode_threads=settings.decode_threads,
    )


_ANALYZERS: dict[str, VisionAnalyzer] = {}
_TEXT_EMBEDDERS: dict[str, TextEmbedder] = {}


def open_analyzer(settings: Settings) -> VisionAnalyzer:
    """The vision analyser of these settings: one object a process.

    Raises:
        SettingsError: vision analysis is off.
    """
    if settings.vision_provider == "off":
        raise SettingsError(
            "vision_provider is off, so images are not analysed",
            hint=f"set {PREFIX}VISION_PROVIDER to local or qwen",
        )
    identity = settings.model_dump_json(exclude={"log_level"})
    encoder = open_encoder(settings)
    with _LOCK:
        if identity not in _ANALYZERS:
            decode = partial(decode_rgb, max_pixels=settings.max_image_pixels)
            if settings.vision_provider == "qwen":
                _ANALYZERS[identity] = open_qwen(settings, decode)
            else:
                _ANALYZERS[identity] = LocalAnalyzer(encoder, decode, ocr=settings.vision_ocr)
        return _ANALYZERS[identity]


def open_text_provider(settings: Settings, template: str) -> TextEmbedder:
    """The text embedder of these settings for a version of a text template: one object a process."""
    identity = f"{template} {settings.model_dump_json(exclude={'log_level'})}"
    with _LOCK:
        if identity not in _TEXT_EMBEDDERS:
            _TEXT_EMBEDDERS[identity] = open_text_embedder(settings, template)
        return _TEXT_EMBEDDERS[identity]


def open_vision_runner(
    settings: Settings,
    database: Database,
    image_store: ImageStore,
    *,
    batch_size: int | None = None,
    max_retries: int | None = None,
) -> VisionAnalysisRunner:
    """What analyses stored images; None takes the setting."""
    return VisionAnalysisRunner(
        database,
        image_store,
        open_analyzer(settings),
        batch_size=settings.batch_size if batch_size is None else batch_size,
        max_retries=settings.max_retries if max_retries is None else max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
        threads=settings.decode_threads,
    )


def open_understanding_embedder(
    settings: Settings, database: Database, *, batch_size: int | None = None, max_retries: int | None = None
) -> UnderstandingEmbedder:
    """What turns analyses into understanding vectors; None takes the setting."""
    return UnderstandingEmbedder(
        database,
        open_text_provider(settings, UNDERSTANDING_TEMPLATE),
        batch_size=settings.text_batch_size if batch_size is None else batch_size,
        max_retries=settings.max_retries if max_retries is None else max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
    )


def open_nearby_text_embedder(
    settings: Settings, database: Database, *, batch_size: int | None = None, max_retries: int | None = None
) -> NearbyTextEmbedder:
    """What turns captions and nearby texts into vectors; None takes the setting."""
    return NearbyTextEmbedder(
        database,
        open_text_provider(settings, NEARBY_TEMPLATE),
        batch_size=settings.text_batch_size if batch_size is None else batch_size,
        max_retries=settings.max_retries if max_retries is None else max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
    )
