"""Runs over several documents in which some come through and some do not.

    read or finish --(done)-----> the asset's output: every document of the run is materialized
          |
          +---------(undone)----> report: where there are any, it fails, and with it the run

Where every document is done, the step emits `done`, and Dagster materializes them all. Where only some are, it
logs the materializations of those itself and leaves `done` out; the step after it fails with the reasons. The
assets downstream go on with the documents that are done: their first step takes the upstream output together with
that of a step of their own (`begin`), and Dagster 1.13 skips a step with such a fan-in only where *all* of its
sources are missing (`_core/execution/plan/active.py`, `_should_skip_step`). A step that fails itself still stops
what is downstream of it: that is for fatal errors, and for runs in which no document is done.

Dagster wants every last step of an asset to make an asset or a check, so the report is the check
`documents_done`: it shows, beside the asset, whether its latest run left a document undone.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

DONE = dg.Out(dg.Nothing, is_required=False, description="Emitted where every document of the run is done.")
UNDONE = dg.Out(list, description="Keys of the documents of the run that are not done.")
CHECK = "documents_done"


def done_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check that a report step makes."""
    return dg.AssetCheckSpec(
        CHECK, asset=asset, description="Whether the latest run left none of its documents undone."
    )


def done_check_keys(assets: Iterable[str]) -> list[dg.AssetCheckKey]:
    """The keys of those checks, for runs of some of a job's assets.

    Who asks for assets without naming checks gets all checks of theirs, those over the whole corpus too, although the
    job leaves them out (Dagster 1.13, `JobDefinition._get_job_def_for_asset_selection`).
    """
    return [dg.AssetCheckKey(dg.AssetKey(asset), CHECK) for asset in assets]


def check_result(asset: dg.AssetKey, undone: Sequence[str], total: int) -> dg.AssetCheckResult:
    """What that check found: the documents of the run that are not done, of how many."""
    return dg.AssetCheckResult(
        passed=not undone,
        asset_key=asset,
        check_name=CHECK,
        metadata={"documents": total, "undone": len(undone), "first": ", ".join(undone[:20]) or "none"},
    )


def begin_op(stage: str) -> dg.OpDefinition:
    """The step that lets a stage's first step run where its upstream output is missing (see above)."""

    @dg.op(name=f"begin_{stage}", out=dg.Out(dg.Nothing))
    def begin() -> None:
        """Does nothing: the next step waits for this and for the upstream asset, and needs one of the two."""

    return begin


def log_materialization(
    context: dg.AssetExecutionContext,
    asset: dg.AssetKey,
    partition: str,
    metadata: Mapping[str, dg.MetadataValue],
    *,
    code_version: str,
    upstream: dg.AssetKey | None = None,
) -> None:
    """Materializes one document of a run in which others are not done.

    Dagster gives the materializations that it makes itself the versions of code and inputs, which tell it later
    what is stale; it leaves those that a step logs as they are, so they get the same tags here.
    """
    tags = {CODE_VERSION_TAG: code_version, DATA_VERSION_TAG: context.run.run_id}
    if upstream is not None:
        record = context.instance.get_latest_data_version_record(upstream, partition_key=partition)
        version = extract_data_version_from_entry(record.event_log_entry) if record else None
        if record is not None and version is not None:
            tags[get_input_data_version_tag(upstream)] = version.value
            tags[get_input_event_pointer_tag(upstream)] = str(record.storage_id)
    context.log_event(
        dg.AssetMaterialization(asset_key=asset, partition=partition, metadata=dict(metadata), tags=tags)
    )
