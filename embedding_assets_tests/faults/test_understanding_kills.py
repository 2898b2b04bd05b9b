"""A run that analyses and embeds 500 images is killed half-way: providers are paid for one batch more at most."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import UNDERSTANDING
from embedding_assets_tests.faults.processes import Worker, wait_until
from embedding_assets_tests.faults.understand_worker import (
    IMAGE_BATCH,
    TEXT_BATCH,
    UnderstandTask,
    understand,
)
from embedding_assets_tests.pipeline.project import Project
from embedding_assets_tests.providers.stubs import ANALYSIS, ChatStub, VoyageStub, image_of

pytestmark = pytest.mark.slow

IMAGES = 500
EMBED_REQUESTS = IMAGES // TEXT_BATCH


@pytest.fixture
def chat() -> Iterator[ChatStub]:
    with ChatStub() as stub:
        stub.content = lambda body: json.dumps(
            {**ANALYSIS, "description": f"Tile number {len(stub.requests)}, beige and matte."}
        )
        yield stub


@pytest.fixture
def voyage() -> Iterator[VoyageStub]:
    with VoyageStub(latency_s=0.02) as stub:
        yield stub


def check_flags_equal_vectors(project: Project) -> int:
    """Every flag has its vector and every vector its flag; how many."""
    with project.database.transaction() as connection:
        flagged = set(
            connection.execute(text(f"SELECT id FROM document_images WHERE {FLAGS[UNDERSTANDING]}")).scalars()
        )
    assert project.vectors(collection=UNDERSTANDING).keys() == flagged
    return len(flagged)


@pytest.mark.parametrize(
    ("analysed", "embedded"), [(IMAGES // 2 + 7, 0), (IMAGES, EMBED_REQUESTS // 2)], ids=["analysis", "text"]
)
def test_a_kill_half_way_costs_at_most_one_batch_of_provider_calls(
    project: Project, chat: ChatStub, voyage: VoyageStub, analysed: int, embedded: int
) -> None:
    key = project.ingested("shop/doc", range(IMAGES))
    task = UnderstandTask(project.database.url, project.folder, key, chat.url, voyage.url)
    with Worker(understand, task) as worker:
        worker.begin()
        wait_until(
            lambda: len(chat.requests) >= analysed and len(voyage.requests) >= embedded,
            f"{analysed} images are analysed and {embedded} requests for vectors made",
            worker.process.is_alive,
        )
        assert worker.process.is_alive()
        worker.kill()
    done = check_flags_equal_vectors(project)
    assert done == 0 if not embedded else 0 < done < IMAGES
    with project.database.transaction() as connection:
        saved = connection.execute(
            text("SELECT count(*) FROM document_images WHERE has_vision_analysis")
        ).scalar_one()
    assert saved == IMAGES if embedded else 0 < saved < IMAGES

    with Worker(understand, task) as worker:
        worker.begin()
        vision, understanding = worker.report()
    assert (vision["embedded"], understanding["embedded"]) == (IMAGES - saved, IMAGES - done)
    assert check_flags_equal_vectors(project) == IMAGES
    assert project.vectors(collection=UNDERSTANDING).keys() == set(project.ids(key))
    assert project.failures(key) == []
    # A clean pass makes one chat request an image, and one request for the vectors of a full batch of texts.
    # The kill may have cut a request off while it was being sent: it counts as a call, but holds no image.
    whole = [request for request in chat.requests if request.body.get("messages")]
    assert len({image_of(request) for request in whole}) == IMAGES
    assert IMAGES <= len(chat.requests) <= IMAGES + IMAGE_BATCH
    assert EMBED_REQUESTS <= len(voyage.requests) <= EMBED_REQUESTS + 1
    if embedded:
        assert len(chat.requests) == IMAGES
    with Worker(understand, task) as worker:
        worker.begin()
        assert [report["calls"] for report in worker.report()] == [0, 0]
