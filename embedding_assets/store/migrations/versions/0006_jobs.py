"""jobs and keys of the API

Revision: 0006, after 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the secret part"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column(
            "workspaces",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="where it is good; * alone: everywhere",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('reader', 'writer', 'admin')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "jobs",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="save_images, understanding, regenerate, ..."),
        sa.Column("mode", sa.Text(), nullable=False, comment="run: by Dagster; inline: by the server itself"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "request_hash",
            sa.Text(),
            nullable=False,
            comment="of what was asked for: the same again is no new job",
        ),
        sa.Column(
            "document_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="the documents it works on; null: the whole workspace",
        ),
        sa.Column("stages", postgresql.ARRAY(sa.Text()), nullable=False, comment="the stages it runs"),
        sa.Column(
            "counts",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="what was found to do when it was asked for",
        ),
        sa.Column(
            "result",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="what came of it; null until it ended",
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "backfill_id", sa.Text(), nullable=True, comment="the Dagster backfill that carries it out"
        ),
        sa.Column(
            "created_by", sa.Text(), nullable=False, comment="id of the key; empty where the server ran open"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("mode IN ('run', 'inline')", name=op.f("ck_jobs_mode")),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_jobs_state")),
        sa.PrimaryKeyConstraint("workspace_id", "job_id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_created_at", "jobs", ["workspace_id", "created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_jobs_created_at", table_name="jobs")
    op.drop_table("jobs")
    op.drop_table("api_keys")
