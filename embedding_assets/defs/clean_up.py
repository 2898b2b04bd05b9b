"""Job `clean_up`: removes what ended runs have left on disk (see `deploy.retention`)."""

import time
from pathlib import Path

import dagster as dg

from embedding_assets.defs.resources import PipelineResource
from embedding_assets.defs.run_tags import RETRY_TAGS
from embedding_assets.deploy.retention import prune_run_files

DAY_S = 86_400


@dg.op
def remove_old_run_files(context: dg.OpExecutionContext, pipeline: PipelineResource) -> None:
    """Removes files of runs that ended more than `keep_run_files_days` ago."""
    instance = context.instance
    days = pipeline.settings().keep_run_files_days

    def ended_at(run_id: str) -> float | None:
        record = instance.get_run_record_by_id(run_id)
        return record.end_time if record else None

    def is_running(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and not run.is_finished

    pruned = prune_run_files(
        Path(instance.storage_directory()).parent, time.time() - days * DAY_S, ended_at, is_running
    )
    context.log.info(
        f"removed the files of {pruned.runs} runs and {pruned.logs} logs of ticks older than {days:g} days: "
        f"{pruned.bytes_freed / 2**20:.1f} MiB"
    )


@dg.job(
    tags=RETRY_TAGS, description="Removes what ended runs have left on disk: outputs of ops, compute logs."
)
def clean_up() -> None:
    """One step."""
    remove_old_run_files()
