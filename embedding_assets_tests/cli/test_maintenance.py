"""`reconcile`, `coverage` over many documents, and what `doctor` says of partitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from embedding_assets.cli.documents import LISTED
from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.documents import mark_ingested, register_document
from embedding_assets_tests.cli.conftest import Command
from embedding_assets_tests.cli.test_documents import write_swatches

pytestmark = pytest.mark.slow


def test_drift_is_counted_then_repaired_and_what_is_due_embedded(
    command: Command, database: Database, tmp_path: Path
) -> None:
    demo = {"EMBEDDING_ASSETS_SLIG_MODEL": "demo", "DATABASE_URL": database.url}
    write_swatches(tmp_path / "swatches", 4)
    assert command("ingest", "swatches", "--workspace", "shop", **demo).returncode == 0
    assert command("embed", **demo).returncode == 0
    clean = command("reconcile", "--dry-run", **demo)
    assert clean.returncode == 0, clean.stderr
    assert "agree" in clean.stdout
    with database.transaction() as connection:
        connection.execute(
            text(
                "DELETE FROM vecs.image_slig_embeddings WHERE id IN (SELECT id FROM vecs.image_slig_embeddings LIMIT 2)"
            )
        )
    planned = command("reconcile", "--dry-run", "--json", **demo)
    assert planned.returncode == 1
    assert json.loads(planned.stdout)["collections"]["image_slig_embeddings"]["flags_lowered"] == 2
    assert command("coverage", **demo).returncode == 0, "a dry run changes nothing"
    done = command("reconcile", **demo)
    assert done.returncode == 0, done.stderr
    assert "1 documents have images that are due again" in done.stdout
    assert command("coverage", **demo).returncode == 1
    assert command("embed", **demo).returncode == 0
    assert command("reconcile", "--dry-run", **demo).returncode == 0


def test_of_many_documents_those_that_are_not_complete_are_listed(
    command: Command, database: Database
) -> None:
    many = LISTED + 1
    with database.transaction() as connection:
        for n in range(many):
            key = DocumentKey("shop", f"doc{n:04d}")
            register_document(connection, key, "folder")
            if n != 7:
                mark_ingested(connection, key, "hash", None, None)
    url = {"DATABASE_URL": database.url}
    shown = command("coverage", **url)
    assert shown.returncode == 1
    assert "shop/doc0007" in shown.stdout
    assert "shop/doc0008" not in shown.stdout
    assert f"{LISTED} of {many} documents are complete." in shown.stdout
    answer = json.loads(command("coverage", "--json", **url).stdout)
    assert (answer["listed"], len(answer["documents"])) == ("incomplete", 1)
    assert answer["totals"]["slig_embeddings"]["documents"] == many
    everything = json.loads(command("coverage", "--json", "--all", **url).stdout)
    assert (everything["listed"], len(everything["documents"])) == ("all", many)


def test_doctor_warns_before_there_are_too_many_partitions(
    command: Command, database: Database, tmp_path: Path
) -> None:
    environment = {
        "EMBEDDING_ASSETS_SLIG_MODEL": "demo",
        "EMBEDDING_ASSETS_SUPPORTED_PARTITIONS": "1",
        "DATABASE_URL": database.url,
    }
    write_swatches(tmp_path / "swatches", 1)
    assert command("ingest", "swatches", **environment).returncode == 0
    checks = {
        check["check"]: check for check in json.loads(command("doctor", "--json", **environment).stdout)
    }
    assert checks["partitions"]["status"] == "warning"
    assert "100% of the 1" in checks["partitions"]["message"]
