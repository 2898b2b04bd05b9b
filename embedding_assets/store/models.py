"""The tables, as SQLAlchemy models. Migrations are written from them and tested to agree with them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FLAGS = {
    "image_slig_embeddings": "has_slig_embedding",
    "image_color_embeddings": "has_color_slig",
    "image_texture_embeddings": "has_texture_slig",
    "image_style_embeddings": "has_style_slig",
    "image_material_embeddings": "has_material_slig",
    "image_understanding_embeddings": "has_understanding_embedding",
    "image_text_embeddings": "has_text_embedding",
}
"""Logical collection name -> flag on document_images that says whether the image has a vector in it."""

SLIG_FLAGS = (
    "has_slig_embedding",
    "has_color_slig",
    "has_texture_slig",
    "has_style_slig",
    "has_material_slig",
)
"""Flags of the vectors that come from one visual encoding of an image and are written together."""

ALL_SLIG = "has_all_slig"
"""Whether an image has all of `SLIG_FLAGS`, a column that Postgres derives from them: the flag of the SLIG stage. An
image embedded before there were aspects lacks it, and so is due again."""

INDEXED_FLAGS = (ALL_SLIG, "has_understanding_embedding", "has_text_embedding")
"""Flags with a partial index on what is missing: one for each encoding of an image or its texts. Every such index
makes every change of any flag dearer (7 instead of 3 cost a quarter of the bulk write's speed:
benchmarks/bulk_write.py)."""

CODES_OF_IMAGE = (
    "embedding_assets_codes((((((reference || ' '::text) || COALESCE(caption, ''::text)) || ' '::text) || "
    "COALESCE(nearby_text, ''::text)) || ' '::text) || COALESCE(vision_analysis::text, ''::text))"
)
"""Codes (sizes, ratings, article numbers) of an image, as SQL over its row; the function is migration 0003's."""


class Base(DeclarativeBase):
    """Base of all models; names of constraints are fixed so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _now() -> Mapped[datetime]:
    return mapped_column(DateTime(timezone=True), server_default=func.now(), nullable=False)


def _flag() -> Mapped[bool]:
    return mapped_column(Boolean, server_default=text("false"), nullable=False)


class Document(Base):
    """A document: its source, and the content that its image rows stand for."""

    __tablename__ = "documents"
    __table_args__ = (
        CheckConstraint("status IN ('registered', 'ingested', 'failed')", name="status"),
        Index("ix_documents_status", "status", "workspace_id", "document_id"),
    )

    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    document_id: Mapped[str] = mapped_column(Text, primary_key=True)
    source_kind: Mapped[str] = mapped_column(Text, comment="pdf, folder, image or posted")
    source_uri: Mapped[str | None] = mapped_column(Text, comment="where it was found; null for a posted list")
    posted_images: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB, comment="the list as posted")
    content_hash: Mapped[str | None] = mapped_column(
        Text, comment="hash of content and ingest options that the image rows stand for; null until ingested"
    )
    title: Mapped[str | None] = mapped_column(Text)
    page_count: Mapped[int | None] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(Text, server_default="registered")
    ingested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


class DocumentImage(Base):
    """An image of a document. Its id is derived from document key, content hash and occurrence."""

    __tablename__ = "document_images"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("status IN ('ready', 'skipped', 'rejected', 'pending')", name="status"),
        Index("ix_document_images_document", "workspace_id", "document_id", "image_index"),
        Index("ix_document_images_content", "workspace_id", "content_hash"),
        *(
            Index(
                f"ix_document_images_lacking_{flag.removeprefix('has_')}",
                "workspace_id",
                "document_id",
                "image_index",
                postgresql_where=text(f"status = 'ready' AND NOT {flag}"),
            )
            for flag in INDEXED_FLAGS
        ),
        Index(
            "ix_document_images_codes",
            "codes",
            postgresql_using="gin",
            postgresql_where=text("codes IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Text)
    document_id: Mapped[str] = mapped_column(Text)
    image_index: Mapped[int] = mapped_column(Integer, comment="position in the document, from 0")
    occurrence: Mapped[int] = mapped_column(Integer, comment="0 for the first image with these bytes, 1, ...")
    content_hash: Mapped[str] = mapped_column(Text, comment="SHA-256 of the image's bytes")
    status: Mapped[str] = mapped_column(
        Text, comment="ready, skipped, rejected, or pending (not fetched yet)"
    )
    status_reason: Mapped[str | None] = mapped_column(Text)
    reference: Mapped[str] = mapped_column(Text, comment="where it is in its source, for people")
    store_key: Mapped[str | None] = mapped_column(Text, comment="key in the image store")
    image_format: Mapped[str | None] = mapped_column(Text)
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    page_number: Mapped[int | None] = mapped_column(Integer, comment="from 1")
    position: Mapped[int | None] = mapped_column(Integer, comment="order on the page, from 0")
    bbox: Mapped[list[float] | None] = mapped_column(JSONB, comment="left, bottom, right, top in PDF points")
    caption: Mapped[str | None] = mapped_column(Text)
    nearby_text: Mapped[str | None] = mapped_column(Text)
    quality_score: Mapped[float | None] = mapped_column(Float)
    extra: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    vision_analysis: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    vision_provider: Mapped[str | None] = mapped_column(Text)
    vision_model: Mapped[str | None] = mapped_column(Text)
    vision_version: Mapped[str | None] = mapped_column(
        Text, comment="what an analysis must be of to count: provider, model and schema version"
    )
    vision_analyzed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    has_vision_analysis: Mapped[bool] = _flag()
    stage_skips: Mapped[dict[str, str]] = mapped_column(
        JSONB, server_default=text("'{}'::jsonb"), comment="stage -> why the image is left out there"
    )
    has_slig_embedding: Mapped[bool] = _flag()
    has_color_slig: Mapped[bool] = _flag()
    has_texture_slig: Mapped[bool] = _flag()
    has_style_slig: Mapped[bool] = _flag()
    has_material_slig: Mapped[bool] = _flag()
    has_understanding_embedding: Mapped[bool] = _flag()
    has_text_embedding: Mapped[bool] = _flag()
    has_all_slig: Mapped[bool] = mapped_column(Boolean, Computed(" AND ".join(SLIG_FLAGS), persisted=True))
    codes: Mapped[str | None] = mapped_column(
        TSVECTOR,
        Computed(CODES_OF_IMAGE, persisted=True),
        comment="sizes, ratings and article numbers in its texts; null: none",
    )
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


class EmbeddingFailure(Base):
    """Why an image or document is not done. At most one open record an image (or document) and stage."""

    __tablename__ = "embedding_failures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "error_class IN ('transient', 'throttled', 'too_large', 'permanent', 'fatal')", name="error_class"
        ),
        Index(
            "uq_embedding_failures_open",
            "workspace_id",
            "document_id",
            "stage",
            text("coalesce(image_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("ix_embedding_failures_image_id", "image_id"),
        Index(
            "ix_embedding_failures_due",
            "next_retry_at",
            postgresql_where=text("resolved_at IS NULL AND next_retry_at IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Text)
    document_id: Mapped[str] = mapped_column(Text)
    image_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("document_images.id", ondelete="CASCADE"), comment="null: the document itself failed"
    )
    stage: Mapped[str] = mapped_column(Text, comment="ingest, slig, ...")
    error_class: Mapped[str] = mapped_column(Text)
    error_type: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, comment="attempts in all, over all runs")
    first_seen_at: Mapped[datetime] = _now()
    last_seen_at: Mapped[datetime] = _now()
    next_retry_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="null: only when asked"
    )
    resolved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    run_id: Mapped[str | None] = mapped_column(Text, comment="the run that saw it last")


class EmbeddingSpaceRow(Base):
    """Which embedding spaces exist, in which physical vecs collection, and which one is active."""

    __tablename__ = "embedding_spaces"
    __table_args__ = (
        Index("uq_embedding_spaces_space", "logical_name", "space_id", unique=True),
        Index("uq_embedding_spaces_active", "logical_name", unique=True, postgresql_where=text("active")),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    logical_name: Mapped[str] = mapped_column(Text)
    space_id: Mapped[str] = mapped_column(Text)
    collection: Mapped[str] = mapped_column(Text, unique=True, comment="physical vecs collection")
    dimension: Mapped[int] = mapped_column(Integer)
    description: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="model, weights, preprocessing, ...")
    active: Mapped[bool] = mapped_column(Boolean)
    images_per_second: Mapped[float | None] = mapped_column(
        Float, comment="speed that runs measured; sizes Dagster steps"
    )
    projection: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        comment="what makes its vectors from visual ones: little-endian float32, rows x dimension",
    )
    created_at: Mapped[datetime] = _now()


class SearchCalibration(Base):
    """How high scores are in a collection: what fused search scales each arm's cosines by."""

    __tablename__ = "search_calibrations"

    collection: Mapped[str] = mapped_column(
        ForeignKey("embedding_spaces.collection", ondelete="CASCADE"), primary_key=True
    )
    query_kind: Mapped[str] = mapped_column(Text, primary_key=True, comment="text or image")
    low: Mapped[float] = mapped_column(Float, comment="mean cosine of a query and any image: scaled to 0")
    high: Mapped[float] = mapped_column(
        Float, comment="mean cosine of a query and its best image: scaled to 1"
    )
    queries: Mapped[int] = mapped_column(Integer, comment="queries that it was measured with")
    vectors: Mapped[int] = mapped_column(Integer, comment="vectors that it was measured on")
    rows: Mapped[int] = mapped_column(BigInteger, comment="vectors in the collection at that time")
    computed_at: Mapped[datetime] = _now()


class CoverageHistory(Base):
    """What coverage was at some moment, summed over a workspace's documents, for each stage."""

    __tablename__ = "coverage_history"
    __table_args__ = (Index("ix_coverage_history_taken_at", "taken_at"),)

    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    stage: Mapped[str] = mapped_column(Text, primary_key=True)
    taken_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), primary_key=True
    )
    documents: Mapped[int] = mapped_column(Integer)
    complete: Mapped[int] = mapped_column(Integer, comment="documents whose partition may be materialized")
    images: Mapped[int] = mapped_column(BigInteger)
    embedded: Mapped[int] = mapped_column(BigInteger)
    skipped: Mapped[int] = mapped_column(BigInteger)
    rejected: Mapped[int] = mapped_column(BigInteger)
    missing: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[dict[str, int]] = mapped_column(JSONB, comment="error class -> open failure records")


class DocumentStage(Base):
    """That a document was complete at a stage, and by which version of the stage's code and model."""

    __tablename__ = "document_stages"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            ondelete="CASCADE",
        ),
    )

    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    document_id: Mapped[str] = mapped_column(Text, primary_key=True)
    stage: Mapped[str] = mapped_column(Text, primary_key=True, comment="ingest, slig, ...")
    version: Mapped[str] = mapped_column(Text, comment="code version of the asset when it was materialized")
    done_at: Mapped[datetime] = _now()


class LandedDocument(Base):
    """What the landing folder was last seen to hold, so that only what has changed is read again.

    No foreign key to documents: a document lands before it has a row there.
    """

    __tablename__ = "landed_documents"

    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    document_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, comment="pdf, folder or image")
    uri: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text, comment="of its files' names, sizes and times")
    seen_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), comment="since when the fingerprint is what it is"
    )
    handled: Mapped[str | None] = mapped_column(
        Text, comment="fingerprint whose content was requested, or known already"
    )
    content_hash: Mapped[str | None] = mapped_column(Text, comment="hash of the content requested last")
    run_key: Mapped[str | None] = mapped_column(
        Text, comment="key of the run requested for it, until the run is known to exist"
    )
    missing_since: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="when it was first not found any more"
    )


class ApiKeyRow(Base):
    """A key of the API: its hash, and what it may do where."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role IN ('reader', 'writer', 'admin')", name="role"),)

    key_id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="SHA-256 of the secret part")
    role: Mapped[str] = mapped_column(Text)
    workspaces: Mapped[list[str]] = mapped_column(
        ARRAY(Text), comment="where it is good; * alone: everywhere"
    )
    created_at: Mapped[datetime] = _now()
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Job(Base):
    """Work that somebody asked for through the API, and how it is going."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="state"),
        CheckConstraint("mode IN ('run', 'inline')", name="mode"),
        Index("ix_jobs_created_at", "workspace_id", "created_at"),
    )

    workspace_id: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, comment="save_images, understanding, regenerate, ...")
    mode: Mapped[str] = mapped_column(Text, comment="run: by Dagster; inline: by the server itself")
    state: Mapped[str] = mapped_column(Text)
    request_hash: Mapped[str] = mapped_column(
        Text, comment="of what was asked for: the same again is no new job"
    )
    document_ids: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="the documents it works on; null: the whole workspace"
    )
    stages: Mapped[list[str]] = mapped_column(ARRAY(Text), comment="the stages it runs")
    counts: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="what was found to do when it was asked for"
    )
    result: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="what came of it; null until it ended"
    )
    error: Mapped[str | None] = mapped_column(Text)
    backfill_id: Mapped[str | None] = mapped_column(Text, comment="the Dagster backfill that carries it out")
    created_by: Mapped[str] = mapped_column(Text, comment="id of the key; empty where the server ran open")
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
