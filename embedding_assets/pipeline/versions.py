"""The version of what each stage makes, told from settings alone: nothing is loaded, nothing asked of a network.

It is the `code_version` of the stage's asset: where it differs from that of a partition's last materialization, the
Dagster UI marks the partition as stale, and `embedding-assets backfill --stale` finds it. It names the same
things as the embedding space (model, weights, template) or the analysis version, in words; the space itself, which
only the loaded model knows, is in each materialization's metadata.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from embedding_assets.analysis.local import LOCAL_VERSION
from embedding_assets.analysis.schema import SCHEMA_VERSION
from embedding_assets.encoders.aspects import ASPECTS, aspect_method
from embedding_assets.encoders.wordllama_text import CONFIG as WORDLLAMA_CONFIG
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.pipeline.assembly import UNDERSTANDING_TEMPLATE
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.pipeline.texts import NEARBY_TEMPLATE
from embedding_assets.settings import Settings
from embedding_assets.store.stages import SLIG, TEXT, UNDERSTANDING, VISION

_EDGE = 65_536
"""Bytes read at each end of a weights file: enough to tell two models apart, however large they are."""


def code_version_of(stage: str, settings: Settings) -> str:
    """The version of what a stage makes under these settings, as a short text.

    Args:
        stage: `ingest`, or a name of `store.stages`.

    Raises:
        ValueError: no such stage.
    """
    if stage == INGEST:
        return _ingest(settings)
    if stage == SLIG:
        return f"{_model(settings)}, {_aspects(settings)}"
    if stage == VISION:
        return f"{_analyzer(settings)}, schema {SCHEMA_VERSION}"
    if stage == UNDERSTANDING:
        return f"{_text_provider(settings)}, template {UNDERSTANDING_TEMPLATE}"
    if stage == TEXT:
        return f"{_text_provider(settings)}, template {NEARBY_TEMPLATE}"
    raise ValueError(f"there is no stage {stage!r}")


def index_version(settings: Settings) -> str:
    """The version of the vector indexes that these settings ask for: what kind of index, and from how many rows on.

    What a build may use of the server (memory, processes) is left out: it decides how long a build takes, not its
    result.
    """
    numbers = "16-bit" if settings.index_halfvec else "32-bit"
    return (
        f"HNSW cosine, {numbers}, m {settings.index_m}, ef_construction {settings.index_ef_construction}, "
        f"from {settings.index_min_rows} rows on"
    )


def _ingest(settings: Settings) -> str:
    limits = IngestLimits.from_settings(settings)
    pages = "" if limits.pdf_images == "embedded" else f" at {limits.pdf_render_dpi} dpi"
    return f"{limits.fingerprint}, PDF images: {limits.pdf_images}{pages}"


def _model(settings: Settings) -> str:
    model = settings.slig_model
    if model.startswith("local-dir:"):
        return f"local-dir {_folder_digest(Path(model.removeprefix('local-dir:')).expanduser())}"
    if model.startswith("hf-hub:") or model == "demo":
        return model
    return f"{model} {settings.slig_pretrained}"


def _aspects(settings: Settings) -> str:
    """The method that makes the aspects' vectors, and a digest of all that their maps come from."""
    method = aspect_method(settings.aspect_method)
    identities = "\n".join(f"{aspect}: {method.identity(aspect)}" for aspect in ASPECTS)
    return f"aspects by {method.name} {hashlib.sha256(identities.encode()).hexdigest()[:12]}"


def _folder_digest(folder: Path) -> str:
    """Tells one folder of weights from another by the files' names, sizes and edges; not by where it lies."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in {".json", ".safetensors", ".bin", ".pt"}:
            continue
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_EDGE)
            file.seek(max(0, size - _EDGE))
            digest.update(f"{path.name} {size}\n".encode() + head + file.read(_EDGE))
    return digest.hexdigest()[:16]


def _analyzer(settings: Settings) -> str:
    if settings.vision_provider == "qwen":
        return f"qwen {settings.qwen_model}"
    if settings.vision_provider == "off":
        return "off"
    return f"{LOCAL_VERSION}{'' if settings.vision_ocr else ' without OCR'}, {_model(settings)}"


def _text_provider(settings: Settings) -> str:
    if settings.text_provider == "voyage":
        return f"voyage {settings.voyage_model}, {settings.voyage_dimension}-D"
    return f"wordllama {version('wordllama')} {WORDLLAMA_CONFIG}"
