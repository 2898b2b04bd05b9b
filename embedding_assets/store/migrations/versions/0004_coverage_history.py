"""coverage over time

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "coverage_history",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column(
            "complete", sa.Integer(), nullable=False, comment="documents whose partition may be materialized"
        ),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("embedded", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column(
            "failures",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="error class -> open failure records",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "stage", "taken_at", name=op.f("pk_coverage_history")),
    )
    op.create_index("ix_coverage_history_taken_at", "coverage_history", ["taken_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_coverage_history_taken_at", table_name="coverage_history")
    op.drop_table("coverage_history")
