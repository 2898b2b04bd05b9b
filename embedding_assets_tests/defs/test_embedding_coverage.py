"""Asset embedding_coverage and the checks, run as the hourly schedule runs them."""

from __future__ import annotations

import base64
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from embedding_assets.defs.checks import CHECKS, coverage_result
from embedding_assets.defs.partitions import capacity_warning, documents, register_partitions
from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.store.documents import Coverage
from embedding_assets_tests.defs.dagster_project import DagsterProject

ASSET = "embedding_coverage"


def check_coverage(dagster: DagsterProject) -> dict[str, dg.AssetCheckEvaluation]:
    """Runs the job; returns the evaluations by name."""
    job = dagster.defs.resolve_job_def("check_coverage")
    result = job.execute_in_process(instance=dagster.instance, raise_on_error=False)
    assert result.success
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def metadata(dagster: DagsterProject) -> dict[str, Any]:
    event = dagster.instance.get_latest_materialization_event(dg.AssetKey(ASSET))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def value(evaluation: dg.AssetCheckEvaluation, name: str) -> Any:
    return evaluation.metadata[name].value


def execute(dagster: DagsterProject, statement: str, **parameters: Any) -> None:
    with dagster.project.database.transaction() as connection:
        connection.execute(text(statement), parameters)


@pytest.fixture
def key(dagster: DagsterProject) -> DocumentKey:
    """A document that went the whole way."""
    dagster.configure(vision_provider="off")
    key = dagster.project.land_images("shop/doc", range(5))
    (ingested,) = dagster.run("ingest_document", [key], asset="document_images")
    assert ingested.success
    assert dagster.embed(key).success
    return key


def test_a_sound_corpus_passes_every_check(dagster: DagsterProject, key: DocumentKey) -> None:
    evaluations = check_coverage(dagster)
    assert {name: evaluation.passed for name, evaluation in evaluations.items()} == dict.fromkeys(
        (
            "slig_coverage",
            "understanding_coverage",
            "vectors_match_flags",
            "no_orphan_vectors",
            "one_space_per_collection",
            "no_failed_partitions",
            "partitions_within_limit",
        ),
        True,
    )
    assert value(evaluations["slig_coverage"], "documents") == 1
    assert value(evaluations["slig_coverage"], "rows") == "none"
    assert len(CHECKS) == 6


def test_an_empty_corpus_passes_every_check(dagster: DagsterProject) -> None:
    assert all(evaluation.passed for evaluation in check_coverage(dagster).values())


def test_the_asset_shows_tables_a_picture_and_numbers_that_plot(
    dagster: DagsterProject, key: DocumentKey
) -> None:
    dagster.project.ingested("shop/more", range(10, 13))
    check_coverage(dagster)
    shown = metadata(dagster)
    numbers = {
        "documents": 2,
        "failed": 0,
        "slig_images": 8,
        "slig_embedded": 5,
        "slig_missing": 3,
        "slig_coverage": 0.625,
        "partitions": 1,
        "partitions_used": 0.0,
    }
    assert numbers.items() <= shown.items()
    assert "| slig_embeddings " in shown["coverage"]
    assert "| shop " in shown["workspaces"]
    assert shown["failures"] == "none"
    head, _, picture = shown["trend"].partition("data:image/png;base64,")
    assert head.startswith("![")
    assert base64.b64decode(picture.rstrip(")")).startswith(b"\x89PNG")
    assert "understanding_images" not in shown, "vision analysis is off"


def test_documents_with_work_waiting_are_a_warning_and_those_that_are_stuck_an_error(
    dagster: DagsterProject, key: DocumentKey
) -> None:
    dagster.project.ingested("shop/waiting", range(10, 13))
    waiting = check_coverage(dagster)["slig_coverage"]
    assert not waiting.passed
    assert waiting.severity is dg.AssetCheckSeverity.WARN
    assert "| shop/waiting " in value(waiting, "rows")
    assert "shop/doc" not in value(waiting, "rows")
    bad = dagster.project.ingested("shop/bad", range(20, 22))
    dagster.project.encoder.before_encode = refuse_all
    assert not dagster.embed(bad).success
    stuck = check_coverage(dagster)["slig_coverage"]
    assert not stuck.passed
    assert stuck.severity is dg.AssetCheckSeverity.ERROR
    assert (value(stuck, "incomplete"), value(stuck, "below_minimum")) == (2, 1)
    assert value(stuck, "rows").index("shop/bad") < value(stuck, "rows").index("shop/waiting")


def refuse_all(contents: list[str]) -> None:
    raise PermanentError("the model can't embed this")


def test_the_first_rows_are_shown_and_the_rest_counted() -> None:
    rows = [Coverage(DocumentKey("shop", f"doc{n:02d}"), 4, 2, 0, 0, 2) for n in range(33)]
    shown = value_of(coverage_result(40, rows, 0.95), "rows")
    assert shown.count("shop/doc") == 20
    assert "... and 13 more" in shown


def value_of(result: dg.AssetCheckResult, name: str) -> Any:
    return result.metadata[name].value


def test_drift_fails_its_checks_and_reconcile_mends_them(dagster: DagsterProject, key: DocumentKey) -> None:
    ids = dagster.project.ids(key)
    execute(dagster, "DELETE FROM vecs.image_slig_embeddings WHERE id = :id", id=str(ids[0]))
    execute(
        dagster,
        "INSERT INTO vecs.image_slig_embeddings SELECT '00000000-0000-4000-8000-000000000000', vec, metadata "
        "FROM vecs.image_slig_embeddings LIMIT 1",
    )
    execute(dagster, "UPDATE document_images SET has_slig_embedding = false WHERE id = :id", id=ids[1])
    evaluations = check_coverage(dagster)
    flags, orphans = evaluations["vectors_match_flags"], evaluations["no_orphan_vectors"]
    assert (flags.passed, flags.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (value(flags, "flags_without_vector"), value(flags, "vectors_without_flag")) == (1, 1)
    assert str(ids[0]) in value(flags, "rows")
    assert str(ids[1]) in value(flags, "rows")
    assert (orphans.passed, orphans.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert value(orphans, "orphans") == 1

    assert reconcile(dagster, dry_run=True)["changes"] == 3
    assert not check_coverage(dagster)["vectors_match_flags"].passed
    report = reconcile(dagster)
    assert (report["changes"], report["documents_due"], report["due"]) == (3, 1, "- shop/doc")
    assert "| image_slig_embeddings " in report["collections"]
    evaluations = check_coverage(dagster)
    assert evaluations["vectors_match_flags"].passed
    assert evaluations["no_orphan_vectors"].passed
    assert not evaluations["slig_coverage"].passed, "the image is due again"
    assert dagster.embed(key).success
    assert check_coverage(dagster)["slig_coverage"].passed
    dagster.project.check_flags_equal_vectors()


def reconcile(dagster: DagsterProject, **config: Any) -> dict[str, Any]:
    """Runs the job; returns the values of its report."""
    result = dagster.defs.resolve_job_def("reconcile").execute_in_process(
        instance=dagster.instance, run_config={"ops": {"reconcile_vectors": {"config": config}}}
    )
    (output,) = (e for e in result.all_events if e.is_successful_output)
    return {name: item.value for name, item in output.step_output_data.metadata.items()}


def test_a_lost_table_and_a_wrong_dimension_fail_the_space_check_alone(
    dagster: DagsterProject, key: DocumentKey
) -> None:
    execute(dagster, "UPDATE embedding_spaces SET dimension = 3")
    spaces = check_coverage(dagster)["one_space_per_collection"]
    assert not spaces.passed
    assert "the space has 3 dimensions" in value(spaces, "rows")
    execute(dagster, "DROP TABLE vecs.image_slig_embeddings")
    evaluations = check_coverage(dagster)
    assert "is gone" in value(evaluations["one_space_per_collection"], "rows")
    assert evaluations["vectors_match_flags"].passed, "nothing can be said of a table that is gone"


def test_partitions_whose_last_run_failed_are_listed_until_they_succeed(
    dagster: DagsterProject, key: DocumentKey
) -> None:
    bad = dagster.project.ingested("shop/bad", range(20, 22))
    dagster.project.encoder.before_encode = refuse_all
    assert not dagster.embed(bad).success
    failed = check_coverage(dagster)["no_failed_partitions"]
    assert not failed.passed
    assert value(failed, "failed_partitions") == 1
    assert value(failed, "by_asset")["slig_embeddings"] == 1
    assert "| shop/bad " in value(failed, "rows")
    dagster.project.encoder.before_encode = lambda contents: None
    assert dagster.embed(bad, force=True).success
    assert check_coverage(dagster)["no_failed_partitions"].passed


# -- the number of partitions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "expected"),
    [(0, None), (79_999, None), (80_000, "80% of"), (100_000, "100% of"), (100_001, "more than")],
)
def test_a_warning_comes_at_80_percent_of_the_supported_partitions(
    registered: int, expected: str | None
) -> None:
    warning = capacity_warning(registered, 100_000)
    assert (warning is None) if expected is None else (expected in str(warning))


def test_registering_documents_warns_in_the_log(
    dagster: DagsterProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EMBEDDING_ASSETS_SUPPORTED_PARTITIONS", "5")
    keys = [DocumentKey("shop", f"doc{n}") for n in range(4)]
    assert register_partitions(dagster.instance, keys[:3]) == 3
    assert caplog.text == ""
    assert register_partitions(dagster.instance, keys) == 1
    assert "80% of the 5 that are supported" in caplog.text
    caplog.clear()
    assert register_partitions(dagster.instance, keys) == 0
    assert caplog.text == ""
    assert dagster.instance.get_dynamic_partitions(documents.name or "") == list(map(str, keys))


def test_the_check_warns_near_the_limit_and_fails_beyond(dagster: DagsterProject, key: DocumentKey) -> None:
    for supported, passed, severity in (
        (2, True, None),
        (1, False, dg.AssetCheckSeverity.WARN),
    ):
        dagster.configure(supported_partitions=supported)
        evaluation = check_coverage(dagster)["partitions_within_limit"]
        assert evaluation.passed is passed
        if severity:
            assert evaluation.severity is severity
            assert "Beyond 100,000 documents" in str(evaluation.description)
    register_partitions(dagster.instance, [DocumentKey("shop", "another")])
    evaluation = check_coverage(dagster)["partitions_within_limit"]
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
