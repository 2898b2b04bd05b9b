"""Providers under the batch core: what is retried, how long it waits, what is recorded and what is saved."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from embedding_assets.analysis.protocol import ImageContext
from embedding_assets.analysis.qwen import QwenAnalyzer
from embedding_assets.encoders.rate_limit import RateBudget
from embedding_assets.encoders.voyage import VoyageEmbedder
from embedding_assets.errors import ErrorClass, FatalError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.batch import BatchRunner, ItemFailure
from embedding_assets.pipeline.report import StageReport
from embedding_assets.store.images import ImageRow
from embedding_assets_tests.encoders.conftest import decode, picture, png
from embedding_assets_tests.providers.clocks import FakeClock
from embedding_assets_tests.providers.stubs import (
    CUT_OFF,
    ONE_MISSING,
    RESET,
    SWAPPED,
    TRUNCATED,
    WITH_NAN,
    ChatStub,
    Fault,
    VoyageStub,
    envelope,
    of_dimension,
    refuse,
    vector_of,
)


def rows(count: int) -> list[ImageRow]:
    key = DocumentKey("shop", "catalogue.pdf")
    return [
        ImageRow(uuid.UUID(int=n), key, n, f"{n:064x}", f"{n}.jpg", f"image {n}", 1) for n in range(count)
    ]


class MemoryStage:
    """Calls a provider for each batch and keeps what comes out."""

    name = "understanding"

    def __init__(self, call: Any, texts: dict[int, str] | None = None) -> None:
        self._call = call
        self.texts = texts or {}
        self.saved: dict[int, Any] = {}
        self.saves: list[list[int]] = []
        self.failures: list[ItemFailure] = []

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[Any]:
        return [self.texts.get(item.index, f"tile number {item.index}") for item in items]

    def call(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return list(self._call(inputs))

    def save(self, done: Sequence[tuple[ImageRow, Any]], failures: Sequence[ItemFailure]) -> int:
        self.saves.append([row.index for row, _ in done])
        self.saved.update({row.index: output for row, output in done})
        self.failures += failures
        return len(done)


class Setup:
    def __init__(self, stub: VoyageStub) -> None:
        self.stub = stub
        self.clock = FakeClock()
        self.budget = RateBudget(2000, 8_000_000, self.clock)
        embedder = VoyageEmbedder("stub-key", base_url=stub.url, timeout_s=5, budget=self.budget)
        self.stage = MemoryStage(embedder.embed_documents)
        self.report = StageReport()

    def run(self, count: int = 16, **changes: Any) -> None:
        options: dict[str, Any] = {"max_retries": 3, "max_throttle_wait_s": 3600}
        runner: BatchRunner[Any, Any] = BatchRunner(
            self.stage, clock=self.clock, report=self.report, **{**options, **changes}
        )
        runner.run(rows(count))

    @property
    def sizes(self) -> list[int]:
        return [len(texts) for texts in self.stub.texts]


@pytest.fixture
def setup(voyage: VoyageStub) -> Setup:
    return Setup(voyage)


def assert_all_saved(setup: Setup, count: int = 16) -> None:
    assert sorted(setup.stage.saved) == list(range(count))
    assert setup.report.embedded == count
    assert setup.stage.failures == []
    for index, vector in setup.stage.saved.items():
        assert vector == pytest.approx(vector_of(f"tile number {index}", 1024), abs=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        refuse(500),
        refuse(503),
        refuse(503, retry_after=99),
        RESET,
        CUT_OFF,
        TRUNCATED,
        ONE_MISSING,
        WITH_NAN,
        envelope({"error": {"message": "busy"}}),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_a_passing_fault_costs_one_wave_and_no_image(setup: Setup, fault: Fault) -> None:
    setup.stub.script = [fault, fault]
    setup.run()
    assert setup.sizes == [16, 16, 16]
    assert setup.clock.sleeps == [2, 4]
    assert setup.report.retries == 32
    assert_all_saved(setup)


def test_swapped_answers_cost_nothing(setup: Setup) -> None:
    setup.stub.script = [SWAPPED]
    setup.run()
    assert setup.sizes == [16]
    assert setup.clock.sleeps == []
    assert_all_saved(setup)


def test_a_429_waits_as_told_uses_up_no_attempt_and_keeps_the_batch_whole(setup: Setup) -> None:
    setup.stub.script = [refuse(429, retry_after=7)] * 20
    setup.run(max_retries=0)
    assert setup.sizes == [16] * 21
    assert setup.clock.sleeps == [7.0] * 20
    assert setup.clock.waits == []
    assert setup.report.retries == 0
    assert setup.report.wait_s == 140
    assert_all_saved(setup)


def test_a_429_that_does_not_say_how_long_waits_2_4_8_up_to_60(setup: Setup) -> None:
    setup.stub.script = [refuse(429)] * 7
    setup.run(max_retries=0)
    assert setup.sizes == [16] * 8
    assert setup.clock.sleeps == [2, 4, 8, 16, 32, 60, 60]
    assert_all_saved(setup)


def test_a_429_that_says_come_back_at_once_is_not_taken_up_without_end(setup: Setup) -> None:
    setup.stub.always = refuse(429, retry_after=0)
    setup.run(max_retries=0, max_throttle_wait_s=60)
    assert setup.clock.sleeps == [2, 4, 8, 16]
    assert [failure.error_class for failure in setup.stage.failures] == [ErrorClass.THROTTLED] * 16


def test_throttling_and_faults_together_keep_their_own_counts(setup: Setup) -> None:
    setup.stub.script = [refuse(429, retry_after=5), RESET, refuse(429, retry_after=6), refuse(500), None]
    setup.run(max_retries=2)
    assert setup.clock.sleeps == [5, 2, 6, 4]
    assert_all_saved(setup)


def test_a_poison_text_costs_one_failure_and_few_calls(setup: Setup) -> None:
    setup.stub.poison = "poison"
    setup.stage.texts = {5: "a poison text"}
    setup.run()
    (failure,) = setup.stage.failures
    assert failure.item.index == 5
    assert failure.error_class is ErrorClass.PERMANENT
    assert failure.attempts == 1
    assert "can't be processed" in str(failure.error)
    assert sorted(setup.stage.saved) == [n for n in range(16) if n != 5]
    assert setup.clock.sleeps == []
    assert len(setup.sizes) <= 1 + 2 * 4


def test_the_batches_after_a_poison_text_stay_whole(setup: Setup) -> None:
    setup.stub.poison = "poison"
    setup.stage.texts = {5: "a poison text"}
    runner: BatchRunner[Any, Any] = BatchRunner(
        setup.stage, clock=setup.clock, max_retries=3, max_throttle_wait_s=3600
    )
    runner.run(rows(16))
    setup.stage.texts = {}
    runner.run(rows(16))
    assert setup.sizes[-1] == 16


def test_a_request_over_the_limit_is_halved_until_it_fits(setup: Setup) -> None:
    setup.stub.max_tokens = 15
    setup.run()
    assert max(len(request.body["input"]) for request in setup.stub.answered) <= 5
    assert setup.clock.sleeps == []
    assert_all_saved(setup)


def test_a_text_over_the_limit_by_itself_is_recorded_and_its_batch_mates_are_saved(setup: Setup) -> None:
    setup.stub.max_tokens = 60
    setup.stage.texts = {9: "word " * 100}
    setup.run()
    (failure,) = setup.stage.failures
    assert (failure.item.index, failure.error_class) == (9, ErrorClass.PERMANENT)
    assert sorted(setup.stage.saved) == [n for n in range(16) if n != 9]


@pytest.mark.parametrize(
    "fault", [refuse(401), refuse(403), of_dimension(256)], ids=["401", "403", "dimension"]
)
def test_a_bad_key_or_dimension_stops_the_run_at_once_and_blames_no_image(setup: Setup, fault: Fault) -> None:
    setup.stub.always = fault
    with pytest.raises(FatalError):
        setup.run()
    assert setup.sizes == [16]
    assert setup.clock.sleeps == []
    assert setup.stage.failures == []
    assert setup.stage.saves == []


def test_a_provider_that_stays_down_uses_up_the_attempts_and_is_recorded_as_passing(setup: Setup) -> None:
    setup.stub.always = refuse(503)
    setup.run()
    assert setup.clock.sleeps == [2, 4, 8]
    assert [failure.error_class for failure in setup.stage.failures] == [ErrorClass.TRANSIENT] * 16
    assert {failure.attempts for failure in setup.stage.failures} == {4}
    assert len(setup.sizes) <= 4 + 2 * 4, "four attempts, and one look for an image to blame"


def test_one_text_whose_vector_is_always_nan_fails_alone(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = setup.stub.answer

    def answer(body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        nan = any("cursed" in text for text in body["input"])
        return plain(
            {**body, "input": sorted(body["input"], key=lambda t: "cursed" in t)}, WITH_NAN if nan else fault
        )

    monkeypatch.setattr(setup.stub, "answer", answer)
    setup.stage.texts = {15: "cursed"}
    setup.run()
    assert [failure.item.index for failure in setup.stage.failures] == [15]
    assert len(setup.stage.saved) == 15


# -- images --------------------------------------------------------------------------------------------------


class Images(MemoryStage):
    def __init__(self, analyzer: QwenAnalyzer) -> None:
        super().__init__(analyzer.analyze)
        self.analyzer = analyzer
        self.data = png(picture(80, 60))

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[Any]:
        return [
            self.analyzer.prepare(self.data, ImageContext(caption=f"number {item.index}.")) for item in items
        ]


class ImageSetup:
    def __init__(self, stub: ChatStub) -> None:
        self.stub = stub
        self.clock = FakeClock()
        self.budget = RateBudget(0, 0, self.clock)
        self.analyzer = QwenAnalyzer(
            stub.url, decode, api_key="stub-key", timeout_s=5, concurrency=4, budget=self.budget
        )
        self.stage = Images(self.analyzer)
        self.report = StageReport()

    def run(self, count: int = 8, **changes: Any) -> None:
        options: dict[str, Any] = {"max_retries": 3, "max_throttle_wait_s": 3600}
        runner: BatchRunner[Any, Any] = BatchRunner(
            self.stage, clock=self.clock, report=self.report, **{**options, **changes}
        )
        runner.run(rows(count))


@pytest.fixture
def images(chat: ChatStub) -> Iterator[ImageSetup]:
    setup = ImageSetup(chat)
    yield setup
    setup.analyzer.close()


def test_only_the_images_whose_requests_failed_are_asked_for_again(images: ImageSetup) -> None:
    images.stub.script = [refuse(500), None, RESET, None, None, refuse(503)]
    images.run()
    assert images.clock.sleeps == [2]
    assert images.report.retries == 3
    assert len(images.stub.requests) == 11
    assert sorted(images.stage.saved) == list(range(8))
    assert images.stage.failures == []


def test_throttled_images_wait_together_use_up_no_attempt_and_the_others_are_kept(images: ImageSetup) -> None:
    images.stub.script = [None, None, refuse(429, retry_after=9)]
    images.run(max_retries=0)
    assert images.clock.sleeps == [pytest.approx(9.0)]
    assert images.report.retries == 0
    assert sorted(images.stage.saved) == list(range(8))
    answered = [request.status for request in images.stub.requests].count(200)
    assert answered == 8, "no image is analysed twice"


def test_a_poison_image_is_recorded_alone_after_one_request(images: ImageSetup) -> None:
    images.stub.poison = "number 3."
    images.run()
    (failure,) = images.stage.failures
    assert (failure.item.index, failure.error_class, failure.attempts) == (3, ErrorClass.PERMANENT, 1)
    assert len(images.stub.requests) == 8
    assert images.clock.sleeps == []


def test_a_bad_key_stops_the_analysis(images: ImageSetup) -> None:
    images.stub.key = "another"
    with pytest.raises(FatalError, match="QWEN_API_KEY"):
        images.run()
    assert len(images.stub.requests) <= 4
    assert images.stage.failures == []


def test_vectors_of_one_batch_do_not_depend_on_how_it_was_split(voyage: VoyageStub) -> None:
    whole, split = Setup(voyage), Setup(voyage)
    whole.run()
    voyage.max_tokens = 10
    split.run()
    for index in range(16):
        assert np.array_equal(whole.stage.saved[index], split.stage.saved[index])
