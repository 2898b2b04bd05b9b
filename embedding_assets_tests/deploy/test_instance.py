"""Dagster's instance: where its storage is, and what its configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import psycopg2
import pytest
from sqlalchemy import make_url

from embedding_assets.deploy.instance import apply_dagster_environment, dagster_environment
from embedding_assets.errors import FatalError
from embedding_assets.settings import Settings, load_settings

RUN_TABLES = {"runs", "event_logs", "dynamic_partitions", "bulk_actions"}


def tables(url: str, schema: str) -> set[str]:
    connection = psycopg2.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))
            return {row[0] for row in cursor.fetchall()}
    finally:
        connection.close()


@pytest.fixture
def one_database(database_url: str, tmp_path: Path) -> Settings:
    """Settings under which data and Dagster's storage share one database."""
    joint = "&" if "?" in database_url else "?"
    return load_settings(
        database_url=database_url,
        dagster_database_url=f"{database_url}{joint}options={quote('-csearch_path=dagster', safe='')}",
        var_dir=tmp_path / "var",
    )


@pytest.fixture
def instance(one_database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "DAGSTER_STORAGE_DIR", "DATABASE_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    apply_dagster_environment(one_database)
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_where_only_one_database_is_to_be_had_dagster_gets_a_schema_of_its_own(
    instance: dg.DagsterInstance, database_url: str
) -> None:
    before = tables(database_url, "public")

    @dg.job
    def nothing() -> None:
        pass

    assert nothing.execute_in_process(instance=instance).success
    instance.add_dynamic_partitions("documents", ["shop/a"])
    assert instance.get_dynamic_partitions("documents") == ["shop/a"]
    assert len(instance.get_runs()) == 1
    assert tables(database_url, "dagster") >= RUN_TABLES
    assert tables(database_url, "public") == before
    assert not before & RUN_TABLES


def test_the_instance_retries_dead_runs_only_watches_runs_and_limits_backfills(
    instance: dg.DagsterInstance,
) -> None:
    assert instance.run_retries_enabled
    assert instance.get_settings("run_retries") == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }
    assert instance.run_monitoring_enabled
    assert instance.get_settings("run_monitoring")["free_slots_after_run_end_seconds"] == 60
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 2
    assert queue.tag_concurrency_limits == [{"key": "dagster/backfill", "limit": 1}]


def test_a_schema_that_holds_the_data_is_refused(one_database: Settings) -> None:
    url = one_database.dagster_database_url
    assert url is not None
    for schema in ("public", "a,b", "Dagster"):
        bad = load_settings(
            database_url=one_database.database_url,
            dagster_database_url=url.get_secret_value().replace("dagster", schema),
            var_dir=one_database.var_dir,
        )
        with pytest.raises(FatalError, match="one schema of its own"):
            dagster_environment(bad)
