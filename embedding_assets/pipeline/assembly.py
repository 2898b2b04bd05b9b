"""Where settings become the objects that do the work; the one place that knows how they fit together."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from embedding_assets.encoders.slig import OpenClipEncoder
from embedding_assets.ingest.decode import decode_rgb
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database

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
        batch_size=settings.batch_size if batch_size is None else batch_size,
        max_retries=settings.max_retries if max_retries is None else max_retries,
        max_throttle_wait_s=settings.max_throttle_wait_s,
        decode_threads=settings.decode_threads,
    )
