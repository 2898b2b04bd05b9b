"""The understanding arm: images of one workspace, ranked by what their analyses say."""

from __future__ import annotations

from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.errors import PermanentError
from embedding_assets.search.hits import MAX_TOP_K, Hit, checked_query, describe_hits
from embedding_assets.store.database import Database
from embedding_assets.store.spaces import UNDERSTANDING, active_collection, check_space
from embedding_assets.store.vectors import nearest


class MeaningSearch:
    """Searches understanding vectors by text. Queries are embedded in the space that they search.

    Args:
        database: where the vectors are.
        embedder: the text provider that made them, for the same template; checked against the active space.
    """

    def __init__(self, database: Database, embedder: TextEmbedder) -> None:
        self.database = database
        self.embedder = embedder

    def by_text(self, workspace_id: str, text: str, top_k: int = 10) -> list[Hit]:
        """Images whose analysis means what the text says.

        Args:
            text: 1 to 2,000 characters.
            top_k: how many, 1 to 200.

        Raises:
            PermanentError: the text is empty or too long, or top_k is out of range.
            SpaceMismatch: the vectors are of another provider.
        """
        query = checked_query(text)
        if not 1 <= top_k <= MAX_TOP_K:
            raise PermanentError(f"top_k is {top_k}; expected 1 to {MAX_TOP_K}")
        with self.database.transaction() as connection:
            collection = active_collection(connection, UNDERSTANDING)
        if collection is None:
            return []
        check_space(collection, self.embedder.space)
        vector = self.embedder.embed_queries([query])[0]
        with self.database.transaction() as connection:
            found = nearest(connection, workspace_id, collection, vector, top_k)
            return describe_hits(connection, workspace_id, found)
