"""`backfill`, `ingest --launch` and `remove`, as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedding_assets_tests.cli.conftest import Command
from embedding_assets_tests.cli.test_documents import write_swatches

pytestmark = pytest.mark.slow

LIGHT = {"EMBEDDING_ASSETS_SLIG_MODEL": "demo", "EMBEDDING_ASSETS_VISION_PROVIDER": "off"}


def test_old_documents_are_counted_worked_off_handed_over_and_removed(
    command: Command, tmp_path: Path
) -> None:
    write_swatches(tmp_path / "oak", 3)
    assert command("ingest", "oak", "-w", "shop", **LIGHT).returncode == 0

    counted = command("backfill", "--dry-run", "--json", **LIGHT)
    assert json.loads(counted.stdout) == {
        "which": "missing",
        "assets": {"slig_embeddings": 1, "text_embeddings": 1},
        "dry_run": True,
    }

    done = command("backfill", "--here", **LIGHT)
    assert done.returncode == 0, done.stderr
    assert "slig_embeddings" in done.stdout
    nothing = command("backfill", "--missing", **LIGHT)
    assert "Nothing to do." in nothing.stdout

    other_model = {**LIGHT, "EMBEDDING_ASSETS_MIN_IMAGE_SIDE": "32"}
    stale = command("backfill", "--stale", "--dry-run", "--json", **other_model)
    assert json.loads(stale.stdout)["assets"] == {"document_images": 1}

    handed_over = command("backfill", "--all", "--asset", "slig_embeddings", "--json", **LIGHT)
    answer = json.loads(handed_over.stdout)
    assert answer["assets"] == {"slig_embeddings": 1}
    assert answer["backfill_id"]
    assert answer["daemon_running"] is False

    launched = command("ingest", "oak", "-w", "museum", "--launch", **LIGHT)
    assert launched.returncode == 0, launched.stderr
    assert "No daemon is running" in launched.stdout
    assert (tmp_path / "var" / "landing" / "museum" / "oak").is_dir()

    wrong = command("backfill", "--all", "--missing", **LIGHT)
    assert wrong.returncode == 2
    assert "give one of" in wrong.stderr

    kept = command("remove", "shop/oak", **LIGHT)
    assert kept.returncode == 1
    assert "still lies at" in kept.stderr
    shutil.rmtree(tmp_path / "var" / "landing" / "shop" / "oak")
    gone = command("remove", "shop/oak", "--json", **LIGHT)
    assert json.loads(gone.stdout) == {"removed": 1}
    assert "No documents yet" in command("coverage", **LIGHT).stdout
