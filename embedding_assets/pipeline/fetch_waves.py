"""Posted images that could not be fetched are tried again, together: after 2, 4, 8 s, or as their servers ask."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from embedding_assets.errors import ErrorClass
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.retry import throttle_wait, wave_wait

logger = logging.getLogger(__name__)


def fetch_in_waves(
    images: Iterable[FoundImage],
    read_again: Callable[[int], FoundImage],
    *,
    max_retries: int,
    max_throttle_wait_s: float,
    clock: Clock,
) -> Iterator[FoundImage]:
    """Hands the images on; those that are pending, only once they are had or their tries are used up.

    Args:
        images: as they were read the first time, in any status.
        read_again: reads the image at an index of the list once more.
        max_retries: tries of an image after its first, for passing reasons.
        max_throttle_wait_s: seconds to wait in all for servers that throttle; that costs no try.
        clock: time.

    Yields:
        Every image once, in another order than it came: pending ones last.
    """
    waiting: list[FoundImage] = []
    for image in images:
        if image.status is ImageStatus.PENDING:
            waiting.append(image)
        else:
            yield image
    retries: Counter[int] = Counter()
    throttled_s, throttled_times = 0.0, 0
    while waiting:
        throttled = [image for image in waiting if image.error_class is ErrorClass.THROTTLED]
        failing = [image for image in waiting if image.error_class is not ErrorClass.THROTTLED]
        wait = 0.0
        if throttled:
            throttled_times += 1
            wait = max(throttle_wait(image.retry_after, throttled_times) for image in throttled)
            if throttled_s + wait > max_throttle_wait_s:
                yield from throttled
                throttled, wait = [], 0.0
            throttled_s += wait
        for image in failing:
            retries[image.index] += 1
            if retries[image.index] > max_retries:
                yield replace(image, reason=f"{image.reason} after {max_retries} retries")
        failing = [image for image in failing if retries[image.index] <= max_retries]
        waiting = [*throttled, *failing]
        if not waiting:
            return
        wait = max([wait, *(wave_wait(retries[image.index]) for image in failing)])
        for image in waiting:
            logger.warning(
                "ingest: retry %d of %d for %s in %.0f s: %s",
                retries[image.index],
                max_retries,
                image.reference,
                wait,
                image.reason,
            )
        clock.sleep(wait)
        again = [read_again(image.index) for image in waiting]
        waiting = [image for image in again if image.status is ImageStatus.PENDING]
        yield from (image for image in again if image.status is not ImageStatus.PENDING)
