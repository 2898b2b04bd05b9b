"""The budget: never over the quota in any minute, never much below it, in turn, without busy waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from embedding_assets.encoders import rate_limit
from embedding_assets.encoders.rate_limit import MINUTE, SLACK, RateBudget, shared_budget
from embedding_assets.errors import ThrottledError
from embedding_assets_tests.providers.clocks import FakeClock, SteppedClock


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.002)


def drain(budget: RateBudget, clock: FakeClock, sizes: list[int]) -> list[tuple[float, int]]:
    released = []
    for size in sizes:
        budget.acquire(1, size)
        released.append((clock.time, size))
    return released


def most_in_a_minute(released: list[tuple[float, int]]) -> tuple[int, int]:
    """Requests and tokens of the fullest minute (both ends included)."""
    windows = [[size for at, size in released if start <= at <= start + MINUTE] for start, _ in released]
    return max(map(len, windows)), max(map(sum, windows))


@examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=st.integers(1, 12),
    tokens=st.integers(50, 500),
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=80),
)
def test_no_minute_holds_more_than_the_quota_the_first_one_included(
    requests: int, tokens: int, sizes: list[int]
) -> None:
    clock = FakeClock()
    released = drain(RateBudget(requests, tokens, clock), clock, sizes)
    most_requests, most_tokens = most_in_a_minute(released)
    assert most_requests <= requests
    assert most_tokens <= tokens


@pytest.mark.parametrize(("requests", "tokens", "size"), [(60, 0, 100), (0, 60_000, 700), (60, 60_000, 1500)])
def test_a_long_queue_drains_within_a_tenth_of_the_quotas_bound(
    requests: int, tokens: int, size: int
) -> None:
    clock = FakeClock()
    count = 2000
    drain(RateBudget(requests, tokens, clock), clock, [size] * count)
    rates = [
        quota / cost for quota, cost in ((requests, 1), (tokens, size)) if quota
    ]  # requests of this size a minute
    bound = (count / min(rates) - 1) * MINUTE  # a full quota may go at once
    assert bound <= clock.time <= 1.1 * bound


def test_what_fits_goes_at_once_and_what_does_not_waits_exactly_for_its_room() -> None:
    clock = FakeClock()
    budget = RateBudget(3, 100, clock)
    budget.acquire(1, 60)
    clock.time = 10
    budget.acquire(1, 40)
    assert clock.waits == []
    budget.acquire(1, 1)
    window = MINUTE * (1 + SLACK)
    assert clock.waits == [window - 10]
    budget.acquire(1, 60)
    assert clock.time == pytest.approx(window + 10)


def test_one_wait_for_each_request_however_long_the_queue() -> None:
    clock = FakeClock()
    drain(RateBudget(5, 0, clock), clock, [0] * 500)
    assert len(clock.waits) <= 500 / 5


def test_an_answer_that_cost_less_makes_room_at_once() -> None:
    clock = FakeClock()
    budget = RateBudget(0, 100, clock)
    budget.acquire(1, 90).settle(20)
    budget.acquire(1, 80)
    assert clock.waits == []


def test_an_answer_that_cost_more_is_counted() -> None:
    clock = FakeClock()
    budget = RateBudget(0, 100, clock)
    budget.acquire(1, 10).settle(95)
    budget.acquire(1, 10)
    assert clock.waits == [MINUTE * (1 + SLACK)]


def test_a_request_larger_than_the_quota_goes_alone() -> None:
    clock = FakeClock()
    released = drain(RateBudget(0, 100, clock), clock, [10, 500, 10])
    assert [at for at, _ in released] == pytest.approx([0, 61.2, 122.4])


def test_zero_means_no_quota() -> None:
    clock = FakeClock()
    drain(RateBudget(0, 0, clock), clock, [10**9] * 1000)
    assert clock.waits == []


def test_a_negative_quota_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        RateBudget(-1)


def test_a_pause_holds_for_everyone_and_says_how_long_it_lasts() -> None:
    clock = FakeClock()
    budget = RateBudget(100, 0, clock)
    budget.pause(30)
    clock.time = 12
    with pytest.raises(ThrottledError) as caught:
        budget.acquire()
    assert caught.value.retry_after == 18
    clock.sleep(18)
    budget.acquire()


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    clock = FakeClock()
    budget = RateBudget(100, 0, clock)
    budget.pause(30)
    budget.pause(5)
    with pytest.raises(ThrottledError) as caught:
        budget.acquire()
    assert caught.value.retry_after == 30


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    clock = SteppedClock()
    budget = RateBudget(1, 0, clock)
    budget.acquire()
    order: list[int] = []

    def take(number: int) -> None:
        budget.acquire()
        order.append(number)

    threads = []
    for number in range(6):
        thread = threading.Thread(target=take, args=(number,), daemon=True)
        thread.start()
        threads.append(thread)
        eventually(lambda expected=number + 1: len(budget._queue) == expected)
    for served in range(1, 7):
        clock.advance(MINUTE * (1 + SLACK))
        eventually(lambda expected=served: len(order) == expected)
    assert order == list(range(6))
    for thread in threads:
        thread.join(5)


def test_a_small_request_does_not_overtake_a_large_one_that_waits() -> None:
    clock = SteppedClock()
    budget = RateBudget(0, 100, clock)
    budget.acquire(1, 60)
    done: list[str] = []
    for name, size in (("large", 90), ("small", 5)):
        thread = threading.Thread(
            target=lambda n=name, s=size: (budget.acquire(1, s), done.append(n)), daemon=True
        )
        thread.start()
        eventually(lambda n=name: len(budget._queue) == (1 if n == "large" else 2))
    assert done == []
    clock.advance(MINUTE * (1 + SLACK))
    eventually(lambda: sorted(done) == ["large", "small"])


def test_threads_that_wait_hear_of_a_pause() -> None:
    clock = SteppedClock()
    budget = RateBudget(1, 0, clock)
    budget.acquire()
    errors: list[ThrottledError] = []

    def take() -> None:
        try:
            budget.acquire()
        except ThrottledError as error:
            errors.append(error)

    threads = [threading.Thread(target=take, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(budget._queue) == 4)
    budget.pause(300)
    for thread in threads:
        thread.join(5)
    assert [error.retry_after for error in errors] == [300] * 4
    assert not budget._queue


def test_with_the_real_clock_and_many_threads_the_quota_holds_and_is_used() -> None:
    budget = RateBudget(20, 0, window_s=0.3)
    released: list[float] = []

    def work() -> None:
        for _ in range(15):
            released.append(budget.acquire()._spent.at)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(released) == 120
    log = sorted(released)
    gaps = [later - earlier for earlier, later in zip(log, log[20:], strict=False)]
    assert min(gaps) >= 0.3
    assert log[-1] - log[0] <= 10 * 0.3  # 5 windows and a little, on an idle machine


def test_a_provider_and_account_have_one_budget_and_the_key_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "_shared", {})
    first = shared_budget("voyage", "secret-key-1", 10, 100)
    assert shared_budget("voyage", "secret-key-1", 10, 100) is first
    assert shared_budget("voyage", "secret-key-2", 10, 100) is not first
    assert shared_budget("qwen", "secret-key-1", 10, 100) is not first
    shared_budget("voyage", "secret-key-1", 20, 200)
    assert (first.requests_per_minute, first.tokens_per_minute) == (20, 200)
    assert "secret-key" not in repr(rate_limit._shared)
