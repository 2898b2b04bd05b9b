"""The batch core: calls an encoder batch by batch, and deals with everything that can go wrong.

                       +--------------------- wait 2, 4, 8 s -----------------------+
                       v                                                            |
    batch -> prepare -> call -> vectors ------------------> save (vectors, flags,   |
                 |        |                                  failure records: one   |
                 |        +-> throttled: wait as told,       transaction)           |
                 |        |   same batch again                                      |
                 |        +-> too large: halve                                      |
                 |        +-> permanent: bisect to the image -> failure record      |
                 |        +-> transient ------------------------> next wave --------+
                 |        +-> fatal, infrastructure: out of here
                 +-> permanent: failure record; transient: next wave

What belongs here: this, for any stage (see `Stage`). What does not: what a stage prepares, calls and saves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from embedding_assets.errors import (
    EmbeddingAssetsError,
    ErrorClass,
    FatalError,
    ImageSkipped,
    InfrastructureError,
    PermanentError,
    ThrottledError,
    TransientError,
    classify,
)
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.report import DETAILED_FAILURES, FailedImage, StageReport
from embedding_assets.pipeline.retry import throttle_wait, wave_wait
from embedding_assets.store.images import ImageRow

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class ItemFailure:
    """An image that has failed for this run."""

    item: ImageRow
    error: Exception
    error_class: ErrorClass
    attempts: int


class Stage(Protocol[In, Out]):
    """What the batch core works for: one kind of vector or analysis."""

    @property
    def name(self) -> str:
        """The stage's name in failure records and logs."""

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[In | Exception]:
        """Makes the encoder's input of each item; an exception in place of one that failed."""

    def call(self, inputs: Sequence[In]) -> Sequence[Out | Exception]:
        """One call of the encoder or provider: an output (or its own error) for each input, in order.

        Raises what concerns the call as a whole.
        """

    def save(self, done: Sequence[tuple[ImageRow, Out]], failures: Sequence[ItemFailure]) -> int:
        """Stores outputs and failures in one transaction; returns how many images are newly done."""


@dataclass
class _Work(Generic[In]):
    item: ImageRow
    prepared: In
    error: Exception | None = None


class _Verdicts(Generic[In, Out]):
    """How one attempt at a batch came out, image by image."""

    def __init__(self) -> None:
        self.done: list[tuple[ImageRow, Out]] = []
        self.permanent: list[_Work[In]] = []
        self.transient: list[_Work[In]] = []


class BatchRunner(Generic[In, Out]):
    """Runs batches of one stage, with retries.

    Args:
        stage: what to prepare, call and save.
        max_retries: tries of an image after its first.
        max_throttle_wait_s: seconds that one batch may wait in all for a throttling provider.
        clock: time.
    """

    def __init__(
        self,
        stage: Stage[In, Out],
        *,
        max_retries: int,
        max_throttle_wait_s: float,
        clock: Clock,
        report: StageReport | None = None,
    ) -> None:
        self.stage = stage
        self.max_retries = max_retries
        self.max_throttle_wait_s = max_throttle_wait_s
        self.clock = clock
        self.report = report or StageReport()
        self._largest: int | None = None
        self._failures_in_a_row = 0
        self._attempted = 0
        self._throttled_s = 0.0
        self._throttled_times = 0

    def run(self, items: Sequence[ImageRow], prepared: Sequence[In | Exception] | None = None) -> None:
        """Embeds one batch. When it returns, every image of it is saved or has a failure record.

        Args:
            items: the batch; the unit of commit.
            prepared: what `stage.prepare(items)` gave, where that was done ahead.

        Raises:
            FatalError: nothing can succeed before a person acts. What was embedded before is saved.
            InfrastructureError: every image would fail alike; none of them is blamed.
        """
        self.report.batches += 1
        pending = list(items)
        self._throttled_s = 0.0
        self._throttled_times = 0
        for attempt in range(1, self.max_retries + 2):
            verdicts = self._attempt(pending, prepared, last=attempt > self.max_retries)
            prepared = None
            failures = [self._failure(work, attempt) for work in verdicts.permanent]
            if attempt > self.max_retries:
                failures += [self._failure(work, attempt) for work in verdicts.transient]
                verdicts.transient.clear()
            self._save(verdicts.done, failures)
            if not verdicts.transient:
                return
            wait = wave_wait(attempt)
            for work in verdicts.transient:
                logger.warning(
                    "%s: retry %d of %d for image %s (%s) in %.0f s: %s",
                    self.stage.name,
                    attempt,
                    self.max_retries,
                    work.item.image_id,
                    work.item.reference,
                    wait,
                    work.error,
                )
            self._wait(wait)
            pending = [work.item for work in verdicts.transient]
            self.report.retries += len(pending)

    def _attempt(
        self, items: Sequence[ImageRow], prepared: Sequence[In | Exception] | None, *, last: bool
    ) -> _Verdicts[In, Out]:
        verdicts: _Verdicts[In, Out] = _Verdicts()
        ready: list[_Work[In]] = []
        for item, value in zip(items, prepared or self.stage.prepare(items), strict=True):
            if isinstance(value, Exception):
                self._judge(_Work(item, value, value), value, verdicts)  # type: ignore[arg-type]
            else:
                ready.append(_Work(item, value))
        size = self._largest or len(ready)
        self._failures_in_a_row = 0
        self._attempted = len(ready)
        for start in range(0, len(ready), size or 1):
            self._call(ready[start : start + size], verdicts, isolate=last)
        self._refuse_systematic(items, verdicts)
        return verdicts

    def _call(self, group: list[_Work[In]], verdicts: _Verdicts[In, Out], *, isolate: bool) -> None:
        """Calls the stage for a group, again while it is throttled; splits it where the error asks for it."""
        while group:
            try:
                outputs = self._timed_call([work.prepared for work in group])
            except Exception as error:  # noqa: BLE001 (every class of error is dealt with below)
                if isinstance(error, ThrottledError) and self._throttle(error):
                    continue
                self._failures_in_a_row += 1
                self._divide(group, error, verdicts, isolate=isolate)
                return
            self._failures_in_a_row = 0
            throttled: list[_Work[In]] = []
            patience: ThrottledError | None = None
            for work, output in zip(group, outputs, strict=True):
                if isinstance(output, ThrottledError):
                    throttled.append(work)
                    patience = output
                elif isinstance(output, Exception):
                    self._judge(work, output, verdicts)
                else:
                    verdicts.done.append((work.item, output))
            if patience is not None and not self._throttle(patience):
                for work in throttled:
                    self._judge(work, patience, verdicts)
                return
            group = throttled

    def _divide(
        self, group: list[_Work[In]], error: Exception, verdicts: _Verdicts[In, Out], *, isolate: bool
    ) -> None:
        kind = classify(error)
        if kind is ErrorClass.FATAL or isinstance(error, InfrastructureError):
            raise error
        if len(group) == 1:
            self._judge(group[0], error, verdicts)
            return
        if kind is ErrorClass.TOO_LARGE:
            self._largest = (len(group) + 1) // 2
            logger.warning("%s: a batch of %d is too large, halving: %s", self.stage.name, len(group), error)
        elif kind in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED) and not (
            isolate and self._provider_answers()
        ):
            for work in group:
                self._judge(work, error, verdicts)
            return
        middle = (len(group) + 1) // 2
        self._call(group[:middle], verdicts, isolate=isolate)
        self._call(group[middle:], verdicts, isolate=isolate)

    def _provider_answers(self) -> bool:
        """Whether it is worth looking for one image behind a passing error of a whole group.

        Done on an image's last attempt only. One poison image makes at most ceil(log2 n) + 1 calls in a row
        fail on the way to it; more than that means that the provider is down, and splitting is in vain.
        """
        return self._failures_in_a_row <= math.ceil(math.log2(max(2, self._attempted))) + 1

    def _judge(self, work: _Work[In], error: Exception, verdicts: _Verdicts[In, Out]) -> None:
        kind = classify(error)
        if kind is ErrorClass.FATAL or isinstance(error, InfrastructureError):
            raise error
        work.error = error
        if kind in (ErrorClass.TRANSIENT, ErrorClass.THROTTLED):
            verdicts.transient.append(work)
        else:
            verdicts.permanent.append(work)

    def _refuse_systematic(self, items: Sequence[ImageRow], verdicts: _Verdicts[In, Out]) -> None:
        """A fault of the program must not be booked as a fault of every image.

        When a whole batch fails for good with one and the same type of error that is none of our classes, the
        program or its installation is to blame: stop, and record nothing against the images.
        """
        errors = [work.error for work in verdicts.permanent]
        kinds = {type(error) for error in errors}
        if (
            len(errors) == len(items) >= 2
            and len(kinds) == 1
            and not isinstance(errors[0], EmbeddingAssetsError)
        ):
            raise FatalError(
                f"all {len(items)} images of a batch failed with {type(errors[0]).__name__}: {errors[0]}",
                hint="this looks like a fault of the installation, not of the images; nothing was recorded",
            ) from errors[0]

    def _throttle(self, error: ThrottledError) -> bool:
        """Waits as the provider asks; False once the batch has waited its share."""
        self._throttled_times += 1
        wait = throttle_wait(error.retry_after, self._throttled_times)
        if self._throttled_s + wait > self.max_throttle_wait_s:
            return False
        self._throttled_s += wait
        logger.info("%s: throttled, waiting %.1f s: %s", self.stage.name, wait, error)
        self._wait(wait)
        return True

    def _timed_call(self, inputs: list[In]) -> Sequence[Out | Exception]:
        self.report.calls += 1
        self.report.encoded += len(inputs)
        start = self.clock.monotonic()
        try:
            outputs = self.stage.call(inputs)
        finally:
            self.report.encode_s += self.clock.monotonic() - start
        if len(outputs) != len(inputs):
            raise TransientError(f"{self.stage.name}: asked for {len(inputs)} results, got {len(outputs)}")
        return outputs

    def _wait(self, seconds: float) -> None:
        self.report.wait_s += seconds
        self.clock.sleep(seconds)

    def _failure(self, work: _Work[In], attempts: int) -> ItemFailure:
        error = work.error or PermanentError("failed for an unknown reason")
        kind = classify(error)
        if kind is ErrorClass.TOO_LARGE:
            error = PermanentError(f"too large even alone: {error}")
            kind = ErrorClass.PERMANENT
        return ItemFailure(work.item, error, kind, attempts)

    def _save(self, done: Sequence[tuple[ImageRow, Out]], failures: Sequence[ItemFailure]) -> None:
        if not done and not failures:
            return
        start = self.clock.monotonic()
        self.report.embedded += self.stage.save(done, failures)
        self.report.write_s += self.clock.monotonic() - start
        for failure in failures:
            if isinstance(failure.error, ImageSkipped):
                self.report.skipped += 1
                continue
            failed = FailedImage(
                index=failure.item.index,
                image_id=failure.item.image_id,
                document=failure.item.key,
                path=failure.item.reference,
                page_number=failure.item.page_number,
                error=describe(failure),
                error_type=type(failure.error).__name__,
                error_class=failure.error_class.value,
                attempts=failure.attempts,
            )
            self.report.failed.append(failed)
            if len(self.report.failed) <= DETAILED_FAILURES:
                logger.error(
                    "%s: image %s (document %s, index %d, page %s, %s) failed after %d attempts, %s: %s",
                    self.stage.name,
                    failed.image_id,
                    failed.document,
                    failed.index,
                    failed.page_number,
                    failed.path,
                    failed.attempts,
                    failed.error_class,
                    failed.error,
                )


def describe(failure: ItemFailure) -> str:
    """The failure in words: "Network timeout after 3 retries" for a passing error that stayed."""
    text = str(failure.error) or type(failure.error).__name__
    if failure.error_class is ErrorClass.PERMANENT:
        return text
    return f"{text} after {failure.attempts - 1} retries"


Progress = Callable[[StageReport], None]
"""Called after each batch with the report so far."""
