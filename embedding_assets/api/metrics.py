"""Figures for Prometheus: what this process measures, and what the database counts at the moment of asking."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_assets.api.services import Services
from embedding_assets.errors import EmbeddingAssetsError
from embedding_assets.pipeline.workspace_coverage import read_workspace_coverage
from embedding_assets.search.result import SearchResult
from embedding_assets.store.jobs import count_jobs

logger = logging.getLogger(__name__)

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and histograms of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "embedding_assets_http_requests",
            "Answers.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "embedding_assets_http_request_seconds",
            "From a request's head to the end of its answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.search_seconds = Histogram(
            "embedding_assets_search_seconds",
            "Of a search, by its steps: plan, encode, candidates, scores, details, total.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.arm_seconds = Histogram(
            "embedding_assets_search_arm_seconds",
            "To make an arm's query vector, its calibration included.",
            ["arm"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.arms_left_out = Counter(
            "embedding_assets_search_arms_left_out",
            "Searches in which an arm could not be asked.",
            ["arm"],
            registry=self.registry,
        )

    def observe_search(self, result: SearchResult) -> None:
        """Notes how long a search and each of its arms took."""
        for stage, milliseconds in result.timings_ms.items():
            self.search_seconds.labels(stage).observe(milliseconds / 1000)
        for arm in result.arms:
            if not arm.left_out:
                self.arm_seconds.labels(arm.arm).observe(arm.encode_ms / 1000)
            elif arm.configured:
                self.arms_left_out.labels(arm.arm).inc()

    def render(self, known: Services, workspaces: Sequence[str], *, everywhere: bool) -> bytes:
        """All figures in Prometheus' text format.

        Args:
            workspaces: those that are counted.
            everywhere: whether the asker may see every workspace, and so Dagster's queue, which has runs of all.
        """
        counted = CollectorRegistry()
        images = Gauge(
            "embedding_assets_images",
            "Images of a workspace at a stage, by state: embedded, skipped, rejected, missing.",
            ["workspace", "stage", "state"],
            registry=counted,
        )
        documents = Gauge(
            "embedding_assets_documents",
            "Documents of a workspace at a stage: complete, incomplete.",
            ["workspace", "stage", "state"],
            registry=counted,
        )
        coverage = Gauge(
            "embedding_assets_coverage_ratio",
            "Embedded / (images - skipped).",
            ["workspace", "stage"],
            registry=counted,
        )
        failures = Gauge(
            "embedding_assets_failures",
            "Open failures.",
            ["workspace", "stage", "error_class"],
            registry=counted,
        )
        vectors = Gauge(
            "embedding_assets_vectors",
            "Images with a vector, by collection.",
            ["workspace", "collection"],
            registry=counted,
        )
        jobs = Gauge("embedding_assets_jobs", "Jobs by state.", ["workspace", "state"], registry=counted)
        for workspace in workspaces:
            found = read_workspace_coverage(known.database, workspace, known.settings, 1)
            for name, stage in found.stages.items():
                total = stage.total
                for state in ("embedded", "skipped", "rejected", "missing"):
                    images.labels(workspace, name, state).set(getattr(total, state))
                documents.labels(workspace, name, "complete").set(total.complete)
                documents.labels(workspace, name, "incomplete").set(total.documents - total.complete)
                coverage.labels(workspace, name).set(total.ratio)
            for name, by_class in found.failures.items():
                for error_class, count in by_class.items():
                    failures.labels(workspace, name, error_class).set(count)
            for name, count in found.vectors.items():
                vectors.labels(workspace, name).set(count)
            with known.database.transaction() as connection:
                for state, count in count_jobs(connection, workspace).items():
                    jobs.labels(workspace, state).set(count)
        if everywhere:
            self._queue(known, counted)
        return generate_latest(self.registry) + generate_latest(counted)

    def _queue(self, known: Services, registry: CollectorRegistry) -> None:
        """Dagster's queue. Where it can't be asked, its series is absent, which an alert can tell."""
        queue = Gauge(
            "embedding_assets_runs", "Dagster runs that have not ended.", ["status"], registry=registry
        )
        try:
            for status, count in known.run_queue.depth().items():
                queue.labels(status).set(count)
        except EmbeddingAssetsError as error:
            logger.warning("the queue can't be counted: %s", error)


class MeasureRequests:
    """Counts answers and their time, by route: the pattern, never the address, whose ids are endless."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            method = scope["method"] if re.fullmatch(r"[A-Z]{3,7}", scope["method"]) else "other"
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.request_seconds.labels(method, route).observe(time.perf_counter() - started)
