"""A document's way through the command: ingest, embed, coverage, failures, search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from embedding_assets.demo.specification import make_products
from embedding_assets.demo.swatches import draw_swatch
from embedding_assets_tests.cli.conftest import Command

pytestmark = pytest.mark.slow


def write_swatches(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number, product in enumerate(make_products(count, seed=5)):
        draw_swatch(product, 96, seed=number).save(folder / f"{number:02d}.png")


def test_a_folder_goes_all_the_way_and_a_second_time_changes_nothing(
    command: Command, tmp_path: Path
) -> None:
    write_swatches(tmp_path / "swatches", 6)
    Image.new("RGB", (8, 8)).save(tmp_path / "swatches" / "icon.png")
    demo = {"EMBEDDING_ASSETS_SLIG_MODEL": "demo"}

    before = command("coverage", **demo)
    assert before.returncode == 0
    assert "No documents yet" in before.stdout

    ingested = command("ingest", "swatches", "--workspace", "shop", "--json", **demo)
    assert ingested.returncode == 0, ingested.stderr
    assert json.loads(ingested.stdout)["documents"][0]["missing"] == 6

    incomplete = command("coverage", "--json", **demo)
    assert incomplete.returncode == 1
    assert json.loads(incomplete.stdout)["complete"] is False

    embedded = command("embed", "--json", **demo)
    assert embedded.returncode == 0, embedded.stderr
    (row,) = json.loads(embedded.stdout)["documents"]
    assert (row["images"], row["embedded"], row["skipped"], row["complete"]) == (7, 6, 1, True)

    again = command("ingest", "swatches", "--workspace", "shop", "--json", **demo)
    assert json.loads(again.stdout)["unchanged"] == ["shop/swatches"]

    found = command("search", "tiles", "--workspace", "shop", "--top-k", "3", "--json", **demo)
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 3

    same = command("search", "--image", "swatches/03.png", "--workspace", "shop", "--json", **demo)
    best, second = json.loads(same.stdout)["hits"][:2]
    assert best["reference"] == "03.png"
    assert best["scores"]["visual"] > second["scores"]["visual"]

    other = command("search", "tiles", "--workspace", "elsewhere", **demo)
    assert other.returncode == 1
    assert "no embedded image of workspace elsewhere" in other.stderr

    refused = command(
        "embed", EMBEDDING_ASSETS_SLIG_MODEL="ViT-B-32", EMBEDDING_ASSETS_SLIG_PRETRAINED="random"
    )
    assert refused.returncode == 0, "nothing is to do, so no model is needed"
    write_swatches(tmp_path / "more", 1)
    command("ingest", "more", "--workspace", "shop", **demo)
    refused = command(
        "embed", EMBEDDING_ASSETS_SLIG_MODEL="ViT-B-32", EMBEDDING_ASSETS_SLIG_PRETRAINED="random"
    )
    assert refused.returncode == 1
    assert "512-D" in refused.stdout


def test_a_broken_document_is_listed_and_mended_by_retry(command: Command, tmp_path: Path) -> None:
    landing = tmp_path / "var" / "landing" / "shop"
    landing.mkdir(parents=True)
    (landing / "broken.pdf").write_bytes(b"%PDF-1.7 this is not one")
    demo = {"EMBEDDING_ASSETS_SLIG_MODEL": "demo"}
    failed = command("ingest", **demo)
    assert failed.returncode == 1
    assert "shop/broken.pdf" in failed.stdout
    listed = json.loads(command("failures", "--json", **demo).stdout)["failures"]
    assert [(f["document"], f["image_id"], f["stage"]) for f in listed] == [
        ("shop/broken.pdf", None, "ingest")
    ]
    assert command("coverage", **demo).returncode == 1

    Image.new("RGB", (200, 200), "teal").save(landing / "broken.pdf", "PDF")
    retried = command("failures", "--retry", "--json", **demo)
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert json.loads(retried.stdout)["failures"] == []
    assert command("coverage", **demo).returncode == 0


def test_a_posted_list_is_a_document(command: Command, tmp_path: Path) -> None:
    write_swatches(tmp_path / "pictures", 3)
    entries = [{"path": str(tmp_path / "pictures" / f"{n:02d}.png"), "page_number": n + 1} for n in range(3)]
    entries.append({"path": "/etc/passwd"})
    (tmp_path / "posted.json").write_text(json.dumps(entries))
    done = command(
        "ingest",
        "posted.json",
        "--json",
        EMBEDDING_ASSETS_SLIG_MODEL="demo",
        EMBEDDING_ASSETS_ALLOWED_ROOTS=str(tmp_path / "pictures"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert [row["missing"] for row in answer["documents"]] == [3]
    (failure,) = answer["failures"]
    assert (failure["index"], failure["class"]) == (3, "permanent")
