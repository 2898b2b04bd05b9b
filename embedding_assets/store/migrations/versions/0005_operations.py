"""what has landed, and which version of each stage a document is complete at

Revision: 0005, after 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "document_stages",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False, comment="ingest, slig, ..."),
        sa.Column(
            "version",
            sa.Text(),
            nullable=False,
            comment="code version of the asset when it was materialized",
        ),
        sa.Column("done_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.document_id"],
            name=op.f("fk_document_stages_workspace_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "document_id", "stage", name=op.f("pk_document_stages")),
    )
    op.create_table(
        "landed_documents",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="pdf, folder or image"),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="of its files' names, sizes and times"),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="since when the fingerprint is what it is",
        ),
        sa.Column(
            "handled",
            sa.Text(),
            nullable=True,
            comment="fingerprint whose content was requested, or known already",
        ),
        sa.Column("content_hash", sa.Text(), nullable=True, comment="hash of the content requested last"),
        sa.Column(
            "run_key",
            sa.Text(),
            nullable=True,
            comment="key of the run requested for it, until the run is known to exist",
        ),
        sa.Column(
            "missing_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it was first not found any more",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "document_id", name=op.f("pk_landed_documents")),
    )


def downgrade() -> None:
    op.drop_table("landed_documents")
    op.drop_table("document_stages")
