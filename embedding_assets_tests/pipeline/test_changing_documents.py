"""Whatever happens to a document's content, and in whatever order it is ingested and embedded."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.pipeline.reused_database import empty

contents = st.lists(st.integers(0, 5), min_size=1, max_size=8)
"""A folder's images: a seed for each file, in the order of their names."""


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["shop/a", "shop/b", "museum/a"]), contents, st.booleans()), max_size=6
    )
)
def test_rows_follow_the_content_and_flags_equal_vectors_at_every_moment(
    database: Database, tmp_path: Path, steps: list[tuple[str, list[int], bool]]
) -> None:
    empty(database)
    project = Project(database, tmp_path / uuid.uuid4().hex)
    current: dict[DocumentKey, list[int]] = {}
    embedded: dict[DocumentKey, set[uuid.UUID]] = {}
    for name, seeds, embed in steps:
        key = project.ingested(name, seeds)
        current[key] = seeds
        embedded[key] = embedded.get(key, set()) & set(project.ids(key))
        if embed:
            embedder = project.embedder(batch_size=3)
            embedder.run(key.workspace_id, embedder.pending(key))
            embedded[key] = set(project.ids(key))
        for other, wanted in current.items():
            assert project.ids(other) == _expected_ids(other, wanted)
            assert project.vectors(other).keys() == embedded[other]
        project.check_flags_equal_vectors()


def _expected_ids(key: DocumentKey, seeds: list[int]) -> list[uuid.UUID]:
    seen: Counter[int] = Counter()
    ids = []
    for seed in seeds:
        ids.append(image_id(key, hashlib.sha256(png(seed)).hexdigest(), seen[seed]))
        seen[seed] += 1
    return ids
