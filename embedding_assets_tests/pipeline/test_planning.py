"""How work is cut into steps, and how long retries wait."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.planning import MAX_STEP_IMAGES, batches_per_step, plan_steps
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.retry import next_retry, throttle_wait, wave_wait


@pytest.mark.parametrize(
    ("configured", "batch_size", "speed", "expected"),
    [
        (3, 20, 1000.0, 3),
        (0, 20, None, 5),
        (0, 20, 4.0, 1),
        (0, 20, 40.0, 10),
        (0, 20, 1e9, 500),
        (10_000, 20, None, 500),
        (0, 10_000, None, 1),
        (0, 20, 0.001, 1),
    ],
)
def test_a_step_takes_about_five_seconds_and_never_more_images_than_the_limit(
    configured: int, batch_size: int, speed: float | None, expected: int
) -> None:
    batches = batches_per_step(configured, batch_size, speed)
    assert batches == expected
    assert batches * batch_size <= MAX_STEP_IMAGES


@given(
    documents=st.lists(st.tuples(st.sampled_from(["shop", "museum"]), st.integers(0, 70)), max_size=12),
    batch_size=st.integers(1, 30),
    batches=st.integers(1, 4),
)
def test_every_image_is_planned_once_in_full_batches_of_its_own_workspace(
    documents: list[tuple[str, int]], batch_size: int, batches: int
) -> None:
    numbers = iter(range(10**6))
    pending = [
        (DocumentKey(workspace, f"doc{n}"), [uuid.UUID(int=next(numbers)) for _ in range(count)])
        for n, (workspace, count) in enumerate(documents)
    ]
    steps = plan_steps(pending, batch_size, batches)
    for workspace in ("shop", "museum"):
        wanted = [i for key, ids in pending if key.workspace_id == workspace for i in ids]
        own = [step for step in steps if step.workspace_id == workspace]
        assert [i for step in own for i in step.image_ids] == wanted
        assert all(len(step.image_ids) == batch_size * batches for step in own[:-1])
        assert all(0 < len(step.image_ids) <= batch_size * batches for step in own)


def test_waves_wait_2_4_8_seconds() -> None:
    assert [wave_wait(retry) for retry in (1, 2, 3, 4)] == [2, 4, 8, 16]
    with pytest.raises(ValueError, match="count from 1"):
        wave_wait(0)


def test_throttling_waits_as_told_or_backs_off_up_to_a_minute() -> None:
    assert throttle_wait(7.5, 3) == 7.5
    assert throttle_wait(0.0, 3) == 0
    assert throttle_wait(-1.0, 1) == 0
    assert [throttle_wait(None, times) for times in (1, 2, 5, 6, 1000)] == [2, 4, 32, 60, 60]


def test_an_image_whose_attempts_are_used_up_is_due_again_in_five_minutes() -> None:
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    assert next_retry(now) == now + timedelta(minutes=5)


def test_reports_of_steps_add_up() -> None:
    one = StageReport(embedded=3, calls=1, elapsed_s=2.0, wait_s=0.5)
    other = StageReport(embedded=4, calls=2, elapsed_s=3.0)
    total = StageReport.total([one.summary(), other.summary()])
    assert (total["embedded"], total["calls"], total["elapsed_s"], total["failed"]) == (7, 3, 5.0, 0)
    assert one.images_per_second == 2
    assert StageReport().images_per_second == 0
