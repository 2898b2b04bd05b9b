"""The hosted analyser, one call at a time: what is sent, and what each fault becomes."""

from __future__ import annotations

import io
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from embedding_assets.analysis.errors import AnalysisRejected, AnalysisUnreadable
from embedding_assets.analysis.protocol import ImageContext, VisionAnalyzer
from embedding_assets.analysis.qwen import QwenAnalyzer
from embedding_assets.analysis.qwen_provider import open_qwen
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.encoders.rate_limit import RateBudget
from embedding_assets.errors import (
    FatalError,
    ImageRejected,
    PermanentError,
    SettingsError,
    ThrottledError,
    TransientError,
)
from embedding_assets.settings import load_settings
from embedding_assets_tests.encoders.conftest import decode, picture, png
from embedding_assets_tests.providers.clocks import FakeClock, no_quota
from embedding_assets_tests.providers.stubs import (
    CUT_OFF,
    RESET,
    TRUNCATED,
    ChatStub,
    Fault,
    envelope,
    hang,
    image_of,
    refuse,
    words_of,
)

KEY = "sk-very-secret-key"
CONTEXT = ImageContext(caption="Oak, matte", nearby_text="Size 60x120 cm, R10")


@pytest.fixture
def made(chat: ChatStub) -> Iterator[list[QwenAnalyzer]]:
    analyzers: list[QwenAnalyzer] = []
    yield analyzers
    for analyzer in analyzers:
        analyzer.close()


@pytest.fixture
def analyzer_of(chat: ChatStub, made: list[QwenAnalyzer]) -> Any:
    def make(**changes: Any) -> QwenAnalyzer:
        chat.key = KEY
        options: dict[str, Any] = {"api_key": KEY, "timeout_s": 5.0, "budget": no_quota()}
        analyzer = QwenAnalyzer(chat.url, changes.pop("decode", decode), **{**options, **changes})
        made.append(analyzer)
        return analyzer

    return make


def one(analyzer: QwenAnalyzer, data: bytes | None = None, context: ImageContext = CONTEXT) -> Any:
    (outcome,) = analyzer.analyze([analyzer.prepare(data or png(picture(90, 70)), context)])
    if isinstance(outcome, Exception):
        shown = "".join(traceback.format_exception(outcome)) + repr(outcome)
        assert KEY not in shown
    return outcome


def test_an_image_and_its_context_become_an_analysis(chat: ChatStub, analyzer_of: Any) -> None:
    analyzer: VisionAnalyzer = analyzer_of()
    outcome = one(analyzer)  # type: ignore[arg-type]
    assert isinstance(outcome, VisionAnalysis)
    assert outcome.material_type == "porcelain"
    assert outcome.physical_properties == {"slip_rating": "R10"}
    assert (analyzer.provider, analyzer.model) == ("qwen", "Qwen3-VL-32B-Instruct")
    (request,) = chat.requests
    assert request.body["model"] == "Qwen3-VL-32B-Instruct"
    assert request.body["response_format"]["type"] == "json_schema"
    assert "Oak, matte" in words_of(request)
    assert "Size 60x120 cm, R10" in words_of(request)
    assert "physical_properties" in words_of(request)
    assert analyzer_of().tokens_used == 0
    assert analyzer.tokens_used == 900  # type: ignore[attr-defined]


def test_an_image_without_context_is_sent_without_that_part(chat: ChatStub, analyzer_of: Any) -> None:
    one(analyzer_of(), context=ImageContext(caption="  "))
    assert "Text from the document" not in words_of(chat.requests[0])


def test_long_context_is_cut(chat: ChatStub, analyzer_of: Any) -> None:
    one(analyzer_of(), context=ImageContext(nearby_text="spam " * 100_000))
    assert len(words_of(chat.requests[0])) < 10_000


@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ((1600, 800), (256, 128)),
        ((800, 1600), (128, 256)),
        ((200, 100), (200, 100)),
        ((4000, 64), (2000, 32)),
        ((4000, 20), (4000, 20)),
    ],
)
def test_images_are_sent_at_a_bounded_size(
    chat: ChatStub, analyzer_of: Any, size: tuple[int, int], sent: tuple[int, int]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, "PNG")
    one(analyzer_of(max_image_side=256), buffer.getvalue())
    image = Image.open(io.BytesIO(image_of(chat.requests[0])))
    assert (image.format, image.size) == ("JPEG", sent)


def test_an_image_that_cannot_be_decoded_is_rejected_in_prepare(analyzer_of: Any) -> None:
    def broken(data: bytes) -> Image.Image:
        raise ImageRejected("broken")

    with pytest.raises(ImageRejected):
        analyzer_of(decode=broken).prepare(b"x", CONTEXT)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (refuse(500), TransientError, "500"),
        (refuse(503, body="<html>down</html>"), TransientError, "503"),
        (refuse(408), TransientError, "408"),
        (RESET, TransientError, "connection failed"),
        (CUT_OFF, TransientError, "connection failed"),
        (TRUNCATED, TransientError, "can't be read"),
        (envelope("<html>maintenance</html>"), TransientError, "can't be read"),
        (envelope([]), TransientError, "no JSON object"),
        (envelope({}), TransientError, "holds no message"),
        (envelope({"choices": [{}]}), TransientError, "holds no message"),
        (envelope({"error": {"message": "overloaded"}}), TransientError, "overloaded"),
        (envelope({"error": {"message": "bad image", "code": 400}}), PermanentError, "bad image"),
        (refuse(400, "the image can't be decoded"), PermanentError, "can't be decoded"),
        (refuse(413, body="too big"), PermanentError, "413"),
        (refuse(422, "bad image"), PermanentError, "bad image"),
        (
            refuse(400, body={"error": {"code": "data_inspection_failed", "message": "inappropriate"}}),
            PermanentError,
            "content filter",
        ),
    ],
)
def test_each_fault_is_the_images_own(
    chat: ChatStub, analyzer_of: Any, fault: Fault, error: type[Exception], words: str
) -> None:
    chat.script = [fault]
    outcome = one(analyzer_of())
    assert type(outcome) is error
    assert words in str(outcome)
    assert len(chat.requests) == 1, "a provider never retries"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuse(401, f"Incorrect API key provided: {KEY}"), "QWEN_API_KEY"),
        (refuse(403, f"{KEY} is forbidden"), "QWEN_API_KEY"),
        (refuse(402), "paid"),
        (refuse(400, body={"error": {"code": "Arrearage", "message": "good standing"}}), "paid"),
        (refuse(404, "The model `x` does not exist."), "404"),
        (refuse(400, "The model `x` does not exist."), "does not exist"),
        (envelope({"error": {"message": "no auth", "code": 401}}), "QWEN_API_KEY"),
    ],
)
def test_what_no_image_can_mend_stops_the_call(
    chat: ChatStub, analyzer_of: Any, fault: Fault, words: str
) -> None:
    chat.always = fault
    analyzer = analyzer_of(concurrency=2)
    batch = [analyzer.prepare(png(picture(64, 64)), CONTEXT)] * 20
    with pytest.raises(FatalError, match=words) as caught:
        analyzer.analyze(batch)
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert len(chat.requests) <= 2, "the rest of the batch is not sent"


def test_an_unknown_model_is_named_by_its_setting(chat: ChatStub, analyzer_of: Any) -> None:
    chat.models = ("another",)
    with pytest.raises(FatalError) as caught:
        one(analyzer_of())
    assert "qwen_model" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (refuse(429, retry_after=7), 7.0),
        (refuse(429), None),
        (refuse(429, body={"error": {"code": "insufficient_quota"}}), None),
        (envelope({"error": {"code": "429", "message": "slow"}}), None),
    ],
)
def test_a_429_is_throttled_and_the_rest_of_the_batch_is_not_sent(
    chat: ChatStub, analyzer_of: Any, fault: Fault, wait: float | None
) -> None:
    chat.always = fault
    analyzer = analyzer_of(concurrency=2)
    outcomes = analyzer.analyze([analyzer.prepare(png(picture(64, 64)), CONTEXT)] * 12)
    assert {type(outcome) for outcome in outcomes} == {ThrottledError}
    if wait is None:
        assert {outcome.retry_after for outcome in outcomes} == {None}
    else:
        assert all(0 < outcome.retry_after <= wait for outcome in outcomes)
    assert len(chat.requests) <= 2


def test_no_answer_in_time_is_transient(chat: ChatStub, analyzer_of: Any) -> None:
    chat.script = [hang()]
    outcome = one(analyzer_of(timeout_s=0.3))
    assert type(outcome) is TransientError
    assert "no answer within 0.3 s" in str(outcome)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("I can't see an image.", AnalysisUnreadable, ""),
        ("", AnalysisUnreadable, "empty"),
        (json.dumps({"material_type": "oak"}), AnalysisRejected, "at least 4"),
    ],
)
def test_answers_that_say_nothing_are_refused(
    chat: ChatStub, analyzer_of: Any, content: str, error: type[Exception], words: str
) -> None:
    chat.content = lambda body: content
    outcome = one(analyzer_of())
    assert isinstance(outcome, error)
    assert words in str(outcome)


def test_an_answer_that_was_cut_off_may_do_better_next_time(chat: ChatStub, analyzer_of: Any) -> None:
    chat.finish_reason = "length"
    outcome = one(analyzer_of())
    assert isinstance(outcome, TransientError)
    assert "2048 tokens" in str(outcome)


def test_a_refusal_of_the_content_filter_is_final(chat: ChatStub, analyzer_of: Any) -> None:
    chat.finish_reason = "content_filter"
    outcome = one(analyzer_of())
    assert type(outcome) is PermanentError
    assert "content filter" in str(outcome)


def test_an_endpoint_without_response_formats_is_asked_without_one_from_then_on(
    chat: ChatStub, analyzer_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chat.takes_format = False
    analyzer = analyzer_of(concurrency=1)
    with caplog.at_level(logging.WARNING):
        outcomes = analyzer.analyze([analyzer.prepare(png(picture(64, 64)), CONTEXT)] * 3)
    assert all(isinstance(outcome, VisionAnalysis) for outcome in outcomes)
    assert ["response_format" in request.body for request in chat.requests] == [True, False, False, False]
    assert len([r for r in caplog.records if "response format" in r.message]) == 1


def test_outcomes_come_in_order_and_up_to_the_limit_at_once(chat: ChatStub, analyzer_of: Any) -> None:
    gate = threading.Barrier(4)
    lock = threading.Lock()
    active = [0, 0]

    def content(body: dict[str, Any]) -> str:
        with lock:
            active[0] += 1
            active[1] = max(active)
        gate.wait(10)  # passes only when four requests are here together
        with lock:
            active[0] -= 1
        caption = body["messages"][-1]["content"][1]["text"].split("Caption: ")[1]
        return json.dumps({"type": caption, "category": "c", "finish": "f", "pattern": "p"})

    chat.content = content
    analyzer = analyzer_of(concurrency=4)
    data = png(picture(64, 64))
    outcomes = analyzer.analyze([analyzer.prepare(data, ImageContext(caption=f"n{i}")) for i in range(16)])
    assert [outcome.material_type for outcome in outcomes] == [f"n{i}" for i in range(16)]
    assert active == [0, 4]


def test_requests_keep_to_the_quota(chat: ChatStub, analyzer_of: Any) -> None:
    clock = FakeClock()
    analyzer = analyzer_of(concurrency=1, budget=RateBudget(2, 0, clock))
    analyzer.analyze([analyzer.prepare(png(picture(64, 64)), CONTEXT)] * 6)
    assert clock.waits == pytest.approx([61.2, 61.2])


def test_answers_correct_the_estimate_of_tokens(chat: ChatStub, analyzer_of: Any) -> None:
    clock = FakeClock()
    analyzer = analyzer_of(concurrency=1, budget=RateBudget(0, 10_000, clock))
    analyzer.analyze([analyzer.prepare(png(picture(64, 64)), CONTEXT)] * 10)
    assert len(clock.waits) <= 1  # 10 requests of 900 tokens
    assert analyzer.tokens_used == 9000


def test_an_empty_batch_is_no_request(chat: ChatStub, analyzer_of: Any) -> None:
    assert analyzer_of().analyze([]) == []
    assert chat.requests == []


def test_the_key_is_in_no_log_and_no_repr(
    chat: ChatStub, analyzer_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    analyzer = analyzer_of()
    chat.script = [refuse(500), None]
    with caplog.at_level(logging.DEBUG):
        one(analyzer)
        one(analyzer)
    assert KEY not in caplog.text
    assert KEY not in repr(analyzer) + repr(vars(analyzer))
    with pytest.raises(SettingsError, match="QWEN_API_KEY"):
        analyzer_of(api_key="two words")


def test_a_server_of_ones_own_needs_no_key(chat: ChatStub, analyzer_of: Any) -> None:
    analyzer = analyzer_of(api_key=None)
    chat.key = None
    assert isinstance(one(analyzer), VisionAnalysis)


def test_the_settings_describe_the_analyser(chat: ChatStub, made: list[QwenAnalyzer]) -> None:
    settings = load_settings(
        vision_provider="qwen", qwen_base_url=chat.url + "/", qwen_api_key="stub-key", qwen_model="some-vl"
    )
    analyzer = open_qwen(settings, decode)
    made.append(analyzer)
    assert isinstance(one(analyzer), VisionAnalysis)
    assert analyzer.model == "some-vl"
