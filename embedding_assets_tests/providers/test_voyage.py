"""Voyage AI, one call at a time: what each fault of the service becomes."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from typing import Any

import numpy as np
import pytest

from embedding_assets.encoders.rate_limit import RateBudget
from embedding_assets.encoders.voyage import VoyageEmbedder
from embedding_assets.errors import (
    EmbeddingAssetsError,
    FatalError,
    PermanentError,
    SettingsError,
    ThrottledError,
    TooLargeError,
    TransientError,
)
from embedding_assets_tests.providers.clocks import FakeClock, no_quota
from embedding_assets_tests.providers.stubs import (
    CUT_OFF,
    DOUBLE_INDEX,
    ONE_EXTRA,
    ONE_MISSING,
    RESET,
    SWAPPED,
    TRUNCATED,
    WITH_NAN,
    ZEROS,
    Fault,
    Quota,
    VoyageStub,
    envelope,
    hang,
    of_dimension,
    refuse,
    vector_of,
)

KEY = "pa-very-secret-key"
TEXTS = ["oak floor", "blue tile", "linen curtain"]


def embedder_of(stub: VoyageStub, **changes: Any) -> VoyageEmbedder:
    stub.key = KEY
    options: dict[str, Any] = {"template": "t1", "base_url": stub.url, "timeout_s": 5.0, "budget": no_quota()}
    return VoyageEmbedder(changes.pop("api_key", KEY), **{**options, **changes})


def error_of(stub: VoyageStub, texts: list[str] = TEXTS, **changes: Any) -> EmbeddingAssetsError:
    with pytest.raises(EmbeddingAssetsError) as caught:
        embedder_of(stub, **changes).embed_documents(texts)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error.hint)
    assert KEY not in shown
    assert len(stub.requests) <= 1, "a provider never retries"
    return error


def test_documents_and_queries_are_vectors_of_the_right_kind(voyage: VoyageStub) -> None:
    embedder = embedder_of(voyage)
    documents = embedder.embed_documents(TEXTS)
    queries = embedder.embed_queries(TEXTS[:1])
    assert documents.shape == (3, 1024)
    assert documents.dtype == np.float32
    assert np.linalg.norm(documents, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert documents[1] == pytest.approx(vector_of(TEXTS[1], 1024), abs=1e-6)
    assert queries[0] == pytest.approx(vector_of(TEXTS[0], 1024, "query"), abs=1e-6)
    sent = [request.body for request in voyage.requests]
    assert [body["input_type"] for body in sent] == ["document", "query"]
    assert sent[0]["model"] == "voyage-3.5"
    assert sent[0]["output_dimension"] == 1024
    assert sent[0]["truncation"] is True
    assert embedder.tokens_used == 8


def test_the_space_names_model_dimension_and_template(voyage: VoyageStub) -> None:
    space = embedder_of(voyage).space
    assert (space.model, space.dimension, space.template) == ("voyage-3.5", 1024, "t1")
    others = [{"template": "t2"}, {"dimension": 512}, {"model": "voyage-3.5-lite"}]
    ids = {embedder_of(voyage, **change).space.space_id for change in others} | {space.space_id}
    assert len(ids) == 4


def test_no_texts_cost_no_request(voyage: VoyageStub) -> None:
    assert embedder_of(voyage).embed_documents([]).shape == (0, 1024)
    assert voyage.requests == []


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (refuse(500), TransientError, "500"),
        (refuse(502, body="<html>Bad gateway</html>"), TransientError, "502"),
        (refuse(503, retry_after=9), TransientError, "503"),
        (refuse(408), TransientError, "408"),
        (RESET, TransientError, ""),
        (CUT_OFF, TransientError, ""),
        (TRUNCATED, TransientError, ""),
        (ONE_MISSING, TransientError, "asked for 3 vectors, got 2"),
        (ONE_EXTRA, TransientError, "asked for 3 vectors, got 4"),
        (DOUBLE_INDEX, TransientError, "not numbered from 0 to 2"),
        (WITH_NAN, TransientError, "NaN"),
        (ZEROS, TransientError, "zeros"),
        (envelope({"error": {"message": "overloaded"}}), TransientError, "can't be read"),
        (envelope({"detail": "overloaded"}), TransientError, "can't be read"),
        (envelope([]), TransientError, "can't be read"),
        (envelope({"data": None}), TransientError, "can't be read"),
        (envelope({"data": [{"index": 0}], "usage": {}}), TransientError, "can't be read"),
        (envelope({"data": [{"index": 0, "embedding": "AAA"}]}), TransientError, "can't be read"),
        (envelope("<html>maintenance</html>"), TransientError, "maintenance"),
        (of_dimension(512), FatalError, "expected vectors of 1024 numbers, got 512"),
        (refuse(401, f"Provided API key {KEY} is invalid."), FatalError, "VOYAGE_API_KEY"),
        (refuse(403, f"{KEY} is forbidden"), FatalError, "VOYAGE_API_KEY"),
        (refuse(402, "no credit"), FatalError, "paid"),
        (refuse(404), FatalError, "404"),
        (refuse(400, "Model voyage-9 is not supported."), FatalError, "not supported"),
        (refuse(400, f"bad input {KEY}"), PermanentError, "bad input"),
        (refuse(422, "malformed"), PermanentError, "malformed"),
        (refuse(413, body="<html>Too large</html>"), TooLargeError, "413"),
        (
            refuse(400, "The max allowed tokens per submitted batch is 320000. Your batch has 400000 tokens"),
            TooLargeError,
            "max allowed tokens",
        ),
    ],
)
def test_each_fault_has_its_class(
    voyage: VoyageStub, fault: Fault, error: type[Exception], words: str
) -> None:
    voyage.script = [fault]
    found = error_of(voyage)
    assert type(found) is error
    assert words in str(found)


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (refuse(429, "slow down", retry_after=7), 7.0),
        (refuse(429, "slow down"), None),
        (refuse(429, body="<html>Too many requests</html>", retry_after="2.5"), 2.5),
        (refuse(429, retry_after="nonsense"), None),
    ],
)
def test_a_429_is_throttled_with_the_wait_that_it_tells(
    voyage: VoyageStub, fault: Fault, wait: float | None
) -> None:
    voyage.script = [fault]
    found = error_of(voyage)
    assert isinstance(found, ThrottledError)
    assert found.retry_after == wait


def test_no_answer_in_time_is_transient(voyage: VoyageStub) -> None:
    voyage.script = [hang()]
    found = error_of(voyage, timeout_s=0.2)
    assert isinstance(found, TransientError)
    assert "timed out" in str(found)


def test_nobody_listening_is_transient() -> None:
    with VoyageStub() as stub:
        url = stub.url
    with pytest.raises(TransientError):
        VoyageEmbedder(KEY, base_url=url, budget=no_quota()).embed_documents(TEXTS)


def test_swapped_answers_are_put_in_order(voyage: VoyageStub) -> None:
    voyage.script = [SWAPPED]
    vectors = embedder_of(voyage).embed_documents(TEXTS)
    assert vectors == pytest.approx(np.stack([vector_of(text, 1024) for text in TEXTS]), abs=1e-6)


def test_an_over_long_request_is_too_large_and_an_over_long_text_is_permanent() -> None:
    with VoyageStub(max_tokens=4, key=KEY) as stub:
        assert isinstance(error_of(stub), TooLargeError)
    with VoyageStub(max_tokens=4, key=KEY) as stub:
        assert type(error_of(stub, ["one two three four five"])) is PermanentError


def test_more_texts_than_a_request_takes_are_not_sent(voyage: VoyageStub) -> None:
    found = error_of(voyage, ["oak"] * 1001)
    assert isinstance(found, TooLargeError)
    assert voyage.requests == []


def test_a_blank_text_is_not_sent(voyage: VoyageStub) -> None:
    assert isinstance(error_of(voyage, ["oak", " "]), PermanentError)
    assert voyage.requests == []


@pytest.mark.parametrize("key", [None, "", "  ", "two words", "k\u00e9y", "line\nbreak"])
def test_a_missing_or_malformed_key_is_refused_when_the_embedder_is_made(key: str | None) -> None:
    with pytest.raises(SettingsError, match="VOYAGE_API_KEY") as caught:
        VoyageEmbedder(key)
    assert not key or not key.strip() or key not in str(caught.value)


def test_the_key_is_in_no_log_and_no_repr(voyage: VoyageStub, caplog: pytest.LogCaptureFixture) -> None:
    embedder = embedder_of(voyage)
    voyage.script = [refuse(401, "no"), refuse(429, "slow"), None]
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            with pytest.raises(EmbeddingAssetsError):
                embedder.embed_documents(TEXTS)
        embedder.embed_documents(TEXTS)
    assert KEY not in caplog.text
    assert KEY not in repr(embedder) + repr(vars(embedder))


# -- quota ---------------------------------------------------------------------------------------------------


def test_a_429_pauses_every_caller_of_the_account(voyage: VoyageStub) -> None:
    clock = FakeClock()
    budget = RateBudget(100, 10_000, clock)
    first, second = embedder_of(voyage, budget=budget), embedder_of(voyage, budget=budget)
    voyage.script = [refuse(429, retry_after=30)]
    with pytest.raises(ThrottledError):
        first.embed_documents(TEXTS)
    clock.time = 10
    with pytest.raises(ThrottledError) as caught:
        second.embed_queries(TEXTS)
    assert caught.value.retry_after == 20
    assert len(voyage.requests) == 1
    clock.sleep(20)
    second.embed_queries(TEXTS)
    assert len(voyage.requests) == 2


def test_an_answers_tokens_correct_the_estimate() -> None:
    with VoyageStub(count_tokens=lambda text: len(text), key=KEY) as stub:
        embedder = embedder_of(stub)
        text = "porcelain tile, matte, 60x120 cm, slip rating R10"
        for _ in range(20):
            embedder.embed_documents([text])
        assert embedder.count_tokens(text) == pytest.approx(len(text), rel=0.05)
        assert embedder.tokens_used == 20 * len(text)


def test_requests_are_packed_by_count_and_by_tokens(voyage: VoyageStub) -> None:
    embedder = embedder_of(voyage)
    texts = ["word " * 100] * 10
    each = embedder.count_tokens(texts[0])
    assert embedder.pack(texts, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert embedder.pack(["oak"] * 2500, 5000) == [
        list(range(1000)),
        list(range(1000, 2000)),
        list(range(2000, 2500)),
    ]
    tight = embedder_of(voyage, budget=RateBudget(2000, each * 3 * 32, FakeClock()))
    assert tight.pack(texts, 100) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_small_quota_of_requests_gets_large_requests(voyage: VoyageStub) -> None:
    embedder = embedder_of(voyage, budget=RateBudget(3, 10_000, FakeClock()))
    assert embedder.max_request_tokens == pytest.approx(10_000 / 3)


def test_a_queue_under_quota_drains_in_time_without_one_429() -> None:
    """A scaled-down minute, the real clock and four callers.

    The stub's minute is the shorter one: on a busy machine a thread may be held up between the release of a
    request and its sending for longer than the budget's slack, a fiftieth of a minute, is here.
    """
    window = 0.5
    with VoyageStub(quota=Quota(10, 10_000, 0.6 * window), key=KEY) as stub:
        embedder = embedder_of(stub, budget=RateBudget(10, 10_000, window_s=window))
        embedder.embed_queries(["warm up"])
        start = time.monotonic()
        work = [[f"oak {n}"] for n in range(60)]
        threads = [
            threading.Thread(target=lambda part=work[i::4]: [embedder.embed_documents(t) for t in part])
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        took = time.monotonic() - start
        assert len(stub.answered) == 61
        assert [request.status for request in stub.requests if request.status != 200] == []
        assert 5 * window <= took <= 10 * window
