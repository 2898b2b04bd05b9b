"""The case that the project exists for: 256 images, of which only 132 (51.6 %) get through on a first try.

Every valid image ends embedded, after waits of exactly 2, 4, 8 s; what can't be embedded is listed with the
reason. Faults are injected in both places where they happen: reading an image, and the encoder.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from embedding_assets.errors import ImageRejected, PermanentError, TransientError
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.service import ImageEmbeddingService
from embedding_assets.pipeline.slig import FLAG
from embedding_assets_tests.pipeline.project import Project, png

IMAGES = 256
FIRST_TRY = 132
"""51.6 % of 256: the images that meet no fault at all."""
TRUNCATED, CORRUPT, POISON = (17, 101), (30, 155, 199), (60, 222)
"""Permanently bad, 7 of 256: files cut short, files that changed in the image store, what the encoder refuses."""
KEY = DocumentKey("shop", "nova")


def make_service(project: Project) -> ImageEmbeddingService:
    return ImageEmbeddingService(
        project.ingestor(),
        lambda batch_size, max_retries: project.embedder(batch_size, max_retries),
        workspace_id="shop",
    )


class FaultyStore(ImageStore):
    """An image store whose reads fail as scripted."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.faults: dict[str, list[Exception]] = {}

    def get(self, key: str) -> bytes:
        waiting = self.faults.get(key.rpartition("/")[2].partition(".")[0])
        if waiting:
            raise waiting.pop(0)
        return super().get(key)


@dataclass
class Nova:
    project: Project
    service: ImageEmbeddingService
    material_images: list[dict[str, Any]]
    faulty: set[int] = field(default_factory=set)

    def save(self, **options: Any) -> dict[str, Any]:
        return self.service.save_images_and_generate_clips(self.material_images, "nova", "shop", **options)


@pytest.fixture
def nova(project: Project) -> Nova:
    """The document, with its faults injected."""
    store = FaultyStore(project.image_store.root)
    project.image_store = store
    files = {f"{n:04d}.png": png(n) for n in range(IMAGES)}
    for n in TRUNCATED:
        files[f"{n:04d}.png"] = files[f"{n:04d}.png"][:-60]
    project.land("shop/files", files)
    permanent = {*TRUNCATED, *CORRUPT, *POISON}
    chance = random.Random(516)
    faulty = set(chance.sample(sorted(set(range(IMAGES)) - permanent), IMAGES - FIRST_TRY - len(permanent)))
    for n in sorted(faulty):
        content = hashlib.sha256(png(n)).hexdigest()
        times = chance.randint(1, 3)
        in_read = chance.randint(0, times)
        store.faults[content] = [TransientError("Network timeout") for _ in range(in_read)]
        project.encoder.encode_faults[content] = [TransientError("503") for _ in range(times - in_read)]
    for n in CORRUPT:
        content = hashlib.sha256(png(n)).hexdigest()
        store.faults[content] = [PermanentError("its bytes do not have the SHA-256 in its name")] * 9
    for n in POISON:
        project.encoder.poison[hashlib.sha256(png(n)).hexdigest()] = ImageRejected("no such colour space")
    images = [{"path": f"files/{n:04d}.png", "page_number": n // 4 + 1} for n in range(IMAGES)]
    return Nova(project, make_service(project), images, faulty)


def test_every_valid_image_ends_embedded_and_the_others_are_listed(nova: Nova) -> None:
    assert len(nova.faulty) + FIRST_TRY + 7 == IMAGES
    assert 7 / IMAGES <= 0.05
    result = nova.save()
    bad = sorted((*TRUNCATED, *CORRUPT, *POISON))
    assert result["images_saved"] == IMAGES
    assert result["clip_embeddings_generated"] == IMAGES - 7
    assert result["skipped_images"] == 0
    assert result["coverage"] == pytest.approx((IMAGES - 7) / IMAGES)
    assert result["coverage"] >= 0.95
    assert [failed["index"] for failed in result["failed_images"]] == bad
    for failed in result["failed_images"]:
        assert failed["path"] == f"files/{failed['index']:04d}.png"
        assert failed["page_number"] == failed["index"] // 4 + 1
        assert failed["error"]
        assert failed["error_class"] == "permanent"
        assert failed["stage"] == ("ingest" if failed["index"] in TRUNCATED else "slig")
        # a poison image shares waves with batch-mates that fail for a passing reason, before it is found
        assert 1 <= failed["attempts"] <= 4
    project = nova.project
    lacking = [row.image_index for row in project.rows(KEY) if not getattr(row, FLAG)]
    assert lacking == bad
    assert set(project.clock.sleeps) <= {2, 4, 8}
    project.check_flags_equal_vectors()


def test_the_failing_images_of_a_batch_wait_together_2_4_8_seconds(nova: Nova) -> None:
    nova.save()
    sleeps = nova.project.clock.sleeps
    batches: list[list[float]] = []
    for wait in sleeps:  # each batch's waits start with 2 again
        batches.append([wait]) if wait == 2 else batches[-1].append(wait)
    assert all(waits == [2, 4, 8][: len(waits)] for waits in batches)
    assert [2, 4, 8] in batches
    assert len(batches) <= 13  # 254 images in batches of 20


def test_calling_again_does_nothing(nova: Nova) -> None:
    first = nova.save()
    project = nova.project
    rows, calls, sleeps = project.rows(KEY), len(project.encoder.calls), len(project.clock.sleeps)
    tried = project.encoder.tried.total()
    second = nova.save()
    assert second["images_saved"] == second["clip_embeddings_generated"] == 0
    assert second["failed_images"] == first["failed_images"]
    assert second["coverage"] == first["coverage"]
    assert (len(project.encoder.calls), project.encoder.tried.total()) == (calls, tried)
    assert len(project.clock.sleeps) == sleeps
    assert project.rows(KEY) == rows


def test_a_call_after_a_crash_does_the_rest(nova: Nova) -> None:
    class Crash(BaseException):
        pass

    def crash(contents: list[str]) -> None:
        if len(nova.project.encoder.calls) == 6:
            raise Crash

    nova.project.encoder.before_encode = crash
    with pytest.raises(Crash):
        nova.save()
    done = len(nova.project.vectors(KEY))
    assert 0 < done < IMAGES - 7
    assert nova.service._get_embedding_checkpoint("nova") == done
    nova.project.encoder.before_encode = lambda contents: None
    result = nova.save()
    assert (result["images_saved"], result["clip_embeddings_generated"]) == (0, IMAGES - 7 - done)
    again = nova.project.encoder.encoded.total() - (IMAGES - 7)
    assert 0 <= again <= 20  # of the batch that was under way
    nova.project.check_flags_equal_vectors()


@pytest.mark.parametrize("times", [4, 100])
def test_an_image_that_fails_more_often_than_it_is_tried_is_listed_and_due_again(
    project: Project, times: int
) -> None:
    project.land_images("shop/files", range(5))
    project.encoder.prepare_faults[hashlib.sha256(png(3)).hexdigest()] = [
        TransientError("Network timeout")
    ] * times
    images = [{"path": f"files/{n:04d}.png", "page_number": 9} for n in range(5)]
    service = make_service(project)
    result = service.save_images_and_generate_clips(images, "nova", "shop")
    (failed,) = result["failed_images"]
    assert (failed["index"], failed["path"], failed["page_number"]) == (3, "files/0003.png", 9)
    assert failed["error"] == "Network timeout after 3 retries"
    assert (failed["error_class"], failed["attempts"]) == ("transient", 4)
    assert project.clock.sleeps == [2, 4, 8]
    result = service.save_images_and_generate_clips(images, "nova", "shop")
    assert result["clip_embeddings_generated"] == (1 if times == 4 else 0)
    assert len(result["failed_images"]) == (0 if times == 4 else 1)


def test_batch_size_and_max_retries_are_the_callers(project: Project) -> None:
    project.land_images("shop/files", range(7))
    project.encoder.prepare_faults[hashlib.sha256(png(3)).hexdigest()] = [TransientError("x")] * 100
    images = [{"path": f"files/{n:04d}.png"} for n in range(7)]
    result = make_service(project).save_images_and_generate_clips(
        images, "nova", "shop", batch_size=3, max_retries=1
    )
    assert result["clip_embeddings_generated"] == 6
    assert max(len(call) for call in project.encoder.calls) == 3
    assert project.clock.sleeps == [2]


def test_small_images_are_counted_and_not_held_against_coverage(project: Project) -> None:
    project.land("shop/files", {"a.png": png(1), "b.png": png(2, side=16)})
    result = make_service(project).save_images_and_generate_clips(
        [{"path": "files/a.png"}, {"path": "files/b.png"}], "nova", "shop"
    )
    assert set(result) == {
        "images_saved",
        "clip_embeddings_generated",
        "failed_images",
        "skipped_images",
        "coverage",
        "understanding_embeddings_generated",
    }
    assert (result["images_saved"], result["skipped_images"], result["coverage"]) == (2, 1, 1.0)
    assert result["failed_images"] == []


def test_the_checkpoint_is_a_count_of_the_services_workspace(project: Project) -> None:
    key = project.ingested("shop/doc", range(3))
    service = make_service(project)
    assert service._get_embedding_checkpoint("doc") is None
    assert service._get_embedding_checkpoint("unknown") is None
    project.embedder().run("shop", project.ids(key)[:2])
    assert service._get_embedding_checkpoint("doc") == 2
    service.workspace_id = "museum"
    assert service._get_embedding_checkpoint("doc") is None


Outcome = tuple[bool, bool, str | None]


@pytest.mark.parametrize(
    ("prepare", "expected", "waits"),
    [
        (lambda project: None, (True, True, None), []),
        (
            lambda project: project.encoder.prepare_faults.update(
                {hashlib.sha256(png(1)).hexdigest(): [TransientError("reset")] * 3}
            ),
            (True, True, None),
            [2, 4, 8],
        ),
        (
            lambda project: project.encoder.prepare_faults.update(
                {hashlib.sha256(png(1)).hexdigest(): [TransientError("reset")] * 4}
            ),
            (True, False, "reset after 3 retries"),
            [2, 4, 8],
        ),
        (
            lambda project: project.encoder.poison.update(
                {hashlib.sha256(png(1)).hexdigest(): PermanentError("poison")}
            ),
            (True, False, "poison"),
            [],
        ),
    ],
)
def test_one_image_is_saved_and_embedded_with_retries(
    project: Project, prepare: Callable[[Project], None], expected: Outcome, waits: list[float]
) -> None:
    project.land_images("shop/files", [1])
    prepare(project)
    service = make_service(project)
    outcome = service._process_single_image_with_retry({"path": "files/0000.png"}, "nova", "shop")
    assert outcome == expected
    assert project.clock.sleeps == waits
    assert len(project.rows(KEY)) == 1


def test_one_image_again_is_still_embedded_and_encoded_once(project: Project) -> None:
    project.land_images("shop/files", [1, 2])
    service = make_service(project)
    for _ in range(2):
        for name in ("files/0000.png", "files/0001.png"):
            assert service._process_single_image_with_retry({"path": name}, "nova", "shop") == (
                True,
                True,
                None,
            )
    assert project.encoder.encoded.total() == 2
    assert len(project.vectors(KEY)) == 2


def test_one_image_that_failed_for_good_before_says_so(project: Project) -> None:
    project.land_images("shop/files", [1])
    content = hashlib.sha256(png(1)).hexdigest()
    project.encoder.poison[content] = PermanentError("poison")
    service = make_service(project)
    service._process_single_image_with_retry({"path": "files/0000.png"}, "nova", "shop")
    saved, embedded, reason = service._process_single_image_with_retry(
        {"path": "files/0000.png"}, "nova", "shop"
    )
    assert (saved, embedded) == (True, False)
    assert reason is not None
    assert "earlier run (poison)" in reason


def test_one_image_that_cannot_be_used_is_not_saved_and_says_why(project: Project) -> None:
    project.land("shop/files", {"a.png": png(1)[:-60], "b.png": png(1, side=16)})
    service = make_service(project)
    for name in ("files/a.png", "files/b.png", "files/missing.png"):
        saved, embedded, reason = service._process_single_image_with_retry({"path": name}, "nova", "shop")
        assert (saved, embedded) == (False, False)
        assert reason
