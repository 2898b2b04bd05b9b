"""Which documents a backfill takes: missing, failed, stale, all; asset by asset."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from embedding_assets.encoders.aspects import aspect_words
from embedding_assets.errors import PermanentError, SettingsError, TransientError
from embedding_assets.ingest.landing import locate
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import ASSET_STAGES
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.pipeline.selection import Which, release, select_documents
from embedding_assets.pipeline.versions import code_version_of, index_version
from embedding_assets.settings import Settings
from embedding_assets.store.document_stages import record_done
from embedding_assets.store.documents import coverage_of_workspace
from embedding_assets.store.selection import documents_lacking
from embedding_assets_tests.pipeline.project import Project, pdf, png

SLIG = "slig_embeddings"


def selected(
    project: Project, settings: Settings, which: Which, *assets: str, workspace: str | None = None
) -> dict[str, list[str]]:
    found = select_documents(project.database, settings, which, workspace_id=workspace, assets=assets or None)
    return {asset: [str(key) for key in keys] for asset, keys in found.items()}


def done(project: Project, key: DocumentKey, stage: str, version: str) -> None:
    with project.database.transaction() as connection:
        assert record_done(connection, [key], stage, version) == 1


def embed(project: Project, settings: Settings, key: DocumentKey) -> None:
    embedder = project.embedder()
    embedder.run(key.workspace_id, embedder.pending(key))
    done(project, key, "slig", code_version_of("slig", settings))


def test_missing_is_what_has_images_to_do_or_was_never_materialized(
    project: Project, settings: Settings
) -> None:
    whole, partly, unmaterialized = (project.ingested(f"shop/{name}", [n]) for n, name in enumerate("abc"))
    embed(project, settings, whole)
    embedder = project.embedder()
    embedder.run("shop", embedder.pending(unmaterialized))
    assert selected(project, settings, Which.MISSING, SLIG) == {SLIG: ["shop/b", "shop/c"]}
    embed(project, settings, partly)
    done(project, unmaterialized, "slig", code_version_of("slig", settings))
    assert selected(project, settings, Which.MISSING, SLIG) == {}


def test_documents_that_only_permanent_failures_keep_incomplete_are_failed_and_not_missing(
    project: Project, settings: Settings
) -> None:
    key = project.ingested("shop/a", [1, 2])
    project.encoder.poison[hashlib.sha256(png(1)).hexdigest()] = PermanentError("no such colour space")
    embedder = project.embedder()
    embedder.run("shop", embedder.pending(key))
    assert selected(project, settings, Which.MISSING, SLIG) == {}
    assert selected(project, settings, Which.FAILED, SLIG) == {SLIG: ["shop/a"]}
    assert embedder.pending(key) == []
    assert release(project.database, settings, {SLIG: [key]}) == 1
    assert len(embedder.pending(key)) == 1
    assert selected(project, settings, Which.MISSING, SLIG) == {SLIG: ["shop/a"]}


def test_a_document_that_was_never_read_is_missing_in_the_whole_chain_but_not_in_one_stage(
    project: Project, settings: Settings
) -> None:
    project.land_images("shop/a", [1])
    project.ingestor().register(locate(str(project.landing), DocumentKey("shop", "a")))
    everywhere = selected(project, settings, Which.MISSING)
    assert set(map(tuple, everywhere.values())) == {("shop/a",)}
    assert list(everywhere)[:2] == ["document_images", SLIG]
    assert len(everywhere) == 5
    assert selected(project, settings, Which.MISSING, SLIG) == {}


def test_failed_at_ingest_goes_the_whole_way_again_and_is_read_even_if_unchanged(
    project: Project, settings: Settings
) -> None:
    key = project.land("shop/a", {"a.png": png(1), "b.png": png(2)[:-40]})
    sound = project.ingested("shop/b", [3])
    project.ingestor().ingest(key)
    found = selected(project, settings, Which.FAILED)
    assert found["document_images"] == found["text_embeddings"] == ["shop/a"]
    assert project.ingestor().is_current(key)
    assert release(project.database, settings, {"document_images": [key, sound]}) == 1
    assert not project.ingestor().is_current(key)
    assert project.ingestor().is_current(sound)


def test_stale_is_what_another_version_has_done(project: Project, settings: Settings) -> None:
    old, new = project.ingested("shop/old", [1]), project.ingested("shop/new", [2])
    other = settings.model_copy(update={"slig_model": "ViT-B-32", "slig_pretrained": "laion2b"})
    done(project, old, "slig", code_version_of("slig", other))
    done(project, new, "slig", code_version_of("slig", settings))
    assert selected(project, settings, Which.STALE) == {SLIG: ["shop/old"]}
    assert selected(project, other, Which.STALE) == {SLIG: ["shop/new"]}


def test_all_is_all_of_the_chosen_workspace(project: Project, settings: Settings) -> None:
    project.ingested("shop/a", [1])
    project.ingested("museum/b", [2])
    assert selected(project, settings, Which.ALL, SLIG) == {SLIG: ["museum/b", "shop/a"]}
    assert selected(project, settings, Which.ALL, SLIG, workspace="shop") == {SLIG: ["shop/a"]}


def test_assets_that_are_unknown_or_not_in_use_are_refused(project: Project, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="no asset in use is called sligg"):
        selected(project, settings, Which.ALL, "sligg")
    off = settings.model_copy(update={"vision_provider": "off"})
    with pytest.raises(SettingsError, match="vision_analysis"):
        selected(project, off, Which.ALL, "vision_analysis")


def test_transient_failures_are_missing_and_failed(project: Project, settings: Settings) -> None:
    key = project.ingested("shop/a", [1])
    project.encoder.prepare_faults[hashlib.sha256(png(1)).hexdigest()] = [
        TransientError("reset") for _ in range(9)
    ]
    embedder = project.embedder()
    embedder.run("shop", embedder.pending(key))
    for which in (Which.MISSING, Which.FAILED):
        assert selected(project, settings, which, SLIG) == {SLIG: ["shop/a"]}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (INGEST, {"pdf_images": "auto"}),
        (INGEST, {"min_image_side": 128}),
        ("slig", {"slig_pretrained": "other"}),
        ("slig", {"aspect_method": "blend"}),
        ("vision", {"vision_ocr": False}),
        ("vision", {"vision_provider": "qwen", "qwen_model": "Qwen3-VL-8B"}),
        ("understanding", {"text_provider": "voyage"}),
        ("text", {"text_provider": "voyage", "voyage_dimension": 512}),
    ],
)
def test_the_code_version_changes_with_what_decides_the_result(
    settings: Settings, stage: str, changes: dict[str, object]
) -> None:
    changed = settings.model_copy(update=changes)
    assert code_version_of(stage, changed) != code_version_of(stage, settings)
    untouched = settings.model_copy(update={"batch_size": 7, "slig_device": "cuda", "documents_per_run": 3})
    assert code_version_of(stage, untouched) == code_version_of(stage, settings)


def test_the_version_of_visual_vectors_changes_with_the_words_of_an_aspect(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_version_of("slig", settings)
    words = aspect_words()
    more = replace(words["style"], values=(*words["style"].values, "brutalist"))
    monkeypatch.setattr("embedding_assets.encoders.aspects.aspect_words", lambda: {**words, "style": more})
    assert code_version_of("slig", settings) != before


@pytest.mark.parametrize(
    "changes",
    [{"index_halfvec": False}, {"index_m": 24}, {"index_ef_construction": 128}, {"index_min_rows": 5}],
)
def test_the_version_of_the_indexes_changes_with_what_they_are_and_not_with_what_a_build_may_use(
    settings: Settings, changes: dict[str, object]
) -> None:
    assert index_version(settings.model_copy(update=changes)) != index_version(settings)
    untouched = settings.model_copy(update={"index_memory_mb": 64, "index_workers": 3})
    assert index_version(untouched) == index_version(settings)


def test_documents_embedded_before_there_were_aspects_are_missing_until_these_are_made(
    project: Project, settings: Settings
) -> None:
    key, whole = project.ingested("shop/old", [1]), project.ingested("shop/whole", [2])
    embed(project, settings, key)
    embed(project, settings, whole)
    assert selected(project, settings, Which.MISSING, SLIG) == {}
    with project.database.transaction() as connection:
        connection.execute(
            text("UPDATE document_images SET has_style_slig = false WHERE document_id = 'old'")
        )
        connection.execute(
            text("DELETE FROM vecs.image_style_embeddings WHERE metadata ->> 'document_id' = 'old'")
        )
    assert selected(project, settings, Which.MISSING, SLIG) == {SLIG: ["shop/old"]}
    project.encoder.calls.clear()
    assert project.embedder().pending(key) == []
    assert project.encoder.calls == []
    assert selected(project, settings, Which.MISSING, SLIG) == {}


def test_the_version_of_a_folder_of_weights_is_that_of_its_files_and_not_of_its_place(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path
    for name, weights in (("here", b"1" * 200_000), ("there", b"1" * 200_000), ("other", b"2" * 200_000)):
        (folder / name).mkdir()
        (folder / name / "open_clip_model.safetensors").write_bytes(weights)
        (folder / name / "open_clip_config.json").write_text("{}")
    versions = [
        code_version_of("slig", settings.model_copy(update={"slig_model": f"local-dir:{folder / name}"}))
        for name in ("here", "there", "other")
    ]
    assert versions[0] == versions[1] != versions[2]


def test_missing_agrees_with_the_coverage_of_every_stage(project: Project, settings: Settings) -> None:
    """Whatever the images are: ready, small, broken, without text, analysed or not, failed for good or not."""
    project.land("shop/mixed", {"a.png": png(1), "b.png": png(2)[:-40], "c.png": png(3, side=16)})
    project.land("shop/broken", {"a.png": png(4)[:-40]})
    project.land("shop/small", {"a.png": png(5, side=16)})
    project.land("shop/pdf.pdf", pdf([6, 7]))
    keys = [DocumentKey("shop", name) for name in ("mixed", "broken", "small", "pdf.pdf")]
    for key in keys:
        project.ingestor().ingest(key)
    project.encoder.poison[hashlib.sha256(png(1)).hexdigest()] = PermanentError("no such colour space")
    embedder, analyst = project.embedder(), project.vision_runner()
    embedder.run("shop", embedder.pending(keys[0]))
    analyst.run("shop", analyst.pending(keys[3])[:1])
    with project.database.transaction() as connection:
        for stage in ASSET_STAGES:
            record_done(connection, keys, stage.name, "any")  # so that only what is to do counts
            expected = {
                row.key
                for row in coverage_of_workspace(connection, "shop", stage.flag, stage.name)
                if row.missing
            }
            assert set(documents_lacking(connection, "shop", stage.name, stage.flag, 0.95)) == expected, stage
