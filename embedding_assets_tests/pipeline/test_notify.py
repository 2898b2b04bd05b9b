"""Alerts: what they say, that they arrive, and that one that can't be sent fails nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from embedding_assets.pipeline.notify import (
    LogNotifier,
    RunFailureReport,
    WebhookNotifier,
    notify_all,
    open_notifiers,
    without_secrets,
)
from embedding_assets.settings import Settings
from embedding_assets_tests.providers.http_stub import RESET, hang, refuse
from embedding_assets_tests.providers.webhook_stub import WebhookStub

REPORT = RunFailureReport(
    run_id="4f0c",
    job="process_document",
    url="http://127.0.0.1:3000/runs/4f0c",
    assets=("slig_embeddings",),
    reason="2 of 50 documents are not complete.",
    documents=50,
    first_documents=("shop/a", "shop/b"),
    failures_by_class={"permanent": 2, "transient": 1},
    first_failures=("shop/a 0001.png at slig, permanent, 1 attempts: no such colour space",),
)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookStub]:
    monkeypatch.setattr(WebhookNotifier._post.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]
    with WebhookStub() as stub:
        yield stub


def webhook(stub: WebhookStub, **options: float) -> WebhookNotifier:
    return WebhookNotifier(SecretStr(f"{stub.url}"), **options)


def test_a_report_says_run_stage_documents_counts_and_first_failures_in_words_and_in_fields(
    stub: WebhookStub,
) -> None:
    assert notify_all([webhook(stub)], REPORT) == []
    (request,) = stub.requests
    body = request.body
    assert body["event"] == "run_failure"
    assert body["run_id"] == "4f0c"
    assert body["documents"] == 50
    assert body["failures_by_class"] == {"permanent": 2, "transient": 1}
    assert body["first_failures"] == list(REPORT.first_failures)
    for part in (
        REPORT.url,
        "slig_embeddings",
        "shop/b and 48 more",
        "2 permanent, 1 transient",
        "colour space",
    ):
        assert part in body["text"]


@pytest.mark.parametrize("fault", [refuse(503), refuse(429), RESET])
def test_a_webhook_that_stumbles_is_tried_again(stub: WebhookStub, fault: object) -> None:
    stub.script = [fault, fault, None]  # type: ignore[list-item]
    assert notify_all([webhook(stub)], REPORT) == []
    assert len(stub.requests) == 3


def test_a_refusal_is_not_repeated_and_no_problem_shows_the_address(
    stub: WebhookStub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.always = refuse(404)
    (problem,) = notify_all([webhook(stub)], REPORT)
    assert problem == "WebhookNotifier: the webhook answered 404"
    assert len(stub.requests) == 1
    assert stub.url not in caplog.text


def test_a_webhook_that_hangs_gives_up_in_time_and_the_others_are_told(
    stub: WebhookStub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.always = hang()
    with caplog.at_level(logging.ERROR):
        problems = notify_all([webhook(stub, timeout_s=0.1), LogNotifier()], REPORT)
    assert problems == ["WebhookNotifier: the webhook did not answer: ReadTimeout"]
    assert "run 4f0c of process_document failed at slig_embeddings" in caplog.text


def test_the_log_is_the_default_and_the_webhook_comes_with_its_setting(settings: Settings) -> None:
    assert [type(n) for n in open_notifiers(settings)] == [LogNotifier]
    changed = settings.model_copy(
        update={"alert_webhook_url": SecretStr("https://hooks.example.com/T/secret")}
    )
    assert [type(n) for n in open_notifiers(changed)] == [LogNotifier, WebhookNotifier]


def test_secrets_of_the_settings_are_taken_out_of_words(settings: Settings) -> None:
    changed = settings.model_copy(update={"voyage_api_key": SecretStr("pa-12345")})
    assert without_secrets("401 for key pa-12345", changed) == "401 for key ***"
