"""when and by what an image was analysed, and the stages that leave it out

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "document_images",
        sa.Column(
            "vision_version",
            sa.Text(),
            nullable=True,
            comment="what an analysis must be of to count: provider, model and schema version",
        ),
    )
    op.add_column(
        "document_images", sa.Column("vision_analyzed_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "document_images",
        sa.Column("has_vision_analysis", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "document_images",
        sa.Column(
            "stage_skips",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="stage -> why the image is left out there",
        ),
    )


def downgrade() -> None:
    op.drop_column("document_images", "stage_skips")
    op.drop_column("document_images", "has_vision_analysis")
    op.drop_column("document_images", "vision_analyzed_at")
    op.drop_column("document_images", "vision_version")
