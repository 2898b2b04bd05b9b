"""Tags that every job's runs carry."""

RETRY_TAGS = {
    # Where run retries are switched on, they are for runs whose process died, not for steps that failed: those
    # were retried already as far as it makes sense, and a failure for good stays one.
    "dagster/retry_on_asset_or_op_failure": "false",
    # From failure, Dagster would drop the mapped steps that had not started (#20925). What is done is not done
    # again anyway: the checkpoint is in the database.
    "dagster/retry_strategy": "ALL_STEPS",
}
