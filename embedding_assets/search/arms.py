"""The seven arms of a search: each is one kind of vector, in a collection of its own."""

from __future__ import annotations

from embedding_assets.encoders.aspects import ASPECTS
from embedding_assets.store.spaces import ASPECT_COLLECTIONS, SLIG, TEXT, UNDERSTANDING

COLLECTION_OF_ARM = {
    "text": TEXT,
    "visual": SLIG,
    "understanding": UNDERSTANDING,
    **ASPECT_COLLECTIONS,
}
"""Arm -> logical name of its collection."""

ARMS = ("text", "visual", "understanding", *ASPECTS)
"""All arms, in the order in which answers list them."""

LOOKS_ARMS = ("visual", *ASPECTS)
"""Arms whose queries SLIG embeds, texts and images alike."""

TEXT_ARMS = ("text", "understanding")
"""Arms whose queries the text provider embeds: texts only, or the vectors of an image that is in the catalogue."""
