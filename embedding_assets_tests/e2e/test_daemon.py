"""The whole, with dagster-daemon and webserver really running: what lands is embedded, whatever is killed.

45 documents land, one of them broken; their runs are killed in each stage, and the daemon recovers by itself. Then a
backfill of 30 old documents, two of them broken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from sqlalchemy import text

from embedding_assets.deploy.instance import dagster_environment
from embedding_assets.ingest.landing import locate
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.discovery import LandingWatch
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.settings import PREFIX, load_settings
from embedding_assets.store.database import Database
from embedding_assets.store.landed import Handled, mark_handled
from embedding_assets_tests.e2e.pauses import FOLDER, PAUSES
from embedding_assets_tests.faults.processes import environment
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.providers.webhook_stub import WebhookStub

pytestmark = pytest.mark.slow

PATIENCE_S = 240.0
PER_RUN = 15
KILLED = {INGEST: 1, "slig": 4, "vision": 16, "understanding": 20, "text": 33}
"""Stage -> the document at which its process is killed: at most two in each run, as runs are retried twice."""
BROKEN_PDF = b"%PDF-1.7\nnothing but this line"
ASSETS = (
    "document_images",
    "slig_embeddings",
    "vision_analysis",
    "understanding_embeddings",
    "text_embeddings",
)


def wait_until(condition: Callable[[], Any], what: str, alive: Callable[[], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        assert alive(), f"a service ended before {what}"
        time.sleep(0.1)
    return found


@dataclass
class Deployment:
    """Daemon and webserver over a project."""

    project: Project
    variables: dict[str, str]
    port: int
    pauses: Path
    logs: Path
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        module = ("-m", "embedding_assets_tests.e2e.code_location")
        commands = {
            "daemon": [sys.executable, "-m", "dagster._daemon", "run", *module],
            "webserver": [sys.executable, "-m", "dagster_webserver", "-p", str(self.port), *module],
        }
        for name, command in commands.items():
            with (self.logs / f"{name}.log").open("wb") as log:
                self.services.append(
                    subprocess.Popen(
                        command, env=self.variables, stdout=log, stderr=log, start_new_session=True
                    )
                )

    def stop(self) -> None:
        for service in self.services:
            service.terminate()
        for service in self.services:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.wait(30)
            try:
                os.killpg(service.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            service.wait()

    def alive(self) -> bool:
        return all(service.poll() is None for service in self.services)

    def command(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "embedding_assets.cli", *arguments, "--json"],
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def graphql(self, query: str) -> Any:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/graphql", json={"query": query}, timeout=30)
        answer.raise_for_status()
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def alerts() -> Iterator[WebhookStub]:
    with WebhookStub() as stub:
        yield stub


@pytest.fixture
def deployment(
    database: Database,
    database_url: str,
    tmp_path: Path,
    alerts: WebhookStub,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    """Not started yet. DAGSTER_HOME is made by the package, with its own dagster.yaml."""
    project = Project(database, tmp_path)
    settings = {
        "DATABASE_URL": database_url,
        f"{PREFIX}VAR_DIR": str(tmp_path / "var"),
        f"{PREFIX}LANDING_ROOT": str(project.landing),
        f"{PREFIX}DOCUMENTS_PER_RUN": str(PER_RUN),
        f"{PREFIX}LANDING_SETTLE_S": "1",
        f"{PREFIX}ALERT_WEBHOOK_URL": alerts.url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    pauses = tmp_path / "pauses"
    pauses.mkdir()
    variables = {
        **environment(),
        **settings,
        **dagster_environment(load_settings()),
        FOLDER: str(tmp_path),
        PAUSES: str(pauses),
    }
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "DAGSTER_STORAGE_DIR"):
        monkeypatch.setenv(name, variables[name])
    deployment = Deployment(project, variables, free_port(), pauses, tmp_path)
    yield deployment
    deployment.stop()


def land(project: Project, workspace: str, broken: set[int], seeds: range) -> list[DocumentKey]:
    return [
        project.land(f"{workspace}/doc{n:03d}.pdf", BROKEN_PDF)
        if n in broken
        else project.land_images(f"{workspace}/doc{n:03d}", [seed])
        for n, seed in enumerate(seeds)
    ]


def check_complete(deployment: Deployment, instance: dg.DagsterInstance, keys: set[str], images: int) -> None:
    for asset in ASSETS:
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) >= keys, asset
    project = deployment.project
    project.check_flags_equal_vectors()
    assert len(project.vectors()) == images
    assert len(project.vectors(collection="image_understanding_embeddings")) == images


def test_what_lands_is_embedded_whatever_is_killed_and_old_documents_are_backfilled(
    deployment: Deployment, alerts: WebhookStub
) -> None:
    project = deployment.project
    landed = land(project, "shop", broken={38}, seeds=range(45))
    good = {str(key) for n, key in enumerate(landed) if n != 38}
    for stage, number in KILLED.items():
        (deployment.pauses / stage).write_text(hashlib.sha256(png(number)).hexdigest())
    watch = LandingWatch(project.database, str(project.landing), IngestLimits(), settle_s=1, limit=1000)
    watch.look()  # so that the daemon's first tick finds them settled
    with dg.DagsterInstance.get() as instance:
        deployment.start()

        # -- every stage is killed once; nobody helps ----------------------------------------------------------
        left = set(KILLED)
        while left:
            stage = wait_until(
                lambda: next((s for s in left if (deployment.pauses / f"{s}.paused").exists()), None),
                f"a run works at one of {left}",
                deployment.alive,
            )
            os.kill(int((deployment.pauses / f"{stage}.paused").read_text()), signal.SIGKILL)
            left.remove(stage)
        wait_until(
            lambda: all(instance.get_materialized_partitions(dg.AssetKey(a)) >= good for a in ASSETS),
            "all documents are materialized",
            deployment.alive,
        )
        wait_until(
            lambda: all(run.is_finished for run in instance.get_runs()),
            "all runs have ended",
            deployment.alive,
        )
        check_complete(deployment, instance, good, images=44)
        # Schedules may have started runs of their own, whatever the hour.
        runs = instance.get_runs(filters=dg.RunsFilter(job_name="process_document"))
        retried = [run for run in runs if run.tags.get("dagster/will_retry") == "true"]
        assert len(retried) == len(KILLED)
        assert len(runs) == 3 + len(KILLED)
        # The run of the broken document failed for good, and was neither retried nor kept from the alert.
        (broken,) = [run for run in runs if run.is_failure and run not in retried]
        assert "dagster/parent_run_id" in broken.tags  # it was killed once, too

        # -- a backfill of old documents -----------------------------------------------------------------------
        old = land(project, "archive", broken={3, 17}, seeds=range(100, 130))
        look = watch.look()
        assert look.settling == 30
        register_as_old(project, old)
        answer = deployment.command("backfill", "--missing", "--workspace", "archive")
        assert answer["assets"] == dict.fromkeys(ASSETS, 30)
        assert answer["daemon_running"]
        readable = {str(key) for n, key in enumerate(old) if n not in {3, 17}}
        wait_until(
            lambda: all(instance.get_materialized_partitions(dg.AssetKey(a)) >= readable for a in ASSETS),
            "the backfill has materialized all that can be read",
            deployment.alive,
        )
        check_complete(deployment, instance, readable, images=44 + 28)
        backfill_runs = instance.get_runs(
            filters=dg.RunsFilter(tags={"dagster/backfill": answer["backfill_id"]})
        )
        assert len(backfill_runs) == 2
        for asset in ASSETS:
            assert not {str(old[3]), str(old[17])} & instance.get_materialized_partitions(dg.AssetKey(asset))

        # -- people were told of the broken document --------------------------------------------------------------
        alert = wait_until(
            lambda: [r.body for r in alerts.requests if r.body["run_id"] == broken.run_id],
            "the alert has come",
            deployment.alive,
        )[0]
        assert "shop/doc038.pdf" in alert["reason"]
        assert set(alert["assets"]) == set(ASSETS)
        assert alert["first_failures"][0].startswith("shop/doc038.pdf the document at ingest, permanent")

        # -- the webserver shows it ----------------------------------------------------------------------------
        shown = deployment.graphql(
            """{ assetNodes { assetKey { path } partitionStats { numPartitions numMaterialized numFailed } } }"""
        )
        stats = {node["assetKey"]["path"][0]: node["partitionStats"] for node in shown["assetNodes"]}
        assert set(stats) >= set(ASSETS)
        assert stats["slig_embeddings"]["numMaterialized"] == 44 + 28
        assert stats["slig_embeddings"]["numPartitions"] == 75


def register_as_old(project: Project, keys: list[DocumentKey]) -> None:
    """Documents that were known before there was a sensor: with rows, and not to be taken for new ones."""
    ingestor = project.ingestor()
    for key in keys:
        ingestor.register(locate(str(project.landing), key))
    with project.database.transaction() as connection:
        rows = connection.execute(
            text("SELECT document_id, fingerprint FROM landed_documents WHERE workspace_id = 'archive'")
        )
        prints = {row[0]: row[1] for row in rows}
        mark_handled(connection, [Handled(key, prints[key.document_id], "known", None) for key in keys])
