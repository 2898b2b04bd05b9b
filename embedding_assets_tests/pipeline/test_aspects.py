"""The aspects' vectors: written with the visual one or not at all, derived where only that one is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy import text

from embedding_assets.encoders.aspects import ASPECTS, BlendMethod, SubspaceMethod
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import FatalError, ModelUnavailable, SpaceMismatch
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.store.models import FLAGS, SLIG_FLAGS
from embedding_assets.store.spaces import ASPECT_COLLECTIONS, active_collections
from embedding_assets_tests.pipeline.fake_encoder import FakeEncoder
from embedding_assets_tests.pipeline.project import Project


def aspects_are_those_of_the_visual_vectors(project: Project) -> bool:
    """Whether each image has all five vectors or none, flags alike, and the aspects are projections."""
    with project.database.transaction() as connection:
        collections = active_collections(connection)
        flags = connection.execute(
            text(f"SELECT id, has_all_slig, {', '.join(SLIG_FLAGS)} FROM document_images")
        ).all()
    visual = project.vectors()
    for row in flags:
        assert len(set(row[1:])) == 1, row
    assert {row.id for row in flags if row.has_all_slig} == visual.keys()
    for name in ASPECT_COLLECTIONS.values():
        made = project.vectors(collection=name)
        assert made.keys() == visual.keys()
        basis = collections[name].projection
        assert basis is not None
        for image_id, vector in visual.items():
            expected = basis.T @ (basis @ vector)
            np.testing.assert_allclose(made[image_id], expected / np.linalg.norm(expected), atol=1e-5)
    return True


def test_one_encoding_gives_five_vectors(project: Project) -> None:
    key = project.ingested("shop/doc", [*range(5), 3])
    report = project.embedder(batch_size=2).run("shop", project.ids(key))
    assert (report.embedded, report.encoded, report.copied) == (6, 5, 1)
    assert aspects_are_those_of_the_visual_vectors(project)


def test_images_embedded_before_there_were_aspects_get_them_without_being_encoded(project: Project) -> None:
    key = project.ingested("shop/doc", range(5))
    embedder = project.embedder()
    embedder.run("shop", project.ids(key))
    with project.database.transaction() as connection:
        flags = [FLAGS[name] for name in ASPECT_COLLECTIONS.values()]
        connection.execute(
            text(
                f"UPDATE document_images SET {', '.join(f'{f} = false' for f in flags)} WHERE image_index < 3"
            )
        )
        for name in ASPECT_COLLECTIONS.values():
            connection.execute(
                text(
                    f"DELETE FROM vecs.{name} WHERE id IN (SELECT id::text FROM document_images WHERE image_index < 3)"
                )
            )
    project.encoder.calls.clear()
    assert project.embedder().pending(key) == []
    assert project.encoder.calls == []
    assert aspects_are_those_of_the_visual_vectors(project)


def test_another_aspect_method_is_refused_before_anything_is_written(project: Project) -> None:
    key = project.ingested("shop/doc", [1])
    project.embedder().preflight()
    other = SligEmbedder(project.database, project.image_store, project.encoder, aspect_method=BlendMethod())
    with pytest.raises(SpaceMismatch, match="image_color_embeddings"):
        other.run("shop", project.ids(key))
    assert project.vectors(key) == {}


class NoTokenizer(FakeEncoder):
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        raise ModelUnavailable("the tokenizer can't be loaded from /models", hint="add its files")


def test_a_model_without_a_tokenizer_is_refused_with_what_to_do(project: Project) -> None:
    project.encoder = NoTokenizer()
    with pytest.raises(
        FatalError, match="words of the aspect color can't be embedded: the tokenizer"
    ) as caught:
        project.embedder().preflight()
    assert caught.value.hint == "add its files"


class OtherMachine(SubspaceMethod):
    """Fits what another processor might: the same directions, with other signs."""

    def fit(self, encoder: FakeEncoder, aspect: str) -> Vectors:  # type: ignore[override]
        return -super().fit(encoder, aspect)


def test_processes_that_fit_at_once_use_the_projection_that_was_stored(project: Project) -> None:
    gate = threading.Barrier(2)
    opened = []

    def open_with(method: SubspaceMethod) -> None:
        embedder = SligEmbedder(project.database, project.image_store, project.encoder, aspect_method=method)
        gate.wait()
        opened.append(embedder.aspects)

    threads = [threading.Thread(target=open_with, args=(m,)) for m in (SubspaceMethod(), OtherMachine())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for aspect in ASPECTS:
        first, second = (collections[aspect] for collections in opened)
        assert first == second
        assert first.projection is not None
        assert second.projection is not None
        assert (first.projection == second.projection).all()
