"""The command `indexes`."""

from __future__ import annotations

import json

import pytest

from embedding_assets.store.database import Database, normalize_url
from embedding_assets.store.index_builds import only_builder
from embedding_assets.store.spaces import SLIG, TEXT
from embedding_assets_tests.cli.conftest import Command
from embedding_assets_tests.factories import fill_collection

pytestmark = pytest.mark.slow


def test_it_builds_what_is_missing_and_prints_size_and_recall_or_the_reason_why_not(
    command: Command, database: Database
) -> None:
    variables = {"DATABASE_URL": normalize_url(database.url).replace("+psycopg2", "")}
    variables["EMBEDDING_ASSETS_INDEX_MIN_ROWS"] = "50"
    nothing = command("indexes", **variables)
    assert nothing.returncode == 0, nothing.stderr
    assert "No vectors yet" in nothing.stdout
    fill_collection(database, 100, name=SLIG)
    fill_collection(database, 20, name=TEXT)

    shown = command("indexes", **variables)
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if SLIG in line]
    assert "built" in line
    assert "20 rows: below index_min_rows (50)" in " ".join(shown.stdout.split())

    again = json.loads(command("indexes", "--json", **variables).stdout)
    assert [report["table"] for report in again] == [SLIG, TEXT]
    assert [report["vector"]["action"] for report in again] == ["kept", "skipped"]
    assert again[0]["recall"]["value"] > 0.9

    rebuilt = json.loads(command("indexes", "--rebuild", "--json", **variables).stdout)
    assert rebuilt[0]["vector"]["action"] == "rebuilt"

    with only_builder(database):
        refused = command("indexes", **variables)
    assert refused.returncode == 1
    assert "being built by another process" in refused.stderr
    assert "Traceback" not in refused.stderr
