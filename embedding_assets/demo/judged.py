"""The judged set on a database: which image is which product, and so which images answer which query.

The rest of the judged set is in `judged_catalogue` (what is drawn), `judged_queries` (what is asked) and `closeness`
(what is accepted). Building the database is the pipeline's work: `cli.judged.build_judged_catalogue`.
"""

import uuid
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, text

from embedding_assets.demo.judged_catalogue import JudgedItem, judged_items
from embedding_assets.demo.judged_queries import JudgedQuery

WORKSPACE = "judged"


def match_images(connection: Connection, workspace_id: str = WORKSPACE) -> dict[uuid.UUID, JudgedItem]:
    """Find the image row of every product by document, page and position on the page.

    Raises:
        ValueError: a product has no image that is ready, or the workspace has images that are no product's.
    """
    places = {(item.document, item.page, item.position): item for item in judged_items()}
    rows = connection.execute(
        text(
            "SELECT id, document_id, page_number, position + 1 AS position, status FROM document_images "
            "WHERE workspace_id = :workspace"
        ),
        {"workspace": workspace_id},
    ).all()
    found = {
        row.id: places.get((row.document_id, row.page_number, row.position))
        for row in rows
        if row.status == "ready"
    }
    matched = {image_id: item for image_id, item in found.items() if item is not None}
    if not len(rows) == len(matched) == len(places):
        raise ValueError(
            f"expected workspace {workspace_id!r} to hold the {len(places)} images of the judged catalogue, "
            f"got {len(rows)} images of which {len(matched)} are products of it: build it again"
        )
    return matched


def judgements(
    queries: Iterable[JudgedQuery], images: Mapping[uuid.UUID, JudgedItem]
) -> dict[str, dict[uuid.UUID, int]]:
    """Return the relevant images of each query: query id -> image id -> grade, 1 to 3.

    Args:
        queries: the judged queries.
        images: what `match_images` found.
    """
    by_sku = {item.spec.sku: image_id for image_id, item in images.items()}
    return {
        query.query_id: {by_sku[sku]: grade for sku, grade in query.grades().items()} for query in queries
    }
