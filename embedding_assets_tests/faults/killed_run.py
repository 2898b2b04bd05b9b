"""A process with one Dagster run in it, made to be killed. Run with `python -m`; imports no model.

Arguments, as one JSON object: database_url, folder, key, log (see `embed_worker.EmbedTask`), pause_after, and
`from_failure`: the run to re-execute from where it failed, or null for a new run. DAGSTER_HOME says where the
instance is. At the end it writes what became of the run as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from embedding_assets.definitions import build_defs
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database
from embedding_assets_tests.defs.dagster_project import resource_for
from embedding_assets_tests.faults.embed_worker import EncodingLog
from embedding_assets_tests.pipeline.project import Project

TASK = "KILLED_RUN_TASK"
"""Environment variable with the task: Dagster makes the job anew by calling `embed_job` without arguments."""

BATCH = 20


def embed_job() -> dg.JobDefinition:
    """The real job, over the task's project; each mapped step is one batch."""
    task = json.loads(os.environ[TASK])
    project = Project(Database(task["database_url"]), Path(task["folder"]))
    project.encoder.before_encode = EncodingLog(Path(task["log"]), task["pause_after"]).write
    settings = load_settings(database_url=task["database_url"], batch_size=BATCH, batches_per_step=1)
    return build_defs(pipeline=resource_for(project, settings)).resolve_job_def("embed_document")


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Runs the job, or re-executes a run of it."""
    os.environ[TASK] = json.dumps(task)
    before = task["from_failure"]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("documents", [task["key"]])
        result = dg.execute_job(
            dg.reconstructable(embed_job),
            instance,
            tags={"dagster/partition": task["key"]},
            reexecution_options=dg.ReexecutionOptions.from_failure(before, instance) if before else None,
        )
        failures = [
            event.step_failure_data.user_failure_data
            for event in result.all_events
            if event.event_type is dg.DagsterEventType.STEP_FAILURE
        ]
        return {
            "success": result.success,
            "embedded_in": sorted(
                str(event.step_key)
                for event in result.all_events
                if event.event_type is dg.DagsterEventType.STEP_SUCCESS
                and "embed_slig" in str(event.step_key)
            ),
            "reason": "\n".join(str(failure.description) for failure in failures if failure),
        }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))  # noqa: T201 (read by the test)
