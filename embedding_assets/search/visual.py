"""The visual arm: images of one workspace, ranked by their SLIG vectors."""

from __future__ import annotations

from embedding_assets.encoders.protocol import Encoder, Vectors
from embedding_assets.errors import PermanentError
from embedding_assets.search.hits import MAX_TOP_K, Hit, checked_query, describe_hits
from embedding_assets.store.database import Database
from embedding_assets.store.spaces import SLIG, active_collection, check_space
from embedding_assets.store.vectors import nearest


class VisualSearch:
    """Searches by text or image. Queries are embedded in the space that they search.

    Args:
        database: where the vectors are.
        encoder: the model that made them; checked against the active space at each query.
    """

    def __init__(self, database: Database, encoder: Encoder) -> None:
        self.database = database
        self.encoder = encoder

    def by_text(self, workspace_id: str, text: str, top_k: int = 10) -> list[Hit]:
        """Images that look like what the text says.

        Args:
            text: 1 to 2,000 characters.
            top_k: how many, 1 to 200.

        Raises:
            PermanentError: the text is empty or too long, or top_k is out of range.
            SpaceMismatch: the vectors are of another model.
        """
        query = checked_query(text)
        return self._nearest(workspace_id, self.encoder.encode_texts([query])[0], top_k)

    def by_image(self, workspace_id: str, data: bytes, top_k: int = 10) -> list[Hit]:
        """Images that look like this one.

        Args:
            data: bytes of an image file.
            top_k: how many, 1 to 200.

        Raises:
            ImageRejected: the bytes can't be decoded.
            SpaceMismatch: the vectors are of another model.
        """
        return self._nearest(workspace_id, self.encoder.encode_images([self.encoder.prepare(data)])[0], top_k)

    def _nearest(self, workspace_id: str, query: Vectors, top_k: int) -> list[Hit]:
        if not 1 <= top_k <= MAX_TOP_K:
            raise PermanentError(f"top_k is {top_k}; expected 1 to {MAX_TOP_K}")
        with self.database.transaction() as connection:
            collection = active_collection(connection, SLIG)
            if collection is None:
                return []
            check_space(collection, self.encoder.space)
            found = nearest(connection, workspace_id, collection, query, top_k)
            return describe_hits(connection, workspace_id, found)
