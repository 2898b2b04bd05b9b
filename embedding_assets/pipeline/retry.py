"""How long to wait before trying again.

Two things retry, and they never multiply: the batch core retries images (waves), and a Dagster op retries what
fails every image alike (`InfrastructureError`). Both wait 2, 4, 8 s.
"""

from __future__ import annotations

from datetime import datetime, timedelta

LATER = timedelta(minutes=5)
"""After an image's attempts in one run are used up: how long before another run should try it. Each further run
that fails doubles the wait, with a random part, up to 64 times as long (`store.failures`)."""

REQUESTED = timedelta(hours=1)
"""How long a requested retry is left alone: its run may wait in the queue, and then records what became of it."""

MAX_UNTOLD_WAIT = 60.0
"""Seconds: the longest wait between calls to a throttling provider that does not say how long to wait."""


def wave_wait(retry: int) -> float:
    """Seconds to wait before the `retry`-th retry (from 1): 2, 4, 8, ... = 2^retry."""
    if retry < 1:
        raise ValueError(f"retries count from 1, got {retry}")
    return float(2**retry)


def throttle_wait(told: float | None, times: int) -> float:
    """Seconds to wait for a throttling provider.

    Args:
        told: what the provider asked for; None where it did not say.
        times: how often in a row it has throttled this batch, from 1.

    Returns:
        What it asked for; else 2, 4, 8, ... up to 60.
    """
    if told is not None:
        return max(0.0, told)
    return min(MAX_UNTOLD_WAIT, wave_wait(min(times, 10)))


def next_retry(now: datetime) -> datetime:
    """When an image whose attempts are used up for a passing reason is due again."""
    return now + LATER
