"""aspect vectors, codes for keyword search, and calibrations of scores

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CODES_FUNCTION = r"""
CREATE FUNCTION embedding_assets_codes(words text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    SELECT array_to_tsvector(array_agg(DISTINCT code)) FROM (
        SELECT found[1] AS code FROM regexp_matches(
            -- 60x120cm, 60 x 120 cm, 60 cm by 120 cm are one size; 9 mm is 9mm; 9,0 is 9
            regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
                translate(lower(words), '×✕', 'xx'),
                '(\d),(\d)', '\1.\2', 'g'),
                '(\d)\.0+(?!\d)', '\1', 'g'),
                '(\d)\s*(?:mm|cm|m)?\s*(?:x|\mby\M)\s*(?=\d)', '\1x', 'g'),
                '(\d)\s+(mm|cm|m|kg)\M', '\1\2', 'g'),
                '(x\d+(?:\.\d+)?)(?:mm|cm|m)\M', '\1', 'g'),
            '([a-z0-9]+(?:[._-][a-z0-9]+)*)', 'g') AS found
    ) AS tokens
    WHERE code ~ '\d' AND (code ~ '[^\d]' OR length(code) BETWEEN 3 AND 64) AND length(code) <= 64
$function$
"""


def upgrade() -> None:
    op.add_column(
        "embedding_spaces",
        sa.Column(
            "projection",
            sa.LargeBinary(),
            nullable=True,
            comment="what makes its vectors from visual ones: little-endian float32, rows x dimension",
        ),
    )
    op.create_table(
        "search_calibrations",
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("query_kind", sa.Text(), nullable=False, comment="text or image"),
        sa.Column(
            "low", sa.Float(), nullable=False, comment="mean cosine of a query and any image: scaled to 0"
        ),
        sa.Column(
            "high",
            sa.Float(),
            nullable=False,
            comment="mean cosine of a query and its best image: scaled to 1",
        ),
        sa.Column("queries", sa.Integer(), nullable=False, comment="queries that it was measured with"),
        sa.Column("vectors", sa.Integer(), nullable=False, comment="vectors that it was measured on"),
        sa.Column("rows", sa.BigInteger(), nullable=False, comment="vectors in the collection at that time"),
        sa.Column("computed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection"],
            ["embedding_spaces.collection"],
            name=op.f("fk_search_calibrations_collection"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection", "query_kind", name=op.f("pk_search_calibrations")),
    )
    op.get_bind().exec_driver_sql(CODES_FUNCTION)  # as it is: no colon in it is a parameter
    op.drop_index(
        "ix_document_images_lacking_slig_embedding",
        table_name="document_images",
        postgresql_where=sa.text("status = 'ready' AND NOT has_slig_embedding"),
    )
    op.add_column(
        "document_images",
        sa.Column(
            "has_all_slig",
            sa.Boolean(),
            sa.Computed(
                "has_slig_embedding AND has_color_slig AND has_texture_slig AND has_style_slig AND has_material_slig",
                persisted=True,
            ),
            nullable=False,
        ),
    )
    op.add_column(
        "document_images",
        sa.Column(
            "codes",
            postgresql.TSVECTOR(),
            sa.Computed(
                "embedding_assets_codes((((((reference || ' '::text) || COALESCE(caption, ''::text)) || ' '::text) "
                "|| COALESCE(nearby_text, ''::text)) || ' '::text) || COALESCE(vision_analysis::text, ''::text))",
                persisted=True,
            ),
            nullable=True,
            comment="sizes, ratings and article numbers in its texts; null: none",
        ),
    )
    op.create_index(
        "ix_document_images_lacking_all_slig",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
        postgresql_where=sa.text("status = 'ready' AND NOT has_all_slig"),
    )
    op.create_index(
        "ix_document_images_codes",
        "document_images",
        ["codes"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("codes IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_document_images_codes", table_name="document_images")
    op.drop_index("ix_document_images_lacking_all_slig", table_name="document_images")
    op.drop_column("document_images", "codes")
    op.drop_column("document_images", "has_all_slig")
    op.create_index(
        "ix_document_images_lacking_slig_embedding",
        "document_images",
        ["workspace_id", "document_id", "image_index"],
        unique=False,
        postgresql_where=sa.text("status = 'ready' AND NOT has_slig_embedding"),
    )
    op.execute("DROP FUNCTION embedding_assets_codes(text)")
    op.drop_table("search_calibrations")
    op.drop_column("embedding_spaces", "projection")
