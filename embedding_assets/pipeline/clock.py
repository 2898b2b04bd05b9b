"""Time, as something that can be passed in: tests check exact waits without waiting."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """What the pipeline asks of time."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never goes back."""

    def now(self) -> datetime:
        """The time of day, with its zone."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
