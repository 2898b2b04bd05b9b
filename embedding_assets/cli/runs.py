"""Dagster runs started by the command line: in this process, with a progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedding_assets.cli.output import progress_bar
from embedding_assets.deploy.instance import apply_dagster_environment
from embedding_assets.errors import DocumentError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import open_ingestor
from embedding_assets.pipeline.asset_stages import AssetStage, stages_in_use
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database
from embedding_assets.store.documents import coverage_of_documents
from embedding_assets.store.stages import SLIG, VISION


@dataclass
class RunSummary:
    """What became of the documents of a command.

    `failed` holds the reason of each run that failed; `done` the documents of those that succeeded.
    """

    done: list[DocumentKey] = field(default_factory=list)
    unchanged: list[DocumentKey] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def ingest_documents(
    settings: Settings, database: Database, keys: Sequence[DocumentKey], *, force: bool = False
) -> RunSummary:
    """Materializes `document_images` of the documents whose content is new or has changed."""
    ingestor = open_ingestor(settings, database)
    summary = RunSummary()
    targets: list[DocumentKey] = []
    materialized = _materialized(settings, "document_images")
    for key in keys:
        try:
            current = not force and str(key) in materialized and ingestor.is_current(key)
        except DocumentError:
            current = False  # the run records why
        (summary.unchanged if current else targets).append(key)
    with progress_bar("ingest", len(targets), lambda: len(summary.done)):
        _run(
            settings,
            "ingest_document",
            targets,
            summary,
            {"document_images": {"config": {"force": force}}},
            1,
        )
    return summary


def embed_documents(
    settings: Settings,
    database: Database,
    keys: Sequence[DocumentKey],
    *,
    batch_size: int | None = None,
    max_retries: int | None = None,
) -> RunSummary:
    """Runs all stages in use over the documents; a stage that fails does not keep the others from running.

    Args:
        batch_size: of the visual and vision stages; None takes the setting.
        max_retries: of all stages; None takes the setting.
    """
    summary = RunSummary()
    complete: set[DocumentKey] | None = None
    done: set[DocumentKey] = set()
    for stage in stages_in_use(settings):
        size = batch_size if stage.name in (SLIG, VISION) else None
        run = run_stage(settings, database, stage, keys, batch_size=size, max_retries=max_retries)
        summary.failed += run.failed
        done |= set(run.done)
        complete = set(run.unchanged) if complete is None else complete & set(run.unchanged)
    summary.unchanged = sorted(complete or ())
    summary.done = sorted(done)
    return summary


def run_stage(
    settings: Settings,
    database: Database,
    stage: AssetStage,
    keys: Sequence[DocumentKey],
    *,
    batch_size: int | None = None,
    max_retries: int | None = None,
) -> RunSummary:
    """Materializes a stage's asset for the documents that are not materialized, or lack something."""
    summary = RunSummary()
    materialized = _materialized(settings, stage.asset)
    with database.transaction() as connection:
        rows = coverage_of_documents(connection, keys, stage)
    targets: list[DocumentKey] = []
    for row in rows:
        done = str(row.key) in materialized and row.is_complete(settings.min_coverage)
        (summary.unchanged if done else targets).append(row.key)
    before = sum(row.embedded for row in rows)
    given = {"batch_size": batch_size, "max_retries": max_retries}
    config = {name: value for name, value in given.items() if value is not None}

    def count() -> int:
        with database.transaction() as connection:
            return sum(row.embedded for row in coverage_of_documents(connection, keys, stage)) - before

    with progress_bar(stage.label, sum(row.missing for row in rows), count):
        _run(
            settings,
            stage.job,
            targets,
            summary,
            {stage.asset: {"config": config}},
            settings.documents_per_run,
            asset=stage.asset,
        )
    return summary


def _materialized(settings: Settings, asset: str) -> set[str]:
    apply_dagster_environment(settings)
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def _run(
    settings: Settings,
    job: str,
    keys: Sequence[DocumentKey],
    summary: RunSummary,
    ops: dict[str, Any],
    documents_per_run: int,
    asset: str | None = None,
) -> None:
    if not keys:
        return
    import dagster as dg

    from embedding_assets.definitions import build_defs
    from embedding_assets.defs.execution import run_job

    with dg.DagsterInstance.get() as instance:
        for outcome in run_job(
            build_defs(),
            job,
            keys,
            instance,
            documents_per_run=documents_per_run,
            run_config={"ops": ops},
            asset=asset,
        ):
            if outcome.success:
                summary.done.extend(outcome.keys)
            else:
                summary.failed.append(outcome.reason)


def run_asset(settings: Settings, asset: str, keys: Sequence[DocumentKey], summary: RunSummary) -> None:
    """Materializes an asset for documents in this process, whatever they have; adds to `summary`."""
    apply_dagster_environment(settings)
    done = len(summary.done)
    with progress_bar(asset, len(keys), lambda: len(summary.done) - done):
        _run(settings, "process_document", keys, summary, {}, settings.documents_per_run, asset=asset)


@dataclass(frozen=True)
class Submitted:
    """A backfill that was handed to the daemon."""

    backfill_id: str
    daemon_running: bool

    def describe(self, settings: Settings) -> str:
        """Where to watch it, and what to do where nothing carries it out."""
        where = f"Backfill {self.backfill_id}: {settings.ui_url}/runs/b/{self.backfill_id}"
        if self.daemon_running:
            return where
        return f"{where}\nNo daemon is running: it begins when `embedding-assets up` does."


def submit(settings: Settings, targets: Mapping[str, Sequence[DocumentKey]], *, title: str) -> Submitted:
    """Asks the daemon to materialize documents: for each asset, these."""
    apply_dagster_environment(settings)
    import dagster as dg

    from embedding_assets.defs.backfills import daemon_is_running, submit_backfill

    with dg.DagsterInstance.get() as instance:
        backfill_id = submit_backfill(instance, targets, title=title)
        return Submitted(backfill_id, daemon_is_running(instance))


def drop_partitions(settings: Settings, keys: Sequence[DocumentKey]) -> None:
    """Removes the documents' partitions.

    Raises:
        DocumentError: a run that waits or is under way has one of them.
    """
    apply_dagster_environment(settings)
    import dagster as dg

    from embedding_assets.defs.partitions import documents, partitions_in_flight

    with dg.DagsterInstance.get() as instance:
        busy = partitions_in_flight(instance)
        if used := [key for key in keys if str(key) in busy]:
            raise DocumentError(f"{used[0]} is in use by a run", hint="wait for its end, or cancel it")
        for key in keys:
            instance.delete_dynamic_partition(documents.name or "", str(key))
