"""Schedules: what runs by the clock. They are on from the start; switch them off on the Automation page."""

import dagster as dg

from embedding_assets.defs.clean_up import clean_up
from embedding_assets.defs.jobs import check_coverage

hourly_coverage = dg.ScheduleDefinition(
    name="hourly_coverage",
    job=check_coverage,
    cron_schedule="7 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Takes the coverage of the whole corpus and runs all checks, every hour.",
)

clean_up_daily = dg.ScheduleDefinition(
    name="clean_up_daily",
    job=clean_up,
    cron_schedule="30 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes what ended runs have left on disk, every night at half past three.",
)

SCHEDULES = [hourly_coverage, clean_up_daily]
