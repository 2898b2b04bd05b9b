"""Asset checks: what an operator is told when the corpus is not as it should be.

All of them look at the whole corpus, every hour (`schedules.py`), and none belongs to a document's run: there the
last op has counted already, and a check that only ever sees what just succeeded says nothing. What belongs here:
turning what `store` and `pipeline` find into results, with rows to look at and what to do. What does not: SQL.
"""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
import pandas as pd

from embedding_assets.defs.assets.embedding_coverage import KEY as EMBEDDING_COVERAGE
from embedding_assets.defs.outcomes import INFRASTRUCTURE_RETRY, translated_errors
from embedding_assets.defs.partitions import WARN_AT, capacity_warning, count_partitions, documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.pipeline.asset_stages import AssetStage, stages_in_use
from embedding_assets.store.consistency import (
    EXAMPLES,
    Drift,
    DriftRow,
    find_drift,
    flags_without_collection,
    inspect_spaces,
    usable_collections,
)
from embedding_assets.store.coverage_totals import coverage_totals, incomplete_documents
from embedding_assets.store.documents import Coverage, list_workspaces
from embedding_assets.store.stages import SLIG, UNDERSTANDING

PARTITIONED = (
    "document_images",
    "slig_embeddings",
    "vision_analysis",
    "understanding_embeddings",
    "text_embeddings",
)
"""Assets with a partition a document."""

_COVERAGE_HELP = (
    "Every document's coverage of `{asset}`. Fails with severity ERROR where nothing is left to try and coverage is "
    "still below `min_coverage`: see `embedding-assets failures`, mend the images at their source, ingest again. "
    "Fails with WARN where work is waiting: materialize the partitions, or `embedding-assets embed`."
)
_FLAGS_HELP = (
    "Every `has_*` flag has its vector, and every vector its flag. Nothing in this project writes one without the "
    "other: somebody deleted vectors or edited flags by hand. Run the job `reconcile`, then materialize what it "
    "says is due."
)
_ORPHANS_HELP = (
    "Every vector that this project wrote belongs to an image. Orphans turn up in searches of other vecs clients. Run "
    "the job `reconcile`. Vectors that others keep in a collection are counted, and are no fault."
)
_SPACES_HELP = (
    "Each collection has exactly one active embedding space, its table is there, and both have the same dimension. "
    "Restore a lost table from a backup; with none, delete its row of `embedding_spaces` and run `reconcile`, which "
    "makes its images due again. Vectors of inactive spaces are counted, and are no fault."
)
_FAILED_HELP = (
    "No partition's last run failed. The run's page says why; docs/operating.md, \"A failed document, step by step\", "
    "what to do. After mending, materialize the failed partitions: select them by status on the asset's page."
)
_LIMIT_HELP = (
    f'Fewer documents are registered than {WARN_AT:.0%} of `supported_partitions`. See "Beyond 100,000 documents" in '
    "docs/operating.md before the limit is reached."
)

FLAGS_CHECK = dg.AssetCheckSpec("vectors_match_flags", asset=EMBEDDING_COVERAGE, description=_FLAGS_HELP)
ORPHANS_CHECK = dg.AssetCheckSpec("no_orphan_vectors", asset=EMBEDDING_COVERAGE, description=_ORPHANS_HELP)


def markdown(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """The first rows as a table."""
    table = pd.DataFrame(list(rows[:EXAMPLES])).to_markdown(index=False) if rows else "none"
    more = len(rows) - EXAMPLES
    return dg.MetadataValue.md(f"{table}\n\n... and {more} more" if more > 0 else str(table))


def _coverage_check(name: str, asset: str, stage_name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=name,
        asset=asset,
        description=_COVERAGE_HELP.format(asset=asset),
        retry_policy=INFRASTRUCTURE_RETRY,
    )
    def coverage_check(
        context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        with translated_errors(context):
            settings = pipeline.settings()
            stage = next((s for s in stages_in_use(settings) if s.name == stage_name), None)
            if stage is None:
                return dg.AssetCheckResult(passed=True, description="The settings do without this stage.")
            documents, incomplete = _coverage(pipeline, stage, settings.min_coverage)
        return coverage_result(documents, incomplete, settings.min_coverage)

    return coverage_check


def _coverage(pipeline: PipelineResource, stage: AssetStage, minimum: float) -> tuple[int, list[Coverage]]:
    """How many documents there are, and those that are not complete."""
    documents, incomplete = 0, []
    with pipeline.database().transaction() as connection:
        for workspace_id in list_workspaces(connection):
            documents += coverage_totals(connection, workspace_id, [stage], minimum)[stage.name].documents
            incomplete += incomplete_documents(connection, workspace_id, [stage], minimum)[stage.name]
    return documents, incomplete


def coverage_result(documents: int, incomplete: Sequence[Coverage], minimum: float) -> dg.AssetCheckResult:
    """Passed where every document is complete; WARN where the others only wait, ERROR where some are stuck."""
    stuck = [row for row in incomplete if row.ingested and not row.missing]
    shown = sorted(incomplete, key=lambda row: (row.missing > 0 or not row.ingested, row.ratio, row.key))
    return dg.AssetCheckResult(
        passed=not incomplete,
        severity=dg.AssetCheckSeverity.ERROR if stuck else dg.AssetCheckSeverity.WARN,
        description=f"{documents - len(incomplete):,} of {documents:,} documents are complete; {len(stuck):,} are "
        f"below {minimum:.0%} with nothing left to try.",
        metadata={
            "documents": documents,
            "incomplete": len(incomplete),
            "below_minimum": len(stuck),
            "missing_images": sum(row.missing for row in incomplete),
            "rows": markdown(
                [
                    {
                        "document": str(row.key),
                        "images": row.total,
                        "embedded": row.embedded,
                        "skipped": row.skipped,
                        "rejected": row.rejected,
                        "missing": row.missing,
                        "coverage": f"{row.ratio:.2%}",
                        "ingested": "yes" if row.ingested else "no",
                    }
                    for row in shown
                ]
            ),
        },
    )


@dg.multi_asset_check(
    name="check_vectors",
    specs=[FLAGS_CHECK, ORPHANS_CHECK],
    can_subset=True,
    retry_policy=INFRASTRUCTURE_RETRY,
)
def check_vectors(
    context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.AssetCheckResult]:
    with translated_errors(context):
        # One transaction a collection, so that none stays open for long.
        database = pipeline.database()
        with database.transaction() as connection:
            collections, unusable = usable_collections(connection)
        drifts = []
        for collection, active in collections:
            with database.transaction() as connection:
                drifts.append(find_drift(connection, collection, active))
        with database.transaction() as connection:
            drifts += flags_without_collection(connection)
    if unusable:
        context.log.warning(f"not looked at, see one_space_per_collection: {', '.join(unusable)}")
    results = {FLAGS_CHECK.key: flags_result(drifts), ORPHANS_CHECK.key: orphans_result(drifts)}
    for key, result in results.items():
        if key in context.selected_asset_check_keys:
            yield result


def _drift_rows(drifts: Sequence[Drift], kinds: Sequence[str]) -> dg.MetadataValue:
    rows: list[DriftRow] = [row for drift in drifts for row in drift.examples if row.kind in kinds]
    return markdown(
        [
            {
                "collection": row.collection,
                "what": row.kind,
                "id": row.id,
                "document": row.document,
                "image": row.reference,
            }
            for row in rows[:EXAMPLES]
        ]
    )


def flags_result(drifts: Sequence[Drift]) -> dg.AssetCheckResult:
    """Passed where flags and vectors agree."""
    no_vector, no_flag = sum(d.no_vector for d in drifts), sum(d.no_flag for d in drifts)
    wrong = {
        drift.collection: {"flag without vector": drift.no_vector, "vector without flag": drift.no_flag}
        for drift in drifts
        if drift.no_vector or drift.no_flag
    }
    return dg.AssetCheckResult(
        check_name=FLAGS_CHECK.name,
        asset_key=EMBEDDING_COVERAGE,
        passed=not wrong,
        description=f"{no_vector:,} flags without a vector, {no_flag:,} vectors without a flag",
        metadata={
            "flags_without_vector": no_vector,
            "vectors_without_flag": no_flag,
            "collections": dg.MetadataValue.json(wrong),
            "rows": _drift_rows(drifts, ("no vector", "no flag")),
        },
    )


def orphans_result(drifts: Sequence[Drift]) -> dg.AssetCheckResult:
    """Passed where every vector of ours has its image; a warning, since our own search leaves orphans out."""
    orphans = sum(d.orphans for d in drifts)
    return dg.AssetCheckResult(
        check_name=ORPHANS_CHECK.name,
        asset_key=EMBEDDING_COVERAGE,
        passed=orphans == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{orphans:,} vectors without an image",
        metadata={
            "orphans": orphans,
            "foreign_vectors": sum(d.foreign for d in drifts),
            "rows": _drift_rows(drifts, ("orphan",)),
        },
    )


@dg.asset_check(
    asset=EMBEDDING_COVERAGE,
    description=_SPACES_HELP,
    retry_policy=INFRASTRUCTURE_RETRY,
)
def one_space_per_collection(
    context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
) -> dg.AssetCheckResult:
    with translated_errors(context), pipeline.database().transaction() as connection:
        spaces = inspect_spaces(connection)
    problems = [space for space in spaces if space.problems]
    return dg.AssetCheckResult(
        passed=not problems,
        description="; ".join(f"{space.table}: {', '.join(space.problems)}" for space in problems[:5])
        or None,
        metadata={
            "collections": len({space.logical_name for space in spaces}),
            "inactive_with_vectors": sum(space.vectors and not space.active for space in spaces),
            "rows": markdown(
                [
                    {
                        "collection": space.logical_name,
                        "table": space.table,
                        "space": space.space_id,
                        "dimension": space.dimension,
                        "active": "yes" if space.active else "no",
                        "vectors": "yes" if space.vectors else "no",
                        "problem": ", ".join(space.problems),
                    }
                    for space in sorted(spaces, key=lambda s: not s.problems)
                ]
            ),
        },
    )


@dg.asset_check(asset=EMBEDDING_COVERAGE, description=_FAILED_HELP, retry_policy=INFRASTRUCTURE_RETRY)
def no_failed_partitions(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    with translated_errors(context):
        failed = failed_partitions(context.instance)
    return dg.AssetCheckResult(
        passed=not failed,
        description=f"{len(failed):,} partitions whose last run failed",
        metadata={
            "failed_partitions": len(failed),
            "by_asset": dg.MetadataValue.json(
                {asset: sum(1 for a, _ in failed if a == asset) for asset in PARTITIONED}
            ),
            "rows": markdown([{"asset": asset, "document": key} for asset, key in failed]),
        },
    )


def failed_partitions(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """(asset, partition) of all partitions whose last run failed.

    Dagster keeps the status of an asset's partitions in one value and brings it up to date from the events since: 0.9 s
    an asset at 100,000 partitions.
    """
    keys = instance.get_dynamic_partitions(documents.name or "")
    found = []
    for asset in PARTITIONED:
        statuses = instance.get_status_by_partition(dg.AssetKey(asset), keys, documents) or {}
        # The enum is not part of Dagster's public interface; its values are.
        found += [
            (asset, key)
            for key, status in statuses.items()
            if status is not None and status.value == "FAILED"
        ]
    return found


@dg.asset_check(asset=EMBEDDING_COVERAGE, description=_LIMIT_HELP, retry_policy=INFRASTRUCTURE_RETRY)
def partitions_within_limit(
    context: dg.AssetCheckExecutionContext, pipeline: PipelineResource
) -> dg.AssetCheckResult:
    with translated_errors(context):
        supported = pipeline.settings().supported_partitions
        registered = count_partitions(context.instance)
    warning = capacity_warning(registered, supported)
    return dg.AssetCheckResult(
        passed=warning is None,
        severity=dg.AssetCheckSeverity.ERROR if registered > supported else dg.AssetCheckSeverity.WARN,
        description=warning,
        metadata={"partitions": registered, "supported": supported, "used": round(registered / supported, 4)},
    )


CHECKS = [
    _coverage_check("slig_coverage", "slig_embeddings", SLIG),
    _coverage_check("understanding_coverage", "understanding_embeddings", UNDERSTANDING),
    check_vectors,
    one_space_per_collection,
    no_failed_partitions,
    partitions_within_limit,
]

CORPUS_CHECKS = [key for check in CHECKS for key in check.check_keys]
"""Keys of all of them."""
