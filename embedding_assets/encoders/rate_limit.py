"""Requests and tokens a minute of one provider account, shared by everything in the process that calls it.

A provider's quota holds for an account, not for a batch: batches that run side by side, text and image requests
alike, draw on one `RateBudget` (see `shared_budget`). It counts what was released in the last minute and lets
the next request go at the first moment at which the quota has room for it.

Why a sliding window and not a token bucket: a bucket that refills at the full rate lets up to twice the quota
through in the first minute (its content, and what flows in meanwhile), and one that can't do so has to refill
more slowly than the quota allows for ever. The window never lets more than the quota through in any minute,
the first one included, and no rule of that kind drains a queue faster.

What belongs here: when a request may go. What does not: what to do when the provider refuses all the same (it
says so in an error; the batch core waits).
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from embedding_assets.errors import ThrottledError

MINUTE = 60.0
SLACK = 0.02
"""Part of the window added to it: a request reaches the provider a little after its release, and not always
equally late, so two requests released a minute apart can arrive less than a minute apart. Costs 2 % throughput."""


class BudgetClock(Protocol):
    """What a budget asks of time."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never goes back."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Waits on a held condition until it is notified, or for `seconds`."""


class SystemBudgetClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        condition.wait(seconds)


@dataclass
class _Spent:
    """One released request (or several, released together)."""

    at: float
    requests: int
    tokens: int


class Reservation:
    """Room that was taken from a budget. Tell it what the request really cost."""

    def __init__(self, budget: RateBudget, spent: _Spent) -> None:
        self._budget = budget
        self._spent = spent

    def settle(self, tokens: int) -> None:
        """Puts the true number of tokens (0 for a refused request) in place of the reserved one."""
        self._budget._settle(self._spent, max(0, tokens))


class RateBudget:
    """Lets requests go at the rate that a quota allows. Safe to use from many threads; first come, first served.

    Args:
        requests_per_minute: quota of requests; 0 for none.
        tokens_per_minute: quota of tokens; 0 for none.
        clock: time.
        window_s: what a minute is (seconds). Tests and benchmarks scale it down.
    """

    def __init__(
        self,
        requests_per_minute: int,
        tokens_per_minute: int = 0,
        clock: BudgetClock | None = None,
        *,
        window_s: float = MINUTE,
    ) -> None:
        self._clock = clock or SystemBudgetClock()
        self._window_s = window_s * (1 + SLACK)
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._log: deque[_Spent] = deque()
        self._paused_until = -math.inf
        self.requests_per_minute = 0
        self.tokens_per_minute = 0
        self.set_quota(requests_per_minute, tokens_per_minute)

    def set_quota(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        """Changes the quota; what was released before still counts."""
        if requests_per_minute < 0 or tokens_per_minute < 0:
            raise ValueError("a quota can't be negative; 0 means none")
        with self._condition:
            self.requests_per_minute = requests_per_minute
            self.tokens_per_minute = tokens_per_minute
            self._condition.notify_all()

    def acquire(self, requests: int = 1, tokens: int = 0) -> Reservation:
        """Waits until the quota has room, and takes it.

        A request that is larger than the whole quota goes alone, when nothing was released for a minute.

        Args:
            requests: how many requests are about to be sent.
            tokens: an estimate of their tokens; correct it with `Reservation.settle`.

        Raises:
            ThrottledError: the provider has asked for a pause that is not over; `retry_after` says how long it
                still lasts. It is raised instead of waited for, so that whoever counts waits (the batch core,
                against its limit) counts this one too.
        """
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                while True:
                    self._refuse_while_paused()
                    if self._queue[0] is not ticket:
                        self._clock.wait(self._condition, None)
                        continue
                    now = self._clock.monotonic()
                    free_at = self._free_at(now, requests, tokens)
                    if free_at <= now:
                        spent = _Spent(now, requests, tokens)
                        self._log.append(spent)
                        return Reservation(self, spent)
                    self._clock.wait(self._condition, free_at - now)
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()

    def pause(self, seconds: float) -> None:
        """Lets nothing go for some seconds: the provider has asked one caller to wait, and means all of them."""
        with self._condition:
            self._paused_until = max(self._paused_until, self._clock.monotonic() + max(0.0, seconds))
            self._condition.notify_all()

    def _settle(self, spent: _Spent, tokens: int) -> None:
        with self._condition:
            spent.tokens = tokens
            self._condition.notify_all()

    def _refuse_while_paused(self) -> None:
        left = self._paused_until - self._clock.monotonic()
        if left > 1e-6:  # less is what rounding leaves after a wait of exactly the pause
            raise ThrottledError(
                f"the provider asked for a pause that lasts {left:.1f} s more", retry_after=left
            )

    def _free_at(self, now: float, requests: int, tokens: int) -> float:
        """The first moment at which the quota has room, if nothing else happens until then."""
        while self._log and self._log[0].at + self._window_s <= now:
            self._log.popleft()
        over_requests = _excess(sum(s.requests for s in self._log), requests, self.requests_per_minute)
        over_tokens = _excess(sum(s.tokens for s in self._log), tokens, self.tokens_per_minute)
        free_at = now
        for spent in self._log:
            if over_requests <= 0 and over_tokens <= 0:
                break
            over_requests -= spent.requests
            over_tokens -= spent.tokens
            free_at = spent.at + self._window_s
        return free_at


def _excess(spent: int, wanted: int, quota: int) -> int:
    """How much has to leave the window before `wanted` fits; all of it, where it is more than the quota."""
    return spent + min(wanted, quota) - quota if quota else 0


_shared: dict[tuple[str, str], RateBudget] = {}
_shared_lock = threading.Lock()


def shared_budget(
    provider: str, account: str, requests_per_minute: int, tokens_per_minute: int = 0
) -> RateBudget:
    """The process's one budget of a provider's account.

    Args:
        provider: its name and address ("voyage https://...").
        account: what the quota hangs on: the API key. Only a hash of it is kept.
        requests_per_minute, tokens_per_minute: the quota; the latest call's figures hold.
    """
    key = (provider, hashlib.sha256(account.encode()).hexdigest()[:16])
    with _shared_lock:
        budget = _shared.get(key)
        if budget is None:
            budget = _shared[key] = RateBudget(requests_per_minute, tokens_per_minute)
        elif (budget.requests_per_minute, budget.tokens_per_minute) != (
            requests_per_minute,
            tokens_per_minute,
        ):
            budget.set_quota(requests_per_minute, tokens_per_minute)
    return budget
