from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedding_assets.encoders import decode_ahead
from embedding_assets.encoders.decode_ahead import prepare_ahead, thread_count


def test_batches_come_in_order_with_their_items_in_order() -> None:
    batches = [[1, 2, 3], [4], [], [5, 6]]
    assert list(prepare_ahead(batches, lambda item: item * 10, threads=3)) == [
        [10, 20, 30],
        [40],
        [],
        [50, 60],
    ]


def test_an_item_that_fails_leaves_its_exception_in_its_place_and_its_neighbours_alone() -> None:
    def load(item: int) -> int:
        if item == 2:
            raise ValueError("broken")
        return item

    first, second = prepare_ahead([[1, 2, 3], [4]], load, threads=2)
    assert (first[0], first[2], second) == (1, 3, [4])
    assert isinstance(first[1], ValueError)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_no_more_batches_than_asked_for_are_loaded_ahead(ahead: int) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[int]]:
        for number in range(10):
            taken.append(number)
            yield [number, number]

    loading = prepare_ahead(batches(), lambda item: item, threads=2, ahead=ahead)
    for consumed in range(10):
        next(loading)
        assert len(taken) == min(10, consumed + 1 + ahead)


def test_items_are_loaded_while_the_consumer_works_on_an_earlier_batch() -> None:
    second_batch_loaded = threading.Event()

    def load(item: str) -> str:
        if item == "second":
            second_batch_loaded.set()
        return item

    loading = prepare_ahead([["first"], ["second"]], load, threads=1, ahead=1)
    assert next(loading) == ["first"]
    assert second_batch_loaded.wait(timeout=10)  # though nobody has asked for it yet
    loading.close()


def test_items_of_one_batch_are_loaded_by_several_threads_at_once() -> None:
    both_at_work = threading.Barrier(2, timeout=10)

    def load(item: int) -> int:
        both_at_work.wait()
        return item

    assert list(prepare_ahead([[1, 2]], load, threads=2)) == [[1, 2]]


def test_closing_cancels_what_has_not_started_and_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []
    release = threading.Event()
    second_batch_begun = threading.Event()

    class Pool(ThreadPoolExecutor):
        """Lets the load under way go on only once the others were cancelled."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            release.set()
            super().shutdown(wait=wait)

    def load(item: int) -> int:
        started.append(item)
        if item > 0:
            second_batch_begun.set()
            release.wait(timeout=10)
        return item

    monkeypatch.setattr(decode_ahead, "ThreadPoolExecutor", Pool)
    loading = prepare_ahead([[0], list(range(1, 50))], load, threads=1, ahead=1)
    assert next(loading) == [0]
    assert second_batch_begun.wait(timeout=10)
    loading.close()
    assert started == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_passes_through_and_the_threads_end(stop: type[BaseException]) -> None:
    def load(item: int) -> int:
        if item == 3:
            raise stop()
        return item

    loading = prepare_ahead([[1, 2], [3, 4], [5]], load, threads=2, ahead=1)
    assert next(loading) == [1, 2]
    with pytest.raises(stop):
        list(loading)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_source_that_breaks_is_reported_after_the_batches_before_it() -> None:
    def batches() -> Iterator[list[int]]:
        yield [1]
        yield [2]
        raise ConnectionError("database gone")

    loading = prepare_ahead(batches(), lambda item: item, threads=1, ahead=5)
    assert next(loading) == [1]
    assert next(loading) == [2]
    with pytest.raises(ConnectionError):
        next(loading)


def test_zero_threads_means_one_per_core_up_to_eight() -> None:
    assert 1 <= thread_count(0) <= 8
    assert thread_count(13) == 13
