"""The batch core, with a stage that fails as told and a clock that does not wait."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence

import pytest

from embedding_assets.errors import (
    ErrorClass,
    FatalError,
    InfrastructureError,
    PermanentError,
    ThrottledError,
    TooLargeError,
    TransientError,
)
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.batch import BatchRunner, ItemFailure
from embedding_assets.pipeline.report import StageReport
from embedding_assets.store.images import ImageRow
from embedding_assets_tests.pipeline.fake_clock import FakeClock

Behaviour = Callable[[list[int], int], Sequence[int | Exception]]


class ScriptedStage:
    """A stage whose items are numbers; `behave(inputs, call number)` answers or raises."""

    name = "scripted"

    def __init__(self, behave: Behaviour, prepare_errors: dict[int, list[Exception]] | None = None) -> None:
        self.behave = behave
        self.prepare_errors = prepare_errors or {}
        self.calls: list[list[int]] = []
        self.saves: list[list[int]] = []
        self.failures: list[ItemFailure] = []

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[int | Exception]:
        prepared: list[int | Exception] = []
        for item in items:
            errors = self.prepare_errors.get(item.index)
            prepared.append(errors.pop(0) if errors else item.index)
        return prepared

    def call(self, inputs: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append(list(inputs))
        return self.behave(list(inputs), len(self.calls))

    def save(self, done: Sequence[tuple[ImageRow, int]], failures: Sequence[ItemFailure]) -> int:
        self.saves.append([row.index for row, _ in done])
        self.failures += failures
        return len(done)

    @property
    def saved(self) -> list[int]:
        return [index for save in self.saves for index in save]


def rows(count: int) -> list[ImageRow]:
    key = DocumentKey("shop", "catalogue.pdf")
    return [
        ImageRow(uuid.UUID(int=n), key, n, f"{n:064x}", f"{n}.jpg", f"image {n}", 1) for n in range(count)
    ]


def run(
    stage: ScriptedStage, count: int = 20, max_retries: int = 3, patience: float = 3600
) -> tuple[FakeClock, StageReport]:
    clock = FakeClock()
    report = StageReport()
    runner: BatchRunner[int, int] = BatchRunner(
        stage, max_retries=max_retries, max_throttle_wait_s=patience, clock=clock, report=report
    )
    runner.run(rows(count))
    return clock, report


def test_a_clean_batch_is_one_call_and_one_save() -> None:
    stage = ScriptedStage(lambda inputs, n: inputs)
    clock, report = run(stage)
    assert stage.calls == [list(range(20))]
    assert stage.saves == [list(range(20))]
    assert clock.sleeps == []
    assert (report.embedded, report.failed, report.calls) == (20, [], 1)


def test_images_that_fail_for_a_passing_reason_wait_together_2_4_8_seconds() -> None:
    flaky = {3, 7, 11}
    stage = ScriptedStage(
        lambda inputs, n: [TransientError("reset") if i in flaky and n <= 3 else i for i in inputs]
    )
    clock, report = run(stage)
    assert clock.sleeps == [2, 4, 8]
    assert stage.calls == [list(range(20)), [3, 7, 11], [3, 7, 11], [3, 7, 11]]
    assert sorted(stage.saved) == list(range(20))
    assert report.retries == 9
    assert not report.failed


def test_batch_mates_are_saved_before_the_wait() -> None:
    saved_when_called: list[list[int]] = []
    stage = ScriptedStage(lambda inputs, n: inputs)

    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        saved_when_called.append(list(stage.saved))
        return [TransientError("reset") if i == 5 and n == 1 else i for i in inputs]

    stage.behave = behave
    run(stage)
    assert saved_when_called[1] == [i for i in range(20) if i != 5]


@pytest.mark.parametrize(
    ("max_retries", "waits"), [(0, []), (1, [2]), (3, [2, 4, 8]), (5, [2, 4, 8, 16, 32])]
)
def test_attempts_are_used_up_after_max_retries(max_retries: int, waits: list[float]) -> None:
    stage = ScriptedStage(
        lambda inputs, n: [TransientError("Network timeout") if i == 4 else i for i in inputs]
    )
    clock, report = run(stage, max_retries=max_retries)
    assert clock.sleeps == waits
    (failed,) = report.failed
    assert failed.attempts == max_retries + 1
    assert failed.error == f"Network timeout after {max_retries} retries"
    assert failed.error_class == "transient"
    assert sorted(stage.saved) == [i for i in range(20) if i != 4]


@pytest.mark.parametrize("poison", range(20))
def test_one_poison_image_costs_one_failure_and_few_extra_calls(poison: int) -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if poison in inputs:
            raise PermanentError("bad pixel data")
        return inputs

    stage = ScriptedStage(behave)
    clock, report = run(stage)
    assert [failed.index for failed in report.failed] == [poison]
    assert sorted(stage.saved) == [i for i in range(20) if i != poison]
    assert len(stage.calls) - 1 <= 2 * math.ceil(math.log2(20))
    assert clock.sleeps == []


@pytest.mark.parametrize("poison", [0, 10, 19])
def test_a_poison_image_behind_a_passing_error_is_found_on_the_last_attempt(poison: int) -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if poison in inputs:
            raise TransientError("503")
        return inputs

    stage = ScriptedStage(behave)
    clock, report = run(stage)
    assert [failed.index for failed in report.failed] == [poison]
    assert sorted(stage.saved) == [i for i in range(20) if i != poison]
    assert clock.sleeps == [2, 4, 8]
    assert len(stage.calls) <= 4 + 2 * math.ceil(math.log2(20))


def test_a_provider_that_is_down_is_not_asked_for_each_image() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        raise TransientError("503")

    stage = ScriptedStage(behave)
    _, report = run(stage)
    assert len(report.failed) == 20
    assert len(stage.calls) <= 4 + 2 * math.ceil(math.log2(20)) + 2


def test_throttling_waits_as_told_keeps_the_batch_whole_and_costs_no_attempt() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if n <= 5:
            raise ThrottledError("429", retry_after=7.5)
        return inputs

    stage = ScriptedStage(behave)
    clock, report = run(stage, max_retries=0)
    assert clock.sleeps == [7.5] * 5
    assert all(call == list(range(20)) for call in stage.calls)
    assert (report.embedded, report.failed) == (20, [])


def test_throttling_without_a_hint_backs_off() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if n <= 7:
            raise ThrottledError("429")
        return inputs

    clock, _ = run(ScriptedStage(behave))
    assert clock.sleeps == [2, 4, 8, 16, 32, 60, 60]


def test_endless_throttling_ends_as_a_failure_with_its_class() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        raise ThrottledError("429", retry_after=60)

    _, report = run(ScriptedStage(behave), patience=600)
    assert {failed.error_class for failed in report.failed} == {"throttled"}
    assert len(report.failed) == 20


def test_a_single_throttled_item_is_asked_again_alone() -> None:
    stage = ScriptedStage(
        lambda inputs, n: [ThrottledError("429", retry_after=3) if i == 2 and n == 1 else i for i in inputs]
    )
    clock, _ = run(stage, count=4)
    assert stage.calls == [[0, 1, 2, 3], [2]]
    assert clock.sleeps == [3]


def test_an_item_may_be_throttled_thousands_of_times() -> None:
    stage = ScriptedStage(
        lambda inputs, n: [ThrottledError("429", retry_after=0.1) if n <= 3_000 else i for i in inputs]
    )
    clock, report = run(stage, count=1)
    assert len(clock.sleeps) == 3_000
    assert (report.embedded, report.failed) == (1, [])


def test_a_batch_that_is_too_large_is_halved_and_the_size_remembered() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if len(inputs) > 5:
            raise TooLargeError("out of memory")
        return inputs

    stage = ScriptedStage(behave)
    clock = FakeClock()
    runner: BatchRunner[int, int] = BatchRunner(stage, max_retries=3, max_throttle_wait_s=60, clock=clock)
    runner.run(rows(20))
    assert sorted(stage.saved) == list(range(20))
    before = len(stage.calls)
    runner.run(rows(20))
    assert [len(call) for call in stage.calls[before:]] == [5, 5, 5, 5]
    assert clock.sleeps == []


def test_an_image_that_is_too_large_even_alone_fails_for_good() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if 3 in inputs:
            raise TooLargeError("out of memory")
        return inputs

    stage = ScriptedStage(behave)
    _, report = run(stage)
    (failed,) = report.failed
    assert (failed.index, failed.error_class) == (3, "permanent")
    assert "too large even alone" in failed.error


@pytest.mark.parametrize("error", [FatalError("bad key"), InfrastructureError("database gone")])
def test_fatal_and_infrastructure_errors_leave_at_once_and_blame_no_image(error: Exception) -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        raise error

    stage = ScriptedStage(behave)
    with pytest.raises(type(error)):
        run(stage)
    assert len(stage.calls) == 1
    assert stage.failures == []


def test_what_cannot_be_prepared_fails_alone() -> None:
    stage = ScriptedStage(
        lambda inputs, n: inputs,
        prepare_errors={1: [PermanentError("truncated")], 2: [TransientError("timeout")]},
    )
    clock, report = run(stage, count=5)
    assert sorted(stage.saved) == [0, 2, 3, 4]
    assert clock.sleeps == [2]
    (failed,) = report.failed
    assert (failed.index, failed.error, failed.attempts) == (1, "truncated", 1)


def test_a_wrong_number_of_results_is_retried() -> None:
    stage = ScriptedStage(lambda inputs, n: inputs[:-1] if n == 1 else inputs)
    clock, report = run(stage, count=4)
    assert clock.sleeps == [2]
    assert (report.embedded, report.failed) == (4, [])


def test_a_fault_of_the_program_is_not_booked_against_every_image() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        raise AttributeError("no attribute 'shape'")

    stage = ScriptedStage(behave)
    with pytest.raises(FatalError, match="all 20 images"):
        run(stage)
    assert stage.failures == []


def test_an_unknown_error_of_one_image_is_found_and_recorded() -> None:
    def behave(inputs: list[int], n: int) -> Sequence[int | Exception]:
        if 6 in inputs:
            raise ValueError("strange shape")
        return inputs

    stage = ScriptedStage(behave)
    _, report = run(stage)
    assert [(f.index, f.error_type, f.error_class) for f in report.failed] == [(6, "ValueError", "permanent")]


def test_retries_are_logged_with_image_attempt_wait_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    stage = ScriptedStage(lambda inputs, n: [TransientError("reset") if i == 1 else i for i in inputs])
    with caplog.at_level("WARNING"):
        run(stage, count=3, max_retries=2)
    retries = [r.getMessage() for r in caplog.records if "retry" in r.getMessage()]
    assert len(retries) == 2
    assert "retry 1 of 2" in retries[0]
    assert "2 s" in retries[0]
    assert str(uuid.UUID(int=1)) in retries[0]
    assert "reset" in retries[0]


def test_only_the_first_five_failures_are_logged_in_detail(caplog: pytest.LogCaptureFixture) -> None:
    stage = ScriptedStage(lambda inputs, n: [PermanentError("broken") for _ in inputs])
    with caplog.at_level("ERROR"):
        _, report = run(stage, count=8)
    assert len(report.failed) == 8
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 5


def test_classes_of_recorded_failures_are_those_of_their_errors() -> None:
    stage = ScriptedStage(
        lambda inputs, n: [PermanentError("a") if i == 0 else OSError("b") if i == 1 else i for i in inputs]
    )
    run(stage, count=3, max_retries=0)
    assert {f.item.index: f.error_class for f in stage.failures} == {
        0: ErrorClass.PERMANENT,
        1: ErrorClass.TRANSIENT,
    }
