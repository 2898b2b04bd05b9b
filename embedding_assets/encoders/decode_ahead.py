"""Loading of batches in threads, ahead of whoever consumes them, and bounded in memory.

What belongs here: the read-ahead itself. It knows neither images nor models, and imports neither torch nor
Pillow. What does not: what is loaded, and what is done about an item that fails (`pipeline`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
P = TypeVar("P")

MAX_AUTOMATIC_THREADS = 8
"""More threads than this do not help one model: decoding is then far ahead of it, and memory grows."""


def thread_count(setting: int) -> int:
    """Threads to decode with: the setting, or for 0 one per core that this process may use, 8 at most."""
    if setting > 0:
        return setting
    # Linux knows which cores are this process's (taskset, container CPU sets); elsewhere, all of them
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_AUTOMATIC_THREADS, cores))


def prepare_ahead(
    batches: Iterable[Sequence[T]], load: Callable[[T], P], threads: int = 0, ahead: int = 2
) -> Generator[list[P | Exception], None, None]:
    """Loads batches in threads while earlier ones are consumed; order is kept.

    Args:
        batches: the items of each batch. Taken lazily, from the thread that iterates: no batch is asked for
            before it may be loaded.
        load: makes the loaded form of one item; called from several threads at once.
        threads: size of the thread pool; 0: one per core, 8 at most.
        ahead: batches that may be loaded, or loading, beyond the one that was last handed out. Memory is
            bounded by (ahead + 1) batches of loaded items.

    Yields:
        One list per batch, in order: for each item its loaded form, or the `Exception` that `load` raised for
        it. One item's exception never disturbs another's.

    Raises:
        BaseException: what `load` raised that is no `Exception` (KeyboardInterrupt, SystemExit), and whatever
            iterating `batches` raises, after the batches before it were handed out. Closing the iterator, or
            any exception through it, cancels what has not started and waits for the loads under way.
    """
    if ahead < 0:
        raise ValueError(f"ahead must be 0 or more, got {ahead}")
    pool = ThreadPoolExecutor(thread_count(threads), thread_name_prefix="decode")
    pending: deque[list[Future[P | Exception]]] = deque()
    broken: Exception | None = None
    try:
        source = iter(batches)
        while True:
            try:
                batch = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 (raised below, once what came before is handed out)
                broken = error
                break
            pending.append([pool.submit(_loaded_or_error, load, item) for item in batch])
            del batch
            if len(pending) > ahead:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
        if broken is not None:
            raise broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _loaded_or_error(load: Callable[[T], P], item: T) -> P | Exception:
    try:
        return load(item)
    except Exception as error:  # noqa: BLE001 (handed to the consumer in the item's place)
        return error
