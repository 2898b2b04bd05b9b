"""Errors of the command: one line with a hint, exit codes, no secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_assets_tests.cli.conftest import Command

pytestmark = pytest.mark.slow


def test_an_unknown_setting_is_refused_by_name(command: Command) -> None:
    done = command("coverage", EMBEDDING_ASSETS_BATCHSIZE="3")
    assert done.returncode == 2
    assert "EMBEDDING_ASSETS_BATCHSIZE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_database_is_one_line_without_the_password(command: Command) -> None:
    done = command("coverage", DATABASE_URL="postgresql://someone:hunter2@127.0.0.1:1/catalogue")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_debug_shows_the_trace(command: Command) -> None:
    done = command("--debug", "coverage", DATABASE_URL="postgresql://someone:hunter2@127.0.0.1:1/catalogue")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_database_that_was_not_migrated_says_which_command_does_it(
    command: Command, empty_database_url: str
) -> None:
    done = command("coverage", DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    assert "embedding-assets db upgrade" in done.stderr
    assert command("db", "upgrade", DATABASE_URL=empty_database_url).returncode == 0
    assert command("coverage", DATABASE_URL=empty_database_url).returncode == 0


def test_a_path_that_is_not_there_is_refused(command: Command, database_url: str) -> None:
    done = command("ingest", "nowhere.pdf", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "nowhere.pdf does not exist" in done.stderr


def test_a_list_that_is_no_list_is_refused(command: Command, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('{"images": 3}')
    done = command("ingest", "list.json", DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "material_images" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("search",), ("search", "blue", "--image", "x.jpg"), ("search", "--top-k", "0", "x")]
)
def test_wrong_usage_exits_with_2(command: Command, database_url: str, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_weights_that_cannot_be_had_name_the_setting_and_the_offline_choice(
    command: Command, database_url: str
) -> None:
    done = command("doctor", DATABASE_URL=database_url, HF_HUB_OFFLINE="1", HF_HOME="/nonexistent")
    assert done.returncode == 1
    assert "EMBEDDING_ASSETS_SLIG_MODEL" in done.stdout
    assert "local-dir:" in done.stdout
