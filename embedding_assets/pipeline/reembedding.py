"""Having a document embedded again although nothing changed."""

from __future__ import annotations

from embedding_assets.keys import DocumentKey
from embedding_assets.store.analyses import forget_analyses
from embedding_assets.store.database import Database
from embedding_assets.store.failures import release_for_retry
from embedding_assets.store.spaces import active_collection
from embedding_assets.store.stages import STAGE_COLLECTIONS, VISION
from embedding_assets.store.vectors import forget_vectors


def forget_stage(database: Database, key: DocumentKey, stage: str) -> int:
    """Drops a document's vectors of a stage with their flags, in one transaction, so that all is due again.

    Images left out there and permanent failures are due again too. Until the stage has run, the document's images
    are missing from its coverage, and from search by these vectors. Analyses are kept until new ones replace them.

    Returns:
        How many images lost a flag.
    """
    with database.transaction() as connection:
        collections = [
            collection
            for name in STAGE_COLLECTIONS[stage]
            if (collection := active_collection(connection, name)) is not None
        ]
        if stage == VISION:
            forgotten = forget_analyses(connection, key)
        else:
            forgotten = forget_vectors(connection, key, collections, stage=stage)
        release_for_retry(connection, key, stage)
    return forgotten
