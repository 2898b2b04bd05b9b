"""Asset vector_indexes: builds what is missing, and says in numbers what came of it."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from embedding_assets.store.index_builds import only_builder
from embedding_assets.store.indexes import usable_hnsw
from embedding_assets.store.spaces import SLIG, TEXT, all_collections
from embedding_assets_tests.defs.dagster_project import DagsterProject, UnreliableDatabase
from embedding_assets_tests.factories import fill_collection

ASSET = "vector_indexes"


def run(dagster: DagsterProject, **config: Any) -> dg.ExecuteInProcessResult:
    return dagster.defs.resolve_job_def("rebuild_indexes").execute_in_process(
        instance=dagster.instance,
        raise_on_error=False,
        run_config={"ops": {ASSET: {"config": config}}} if config else None,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (materialization,) = result.asset_materializations_for_node(ASSET)
    return {name: value.value for name, value in materialization.metadata.items()}


def reason(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    return failure.description or ""


@pytest.fixture
def filled(dagster: DagsterProject) -> DagsterProject:
    """A project with a collection that is worth an index, and one that is not."""
    dagster.configure(index_min_rows=50)
    fill_collection(dagster.project.database, 100, name=SLIG)
    fill_collection(dagster.project.database, 20, name=TEXT)
    return dagster


def test_its_metadata_are_numbers_for_each_collection_and_a_table(filled: DagsterProject) -> None:
    result = run(filled)
    assert result.success
    found = metadata(result)
    assert found["rows"] == 120
    assert (found[f"{SLIG}/rows"], found[f"{TEXT}/rows"]) == (100, 20)
    assert (found[f"{SLIG}/action"], found[f"{TEXT}/action"]) == ("built", "skipped")
    assert found[f"{SLIG}/size_mib"] > 0
    assert found[f"{SLIG}/build_seconds"] > 0
    assert found[f"{SLIG}/recall_at_10"] == found["lowest_recall_at_10"] > 0.9
    assert found["size_mib"] > found[f"{SLIG}/size_mib"], "the metadata index counts too"
    assert f"{TEXT}/recall_at_10" not in found
    assert "20 rows: below index_min_rows (50)" in found["indexes"]
    with filled.project.database.transaction() as connection:
        assert set(usable_hnsw(connection, all_collections(connection))) == {SLIG}


def test_a_second_run_keeps_what_is_there_and_config_builds_it_anew(filled: DagsterProject) -> None:
    run(filled)
    assert metadata(run(filled))[f"{SLIG}/action"] == "kept"
    assert metadata(run(filled, rebuild=True))[f"{SLIG}/action"] == "rebuilt"


def test_an_empty_project_materializes_too(dagster: DagsterProject) -> None:
    found = metadata(run(dagster))
    assert found["rows"] == 0
    assert found["indexes"] == "no collections yet"


def test_while_another_process_builds_it_fails_at_once_with_the_reason(filled: DagsterProject) -> None:
    with only_builder(filled.project.database):
        result = run(filled)
    assert not result.success
    assert "being built by another process" in reason(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_database_that_is_gone_for_a_moment_is_waited_for(filled: DagsterProject) -> None:
    database = filled.project.database
    assert isinstance(database, UnreliableDatabase)
    database.outages = 2
    result = run(filled)
    assert result.success
    assert metadata(result)[f"{SLIG}/action"] == "built"
