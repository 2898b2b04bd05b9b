"""Migrations: from nothing to the models' schema, by many at once, and refusals of what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from embedding_assets.errors import FatalError, SchemaError
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database, open_database
from embedding_assets.store.models import FLAGS, INDEXED_FLAGS
from embedding_assets.store.schema import (
    VERSION_TABLE,
    check_server,
    head_revision,
    parse_version,
    require_schema,
    schema_differences,
    upgrade_schema,
)
from embedding_assets_tests.factories import make_document, scalar

REPOSITORY = Path(__file__).parents[2]


def test_the_migrated_schema_is_the_models_schema(database: Database) -> None:
    with database.transaction() as connection:
        assert schema_differences(connection) == []


def test_a_difference_between_schema_and_models_is_found(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE document_images DROP COLUMN quality_score"))
        connection.execute(text("DROP INDEX ix_document_images_lacking_all_slig"))
        assert len(schema_differences(connection)) == 2


def test_upgrading_twice_changes_nothing_the_second_time(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert upgrade_schema(database) is True
    assert upgrade_schema(database) is False
    require_schema(database)
    database.dispose()


def test_tables_of_another_application_are_left_alone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(text("CREATE TABLE orders (id int)"))
    upgrade_schema(database)
    with database.transaction() as connection:
        assert schema_differences(connection) == []
        assert scalar(connection, "SELECT version_num FROM alembic_version") == "theirs"
    database.dispose()


@pytest.mark.slow
def test_four_processes_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    """Each process waits for a line on its standard input, so that all of them start together."""
    script = (
        "import sys\n"
        "from embedding_assets.store.database import Database\n"
        "from embedding_assets.store.schema import upgrade_schema\n"
        "database = Database(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(upgrade_schema(database))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        answers.append(out.strip())
    assert sorted(answers) == ["False", "False", "False", "True"]
    database = Database(empty_database_url)
    with database.transaction() as connection:
        assert schema_differences(connection) == []
        assert scalar(connection, f"SELECT count(*) FROM {VERSION_TABLE}") == 1
    database.dispose()


def test_a_database_migrated_by_a_newer_version_is_refused(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for check in (require_schema, upgrade_schema):
        with pytest.raises(SchemaError, match="revision 9999, which this version does not know") as raised:
            check(database)
        assert "newer" in (raised.value.hint or "")


def test_an_unmigrated_database_by_url_is_refused_with_the_command_that_migrates_it(
    empty_database_url: str,
) -> None:
    with pytest.raises(
        SchemaError, match=f"revision none, and this version needs {head_revision()}"
    ) as raised:
        open_database(load_settings(database_url=empty_database_url))
    assert raised.value.hint == "run `embedding-assets db upgrade`"


def test_a_migrated_database_by_url_is_opened_once_a_process(database_url: str) -> None:
    settings = load_settings(database_url=database_url)
    database = open_database(settings)
    assert open_database(settings) is database
    database.dispose()


def test_working_on_missing_tables_is_a_schema_error(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with (
        pytest.raises(SchemaError, match="lacks what this version needs") as raised,
        database.transaction() as c,
    ):
        c.execute(text("SELECT * FROM document_images"))
    assert raised.value.hint == "run `embedding-assets db upgrade`"
    database.dispose()


def test_flags_are_not_null_and_false_at_first(database: Database) -> None:
    make_document(database, "shop/doc", 1)
    with database.transaction() as connection:
        flags = connection.execute(text(f"SELECT {', '.join(FLAGS.values())} FROM document_images")).one()
        assert flags == (False,) * 7
        columns = connection.execute(
            text(
                "SELECT column_name, is_nullable, column_default FROM information_schema.columns "
                "WHERE table_name = 'document_images' AND column_name LIKE 'has\\_%' AND is_generated = 'NEVER'"
            )
        ).all()
    assert {tuple(column) for column in columns} == {
        (flag, "NO", "false") for flag in (*FLAGS.values(), "has_vision_analysis")
    }


@pytest.mark.parametrize("flag", INDEXED_FLAGS)
def test_each_encoding_has_a_partial_index_on_what_is_missing(database: Database, flag: str) -> None:
    with database.transaction() as connection:
        definition = scalar(
            connection,
            "SELECT indexdef FROM pg_indexes WHERE indexname = :name",
            name=f"ix_document_images_lacking_{flag.removeprefix('has_')}",
        )
    assert "(workspace_id, document_id, image_index)" in definition
    assert f"WHERE ((status = 'ready'::text) AND (NOT {flag}))" in definition


def test_the_embedded_server_is_new_enough(database: Database) -> None:
    with database.transaction() as connection:
        assert check_server(connection) == []


@pytest.mark.parametrize(
    ("number", "vector", "outcome"),
    [
        ("140011", "0.8.5", "Postgres 14 is too old: 15 or newer"),
        ("150001", None, "pgvector is not installed"),
        ("150001", "0.7.4", "pgvector 0.7.4 is too old: 0.8.0"),
        ("150001", "0.8.0", ["pgvector 0.8.0: 0.8.4 mended"]),
        ("180000", "0.8.4", []),
        ("180000", "0.10.0", []),
    ],
)
def test_server_versions_are_judged(number: str, vector: str | None, outcome: str | list[str]) -> None:
    class Answer:
        def __init__(self, value: str | None) -> None:
            self.value = value

        def scalar_one(self) -> str | None:
            return self.value

        scalar = scalar_one

    class OldServer:
        """Answers the two questions as a server of other versions would: none of them is at hand."""

        def execute(self, statement: object) -> Answer:
            return Answer(number if "server_version_num" in str(statement) else vector)

    if isinstance(outcome, str):
        with pytest.raises(FatalError, match=outcome):
            check_server(OldServer())  # type: ignore[arg-type]
    else:
        warnings = check_server(OldServer())  # type: ignore[arg-type]
        assert len(warnings) == len(outcome)
        assert all(warning.startswith(start) for warning, start in zip(warnings, outcome, strict=True))


def test_versions_are_compared_as_numbers() -> None:
    assert parse_version("0.10.0") > parse_version("0.8.4")
