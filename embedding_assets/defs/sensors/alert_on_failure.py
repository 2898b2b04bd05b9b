"""Sensor `alert_on_failure`: tells people about runs that failed for good."""

from dagster import DefaultSensorStatus, RunFailureSensorContext, run_failure_sensor
from dagster._core.storage.tags import WILL_RETRY_TAG

from embedding_assets.defs.partitions import documents, partitions_of_run
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import EmbeddingAssetsError
from embedding_assets.pipeline.notify import (
    MAX_REASON,
    SHOWN_DOCUMENTS,
    SHOWN_FAILURES,
    RunFailureReport,
    failure_in_words,
    notify_all,
    open_notifiers,
    without_secrets,
)
from embedding_assets.settings import Settings
from embedding_assets.store.failures import RunFailures, failures_of_run

NAME = "alert_on_failure"


@run_failure_sensor(
    name=NAME,
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.RUNNING,
    description="Reports each failed run to the log and, where `alert_webhook_url` is set, by POST: documents, "
    "stage, counts, the first five failures. Runs that Dagster retries by itself are not reported.",
)
def alert_on_failure(context: RunFailureSensorContext, pipeline: PipelineResource) -> None:
    """Reports one failed run."""
    run = context.dagster_run
    if run.tags.get(WILL_RETRY_TAG) == "true":
        context.log.info(f"run {run.run_id} is retried: no alert yet")
        return
    settings = pipeline.settings()
    report = _report(context, settings, _failures(context, pipeline))
    for problem in notify_all(open_notifiers(settings), report):
        context.log.warning(f"not reported by {problem}")


def _failures(context: RunFailureSensorContext, pipeline: PipelineResource) -> RunFailures:
    """What the run failed at; nothing where the database does not answer, which may be why the run failed."""
    try:
        with pipeline.database().transaction() as connection:
            return failures_of_run(connection, context.dagster_run.run_id, SHOWN_FAILURES)
    except EmbeddingAssetsError as error:
        context.log.warning(f"the report goes without the failures of images: {error}")
        return RunFailures({}, ())


def _report(context: RunFailureSensorContext, settings: Settings, failures: RunFailures) -> RunFailureReport:
    run = context.dagster_run
    assets: list[str] = []
    reasons: list[str] = []
    error_class: str | None = None
    for event in context.get_step_failure_events():
        assets.append(str(event.step_key).partition(".")[0])
        failure = event.step_failure_data
        described = failure.user_failure_data
        if described and described.description:
            reasons.append(described.description)
        elif failure.error:
            reasons.append((failure.error.cause or failure.error).message.strip())
        if described and "error_class" in described.metadata:
            error_class = str(described.metadata["error_class"].value)
    if not reasons:
        reasons.append(context.failure_event.message or "the run's process ended")
    names = context.instance.get_dynamic_partitions(documents.name or "")
    keys = partitions_of_run(run.tags, names)
    return RunFailureReport(
        run_id=run.run_id,
        job=run.job_name,
        url=f"{settings.ui_url}/runs/{run.run_id}",
        assets=tuple(dict.fromkeys(assets)),
        reason=without_secrets("\n".join(dict.fromkeys(reasons)), settings)[:MAX_REASON],
        error_class=error_class,
        documents=len(keys),
        first_documents=tuple(keys[:SHOWN_DOCUMENTS]),
        failures_by_class=failures.by_class,
        first_failures=tuple(without_secrets(failure_in_words(f), settings) for f in failures.first),
    )
