"""A document of 256 images whose process is killed twenty times: nothing is lost, nothing doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from embedding_assets_tests.faults.processes import EmbedWorker, lines_of, wait_until
from embedding_assets_tests.pipeline.project import Project

IMAGES, BATCH, KILLS = 256, 20, 20

pytestmark = pytest.mark.slow


def kill_moments(chance: random.Random) -> list[tuple[int, float]]:
    """For each kill: after how many images encoded, and how many seconds later.

    Seven fall from the moment that a first batch is encoded (so, while it is being committed), five in the
    middle of a second batch, the others in the middle of the first. So at most 12 of the 13 batches are committed
    by the last kill: every kill finds work under way.
    """
    moments = []
    for number in range(KILLS):
        if number % 3 == 0:
            moments.append((chance.randint(1, BATCH - 1), chance.uniform(0, 0.002)))
        elif number % 3 == 1:
            moments.append((BATCH, chance.uniform(0, 0.03)))
        elif number < 15:
            moments.append((chance.randint(BATCH + 1, 2 * BATCH - 1), chance.uniform(0, 0.002)))
        else:
            moments.append((chance.randint(1, BATCH - 1), chance.uniform(0, 0.002)))
    return moments


def test_twenty_kills_lose_nothing_double_nothing_and_cost_at_most_a_batch_each(
    project: Project, tmp_path: Path
) -> None:
    key = project.ingested("shop/doc", range(IMAGES))
    project.embedder().open_collection()
    log = tmp_path / "encoded.log"
    progress = []
    for lines, delay in kill_moments(random.Random(20)):
        before = len(lines_of(log))
        # It stands still before it could commit a second batch, however late the kill comes.
        with EmbedWorker(project, key, log, pause_after=max(lines, BATCH)) as worker:
            worker.begin()
            wait_until(
                lambda goal=before + lines: len(lines_of(log)) >= goal,  # type: ignore[misc]
                f"{lines} images are encoded",
                worker.process.is_alive,
            )
            time.sleep(delay)
            assert worker.process.is_alive()
            worker.kill()
        project.check_flags_equal_vectors()
        progress.append(len(project.vectors(key)))
    assert progress == sorted(progress)
    assert progress[-1] < IMAGES
    assert len(set(progress)) > 5  # kills at different stages of the work

    with EmbedWorker(project, key, log) as worker:
        worker.begin()
        report = worker.report()
    assert report["embedded"] == IMAGES - progress[-1]
    assert project.vectors().keys() == set(project.ids(key))
    assert len(project.ids(key)) == IMAGES
    project.check_flags_equal_vectors()
    assert project.failures(key) == []
    encoded = lines_of(log)
    assert len(set(encoded)) == IMAGES
    assert len(encoded) - IMAGES <= KILLS * BATCH
    with EmbedWorker(project, key, log) as worker:
        worker.begin()
        assert worker.report()["encoded"] == 0
