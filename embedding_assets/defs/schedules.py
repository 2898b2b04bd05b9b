"""Schedules: what runs by the clock. They are on from the start; switch them off on the Automation page."""

import dagster as dg

from embedding_assets.defs.jobs import check_coverage

hourly_coverage = dg.ScheduleDefinition(
    name="hourly_coverage",
    job=check_coverage,
    cron_schedule="7 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Takes the coverage of the whole corpus and runs all checks, every hour.",
)

SCHEDULES = [hourly_coverage]
