"""The partitions: one for each document; its key is the document key, `workspace_id/document_id`."""

from collections.abc import Iterable

import dagster as dg

from embedding_assets.keys import DocumentKey

documents = dg.DynamicPartitionsDefinition(name="documents")

CHUNK = 10_000
"""Partitions added in one call: Dagster's storage writes them in one statement."""


def register_partitions(instance: dg.DagsterInstance, keys: Iterable[DocumentKey]) -> int:
    """Adds the partitions that are not there yet, in order; returns how many were added."""
    known = set(instance.get_dynamic_partitions(documents.name or ""))
    new = [name for name in dict.fromkeys(map(str, keys)) if name not in known]
    for start in range(0, len(new), CHUNK):
        instance.add_dynamic_partitions(documents.name or "", new[start : start + CHUNK])
    return len(new)
