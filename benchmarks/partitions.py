"""What grows with the number of documents: 1,000, 10,000 and 100,000 that are already done.

Rows, vectors, partitions and materializations are written in bulk (`filled_installation.py`); then everything that an
operator or the daemon does day to day is timed at each size. Each figure is the better of two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Any

from filled_installation import (
    ASSETS,
    IMAGES_PER_DOCUMENT,
    document_key,
    fill_instance,
    fill_rows,
    land_documents,
)
from reporting import Bar, arguments, finish, machine, print_machine, print_table
from workload import installation

SIZES = (1_000, 10_000, 100_000)
CHUNK = 50
"""Documents in a run."""

STATUS_QUERY = """
query Page($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numFailed numPartitions numMaterializing }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
  partitionKeysByDimension { name partitionKeys }
  assetMaterializations(limit: 1) { partition }
} } }
"""
"""What the asset's page asks for its partitions."""

Figures = dict[str, float]


def best(call: Callable[[], Any], times: int = 2) -> float:
    """Seconds of the fastest of a few calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Runs the benchmark."""
    args = arguments(__doc__).parse_args()
    sizes = SIZES[:2] if args.quick else SIZES
    facts = machine("dagster", "dagster-graphql", "psycopg2-binary")
    print_machine(facts)
    warnings.filterwarnings("ignore", module="dagster")
    with installation(SLIG_MODEL="demo", SUPPORTED_PARTITIONS="1000000") as settings:
        import dagster as dg

        from embedding_assets.defs.resources import PipelineResource
        from embedding_assets.deploy.instance import apply_dagster_environment
        from embedding_assets.store.database import open_database

        database = open_database(settings)
        apply_dagster_environment(settings)
        resource = PipelineResource()
        for runner in (
            resource.slig_embedder(),
            resource.understanding_embedder(),
            resource.nearby_text_embedder(),
        ):
            runner.preflight()  # makes the collections, each in the space of its model
        figures: dict[int, Figures] = {}
        with dg.DagsterInstance.get() as instance:
            done = 0
            for size in sizes:
                seconds = fill_rows(database, done, size) + fill_instance(instance, done, size)
                land_documents(settings.landing, done, size)
                print(f"{size:,} documents written, {seconds:.0f} s", flush=True)
                done = size
                figures[size] = measure(settings, database, instance, size)
    rows = [
        {"what": name, **{f"{size:,}": figures[size].get(name) for size in sizes}}
        for name in figures[sizes[-1]]
    ]
    print(f"\nSeconds, by the number of documents of {IMAGES_PER_DOCUMENT} images that are done")
    print_table(rows)
    finish({"machine": facts, "rows": rows}, bars(figures[sizes[-1]]), args)


def bars(figures: Figures) -> list[Bar]:
    """What the largest size has to reach."""
    limits = {"sensor ": 10.0, "planning one document": 0.05, "coverage": 5.0, "embedding_coverage": 5.0}
    return [
        Bar(f"{name} (s)", value, maximum=limit)
        for name, value in figures.items()
        for start, limit in limits.items()
        if name == start or (start.endswith(" ") and name.startswith(start))
    ]


def measure(settings: Any, database: Any, instance: Any, size: int) -> Figures:
    """All figures at one size."""
    figures: Figures = {}
    figures |= measure_corpus(settings, database)
    figures |= measure_planning(settings, database, instance, size)
    figures |= measure_sensors(instance)
    figures |= measure_commands(database)
    figures |= measure_pages(instance)
    return figures


def measure_corpus(settings: Any, database: Any) -> Figures:
    """What counts over all documents: coverage, the hourly asset, the checks."""
    from embedding_assets.cli.documents import read_coverage, read_totals
    from embedding_assets.pipeline.asset_stages import stages_in_use
    from embedding_assets.pipeline.coverage_report import take_coverage
    from embedding_assets.store.consistency import find_drift, usable_collections

    def check_vectors() -> None:
        with database.transaction() as connection:
            collections, _ = usable_collections(connection)
            for collection, active in collections:
                assert find_drift(connection, collection, active).examples == ()

    stages = stages_in_use(settings)
    return {
        "coverage": best(
            lambda: (read_totals(settings, database), read_coverage(settings, database, only_incomplete=True))
        ),
        "coverage, every document listed": best(lambda: read_coverage(settings, database)),
        "embedding_coverage": best(
            lambda: take_coverage(database, stages, settings.min_coverage, timedelta(days=14))
        ),
        "check_vectors": best(check_vectors),
    }


def measure_planning(settings: Any, database: Any, instance: Any, size: int) -> Figures:
    """What a run does before it works, and a whole run that finds nothing to do."""
    from embedding_assets.definitions import build_defs
    from embedding_assets.defs.checks import failed_partitions
    from embedding_assets.defs.execution import run_job
    from embedding_assets.defs.partitions import documents, register_partitions
    from embedding_assets.pipeline.asset_stages import ASSET_STAGES
    from embedding_assets.store.documents import get_document
    from embedding_assets.store.images import images_lacking

    middle = size // 2
    key = document_key(middle)
    slig = ASSET_STAGES[0]
    defs = build_defs()

    def plan() -> None:
        assert instance.has_dynamic_partition(documents.name or "", str(key))
        with database.transaction() as connection:
            assert get_document(connection, key) is not None
        with database.transaction() as connection:
            assert images_lacking(connection, key, slig.flag, slig.name) == []

    def run(count: int) -> None:
        keys = [document_key(middle + n) for n in range(count)]
        for outcome in run_job(defs, "embed_document", keys, instance, documents_per_run=CHUNK):
            if not outcome.success:
                raise SystemExit(outcome.reason)

    return {
        "planning one document": best(plan, 5),
        "run of one document, nothing to do": best(lambda: run(1)),
        f"run of {CHUNK} documents, nothing to do": best(lambda: run(CHUNK)),
        "register_partitions of one known": best(lambda: register_partitions(instance, [key])),
        "all partition keys": best(lambda: instance.get_dynamic_partitions(documents.name or "")),
        "no_failed_partitions": best(lambda: failed_partitions(instance)),
    }


def measure_sensors(instance: Any) -> Figures:
    """A tick of every sensor in the definitions: the first, and one that goes on from its cursor."""
    import dagster as dg

    from embedding_assets.definitions import build_defs
    from embedding_assets.defs.resources import PipelineResource

    repository = build_defs().get_repository_def()
    resources = {"pipeline": PipelineResource()}
    figures = {}
    for sensor in repository.sensor_defs:
        if isinstance(sensor, dg.RunStatusSensorDefinition):
            continue  # acts on runs, whatever the number of documents
        cursor = None
        for which in ("first", "next"):
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, repository_def=repository, resources=resources
            )
            start = time.perf_counter()
            tick = sensor.evaluate_tick(context)
            figures[f"sensor {sensor.name}, {which} tick"] = time.perf_counter() - start
            cursor = tick.cursor
    return figures


def measure_commands(database: Any) -> Figures:
    """Commands as a person runs them, start of the process included."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "embedding_assets.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )

    figures = {"`embedding-assets coverage`": best(lambda: command("coverage"))}
    if command("backfill", "--help").returncode == 0:
        with some_undone(database):
            figures["`embedding-assets backfill --missing`, 500 documents"] = best(
                lambda: command("backfill", "--missing")
            )
    return figures


@contextmanager
def some_undone(database: Any) -> Iterator[None]:
    """The first 500 documents lack their visual vectors, as far as their flags say."""
    from sqlalchemy import text

    def set_flags(value: bool) -> None:
        with database.transaction() as connection:
            connection.execute(
                text("UPDATE document_images SET has_slig_embedding = :value WHERE document_id < :end"),
                {"value": value, "end": document_key(500).document_id},
            )

    set_flags(False)
    yield
    set_flags(True)


@contextmanager
def workspace(instance: Any) -> Iterator[Any]:
    """What the webserver answers from, with its code server."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    target = WorkspaceFileTarget([str(files("embedding_assets.deploy").joinpath("workspace.yaml"))])
    with WorkspaceProcessContext(instance, target) as context:
        yield context


def measure_pages(instance: Any) -> Figures:
    """The partition query of each asset's page."""
    from dagster_graphql.cli import execute_query

    figures = {}
    with workspace(instance) as context:
        for asset in ASSETS:

            def ask(asset: str = asset) -> None:
                answer = execute_query(context, STATUS_QUERY, {"key": {"path": [asset]}})
                if answer.get("errors"):
                    raise SystemExit(str(answer["errors"]))
                assert answer["data"]["assetNodeOrError"]["partitionStats"]["numMaterialized"] > 0

            figures[f"page of {asset}"] = best(ask)
    return figures


if __name__ == "__main__":
    main()
