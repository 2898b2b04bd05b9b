"""documents, images, failures and embedding spaces

Revision: 0001, after
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("source_kind", sa.Text(), nullable=False, comment="pdf, folder, image or posted"),
        sa.Column(
            "source_uri", sa.Text(), nullable=True, comment="where it was found; null for a posted list"
        ),
        sa.Column(
            "posted_images",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="the list as posted",
        ),
        sa.Column(
            "content_hash",
            sa.Text(),
            nullable=True,
            comment="hash of content and ingest options that the image rows stand for; null until ingested",
        ),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("page_count", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), server_default="registered", nullable=False),
        sa.Column("ingested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('registered', 'ingested', 'failed')", name=op.f("ck_documents_status")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "document_id", name=op.f("pk_documents")),
    )
    op.create_index(
        "ix_documents_status", "documents", ["status", "workspace_id", "document_id"], unique=False
    )
    op.create_table(
        "embedding_spaces",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("logical_name", sa.Text(), nullable=False),
        sa.Column("space_id", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False, comment="physical vecs collection"),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column(
            "description",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="model, weights, preprocessing, ...",
        ),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "images_per_second",
            sa.Float(),
            nullable=True,
            comment="speed that runs measured; sizes Dagster steps",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_spaces")),
        sa.UniqueConstraint("collection", name=op.f("uq_embedding_spaces_collection")),
    )
    op.create_index(
        "uq_embedding_spaces_active",
        "embedding_spaces",
        ["logical_name"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "uq_embedding_spaces_space", "embedding_spaces", ["logical_name", "space_id"], unique=True
    )
    op.create_table(
        "document_images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("image_index", sa.Integer(), nullable=False, comment="position in the document, from 0"),
        sa.Column(
            "occurrence",
            sa.Integer(),
            nullable=False,
            comment="0 for the first image with these bytes, 1, ...",
        ),
        sa.Column("content_hash", sa.Text(), nullable=False, comment="SHA-256 of the image's bytes"),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="ready, skipped, rejected, or pending (not fetched yet)",
        ),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=False, comment="where it is in its source, for people"),
        sa.Column("store_key", sa.Text(), nullable=True, comment="key in the image store"),
        sa.Column("image_format", sa.Text(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("byte_size", sa.BigInteger(), nullable=True),
        sa.Column("page_number", sa.Integer(), nullable=True, comment="from 1"),
        sa.Column("position", sa.Integer(), nullable=True, comment="order on the page, from 0"),
        sa.Column(
            "bbox",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="left, bottom, right, top in PDF points",
        ),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("nearby_text", sa.Text(), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("vision_analysis", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("vision_provider", sa.Text(), nullable=True),
        sa.Column("vision_model", sa.Text(), nullable=True),
        sa.Column("has_slig_embedding", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_color_slig", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_texture_slig", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_style_slig", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_material_slig", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "has_understanding_embedding", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("has_text_embedding", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('ready', 'skipped', 'rejected', 'pending')", name=op.f("ck_document_images_status")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            name=op.f("fk_document_images_workspace_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document_images")),
    )
    op.create_index(
        "ix_document_images_content", "document_images", ["workspace_id", "content_hash"], unique=False
    )
    op.create_index(
        "ix_document_images_document",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
    )
    op.create_index(
        "ix_document_images_lacking_slig_embedding",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
        postgresql_where=sa.text("status = 'ready' AND NOT has_slig_embedding"),
    )
    op.create_index(
        "ix_document_images_lacking_text_embedding",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
        postgresql_where=sa.text("status = 'ready' AND NOT has_text_embedding"),
    )
    op.create_index(
        "ix_document_images_lacking_understanding_embedding",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
        postgresql_where=sa.text("status = 'ready' AND NOT has_understanding_embedding"),
    )
    op.create_table(
        "embedding_failures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=True, comment="null: the document itself failed"),
        sa.Column("stage", sa.Text(), nullable=False, comment="ingest, slig, ..."),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="attempts in all, over all runs"),
        sa.Column(
            "first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "next_retry_at", sa.DateTime(timezone=True), nullable=True, comment="null: only when asked"
        ),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True, comment="the run that saw it last"),
        sa.CheckConstraint(
            "error_class IN ('transient', 'throttled', 'too_large', 'permanent', 'fatal')",
            name=op.f("ck_embedding_failures_error_class"),
        ),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["document_images.id"],
            name=op.f("fk_embedding_failures_image_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            name=op.f("fk_embedding_failures_workspace_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_failures")),
    )
    op.create_index(
        "ix_embedding_failures_due",
        "embedding_failures",
        ["next_retry_at"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NULL AND next_retry_at IS NOT NULL"),
    )
    op.create_index("ix_embedding_failures_image_id", "embedding_failures", ["image_id"], unique=False)
    op.create_index(
        "uq_embedding_failures_open",
        "embedding_failures",
        [
            "workspace_id",
            "document_id",
            "stage",
            sa.literal_column("coalesce(image_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
        ],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_embedding_failures_open",
        table_name="embedding_failures",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_index("ix_embedding_failures_image_id", table_name="embedding_failures")
    op.drop_index(
        "ix_embedding_failures_due",
        table_name="embedding_failures",
        postgresql_where=sa.text("resolved_at IS NULL AND next_retry_at IS NOT NULL"),
    )
    op.drop_table("embedding_failures")
    op.drop_index(
        "ix_document_images_lacking_understanding_embedding",
        table_name="document_images",
        postgresql_where=sa.text("status = 'ready' AND NOT has_understanding_embedding"),
    )
    op.drop_index(
        "ix_document_images_lacking_text_embedding",
        table_name="document_images",
        postgresql_where=sa.text("status = 'ready' AND NOT has_text_embedding"),
    )
    op.drop_index(
        "ix_document_images_lacking_slig_embedding",
        table_name="document_images",
        postgresql_where=sa.text("status = 'ready' AND NOT has_slig_embedding"),
    )
    op.drop_index("ix_document_images_document", table_name="document_images")
    op.drop_index("ix_document_images_content", table_name="document_images")
    op.drop_table("document_images")
    op.drop_index("uq_embedding_spaces_space", table_name="embedding_spaces")
    op.drop_index(
        "uq_embedding_spaces_active", table_name="embedding_spaces", postgresql_where=sa.text("active")
    )
    op.drop_table("embedding_spaces")
    op.drop_index("ix_documents_status", table_name="documents")
    op.drop_table("documents")
