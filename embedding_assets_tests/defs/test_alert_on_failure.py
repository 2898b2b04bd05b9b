"""Sensor alert_on_failure: what people are told about a failed run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import dagster as dg
import pytest
from pydantic import SecretStr

from embedding_assets.defs.sensors.alert_on_failure import alert_on_failure
from embedding_assets.errors import FatalError, PermanentError
from embedding_assets_tests.defs.dagster_project import DagsterProject, UnreliableDatabase, resource_for
from embedding_assets_tests.pipeline.project import png
from embedding_assets_tests.providers.http_stub import refuse
from embedding_assets_tests.providers.webhook_stub import WebhookStub


@pytest.fixture
def stub(dagster: DagsterProject) -> Iterator[WebhookStub]:
    with WebhookStub() as stub:
        dagster.configure(alert_webhook_url=SecretStr(stub.url))
        yield stub


def report(dagster: DagsterProject, run_id: str) -> None:
    """Lets the sensor handle a run's failure."""
    run = dagster.instance.get_run_by_id(run_id)
    (event,) = dagster.events(run_id, dg.DagsterEventType.RUN_FAILURE)
    assert run is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure",
        dagster_event=event,
        dagster_instance=dagster.instance,
        dagster_run=run,
        resources={"pipeline": resource_for(dagster.project, dagster.settings)},
    ).for_run_failure()
    alert_on_failure(context)


def test_it_names_documents_assets_counts_and_the_first_five_failures(
    dagster: DagsterProject, stub: WebhookStub
) -> None:
    project = dagster.project
    keys = [project.ingested(f"shop/doc{n}", range(10 * n, 10 * n + 4)) for n in range(3)]
    for seed in (10, 11, 12, 20, 21, 22):
        project.encoder.poison[hashlib.sha256(png(seed)).hexdigest()] = PermanentError("no such colour space")
    outcome = dagster.embed(*keys)
    report(dagster, outcome.run_id)
    (request,) = stub.requests
    body = request.body
    assert body["run_id"] == outcome.run_id
    assert body["job"] == "embed_document"
    assert body["assets"] == ["slig_embeddings"]
    assert body["url"] == f"http://127.0.0.1:3000/runs/{outcome.run_id}"
    assert (body["documents"], body["first_documents"]) == (3, ["shop/doc0", "shop/doc1", "shop/doc2"])
    assert "2 of 3 documents are not complete" in body["reason"]
    assert body["failures_by_class"] == {"permanent": 6}
    assert len(body["first_failures"]) == 5
    assert body["first_failures"][0] == (
        "shop/doc1 0000.png at slig, permanent, 1 attempts: no such colour space"
    )


def test_the_class_of_a_fatal_error_is_told_and_no_secret_is(
    dagster: DagsterProject, stub: WebhookStub
) -> None:
    dagster.configure(voyage_api_key=SecretStr("pa-very-secret"))
    key = dagster.project.ingested("shop/doc", [1])
    content = hashlib.sha256(png(1)).hexdigest()
    dagster.project.encoder.poison[content] = FatalError("bad key pa-very-secret", hint="get a new one")
    report(dagster, dagster.embed(key).run_id)
    body = stub.requests[0].body
    assert body["error_class"] == "fatal"
    assert "bad key ***" in body["reason"]
    assert "get a new one" in body["reason"]
    assert "pa-very-secret" not in str(body)


def test_a_run_that_dagster_retries_is_not_reported(dagster: DagsterProject, stub: WebhookStub) -> None:
    key = dagster.project.land_images("shop/doc", [1])
    outcome = dagster.embed(key)
    dagster.instance.add_run_tags(outcome.run_id, {"dagster/will_retry": "true"})
    report(dagster, outcome.run_id)
    assert stub.requests == []


def test_a_webhook_that_refuses_and_a_database_that_is_away_fail_nothing(
    dagster: DagsterProject, stub: WebhookStub
) -> None:
    key = dagster.project.land_images("shop/doc", [1])
    outcome = dagster.embed(key)
    stub.always = refuse(400)
    report(dagster, outcome.run_id)
    database = dagster.project.database
    assert isinstance(database, UnreliableDatabase)
    database.outages = 1
    report(dagster, outcome.run_id)
    assert len(stub.requests) == 2
    assert "not ingested yet" in stub.requests[1].body["reason"]
