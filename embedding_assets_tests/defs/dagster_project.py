"""The real code location over a test's project: real assets, jobs and instance; a fake encoder,
analyser and clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from sqlalchemy import Connection

from embedding_assets.definitions import build_defs
from embedding_assets.defs.execution import RunOutcome, run_job
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import StoreUnavailable
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.discovery import LandingWatch
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.pipeline.texts import NearbyTextEmbedder, UnderstandingEmbedder
from embedding_assets.pipeline.vision import VisionAnalysisRunner
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.project import Project


class UnreliableDatabase(Database):
    """A database that is gone for the next `outages` transactions."""

    outages = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("the database is not available: connection refused")
        with super().transaction() as connection:
            yield connection


class SkippedWaits:
    """Stands for the module `time` where Dagster waits to retry a step: its waits pass at once."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def time(self) -> float:
        return time.time() + self._skipped

    def sleep(self, seconds: float) -> None:
        self._skipped += seconds


def resource_for(project: Project, settings: Settings) -> PipelineResource:
    """The resource that gives assets the project's objects."""

    class ProjectResource(PipelineResource):
        def settings(self) -> Settings:
            return settings

        def database(self) -> Database:
            return project.database

        def landing_watch(self) -> LandingWatch:
            return LandingWatch(
                project.database,
                str(project.landing),
                project.limits,
                settle_s=settings.landing_settle_s,
                limit=settings.documents_per_tick,
                clock=project.clock,
            )

        def ingestor(self) -> DocumentIngestor:
            return project.ingestor(settings.max_retries)

        def slig_embedder(
            self, batch_size: int | None = None, max_retries: int | None = None
        ) -> SligEmbedder:
            return project.embedder(
                settings.batch_size if batch_size is None else batch_size,
                settings.max_retries if max_retries is None else max_retries,
            )

        def vision_runner(
            self, batch_size: int | None = None, max_retries: int | None = None
        ) -> VisionAnalysisRunner:
            return project.vision_runner(
                settings.batch_size if batch_size is None else batch_size,
                settings.max_retries if max_retries is None else max_retries,
            )

        def understanding_embedder(
            self, batch_size: int | None = None, max_retries: int | None = None
        ) -> UnderstandingEmbedder:
            return project.understanding_embedder(
                settings.text_batch_size if batch_size is None else batch_size,
                settings.max_retries if max_retries is None else max_retries,
            )

        def nearby_text_embedder(
            self, batch_size: int | None = None, max_retries: int | None = None
        ) -> NearbyTextEmbedder:
            return project.nearby_text_embedder(
                settings.text_batch_size if batch_size is None else batch_size,
                settings.max_retries if max_retries is None else max_retries,
            )

    return ProjectResource()


@dataclass
class DagsterProject:
    """A project, its code location and its instance."""

    project: Project
    settings: Settings
    instance: dg.DagsterInstance
    defs: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Changes settings."""
        self.settings = self.settings.model_copy(update=changes)
        self.defs = build_defs(pipeline=resource_for(self.project, self.settings))

    def run(
        self,
        job: str,
        keys: Sequence[DocumentKey],
        config: dict[str, Any] | None = None,
        asset: str = "slig_embeddings",
    ) -> list[RunOutcome]:
        """Runs a job over documents, with config of one asset."""
        return list(
            run_job(
                self.defs,
                job,
                keys,
                self.instance,
                documents_per_run=self.settings.documents_per_run,
                run_config={"ops": {asset: {"config": config}}} if config else None,
            )
        )

    def embed(self, *keys: DocumentKey, **config: Any) -> RunOutcome:
        """Embeds documents that fit into one run."""
        (outcome,) = self.run("embed_document", keys, config)
        return outcome

    def tick(self, sensor: str, cursor: str | None = None) -> SensorExecutionData:
        """Evaluates a sensor, as the daemon does."""
        context = dg.build_sensor_context(
            instance=self.instance,
            definitions=self.defs,
            sensor_name=sensor,
            cursor=cursor,
            resources={"pipeline": resource_for(self.project, self.settings)},
        )
        return self.defs.resolve_sensor_def(sensor).evaluate_tick(context)

    def launch(self, requests: Sequence[dg.RunRequest]) -> list[dg.ExecuteInProcessResult]:
        """Runs what a sensor requested; like the daemon, at most once for each run key."""
        results = []
        for request in requests:
            if request.run_key and self.instance.get_runs(
                filters=dg.RunsFilter(tags={"dagster/run_key": request.run_key})
            ):
                continue
            checks = request.asset_check_keys
            job = self.defs.resolve_job_def(request.job_name or "").get_subset(
                asset_selection=set(request.asset_selection or ()),
                asset_check_selection=None if checks is None else set(checks),
            )
            results.append(
                job.execute_in_process(
                    instance=self.instance,
                    tags={**request.tags, "dagster/run_key": request.run_key or ""},
                    run_config=request.run_config,
                    partition_key=request.tags.get("dagster/partition"),
                    raise_on_error=False,
                )
            )
        return results

    def materialized(self, asset: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey(asset)))

    def metadata(self, asset: str, key: DocumentKey) -> dict[str, Any]:
        """Values of the partition's latest materialization."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[str(key)]), limit=1
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}

    def events(self, run_id: str, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
        return [
            entry.dagster_event
            for entry in self.instance.all_logs(run_id, of_type=kind)
            if entry.dagster_event is not None
        ]

    def waits(self, run_id: str) -> list[tuple[str, float]]:
        """Step and seconds of each retry that Dagster was asked for."""
        return [
            (str(event.step_key).rpartition(".")[2], float(event.step_retry_data.seconds_to_wait or 0))
            for event in self.events(run_id, dg.DagsterEventType.STEP_UP_FOR_RETRY)
        ]
