"""Jobs: posted lists, regenerating, understanding, retrying; each is repeatable and can be followed."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.api.routes import jobs
from embedding_assets.errors import ModelUnavailable, PermanentError, StoreUnavailable
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.jobs import QueuedRuns
from embedding_assets_tests.api.site import Site
from embedding_assets_tests.pipeline.fake_encoder import content_of
from embedding_assets_tests.pipeline.project import png

SAVE = "/api/internal/save-images-db"
STAGE_ASSETS = ["slig_embeddings", "vision_analysis", "understanding_embeddings", "text_embeddings"]


def post_list(site: Site, job_id: str, seeds: list[int], mode: str = "run", **body: Any) -> Any:
    """Posts a list of images that lie in the workspace's landing folder."""
    folder = site.project.landing / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"posted-{seed}.png").write_bytes(png(seed))
    return site.as_role("shop", "writer").post(
        f"{SAVE}/{job_id}",
        params={"mode": mode},
        json={
            "document_id": "posted",
            "workspace_id": "shop",
            "material_images": [{"path": f"posted-{seed}.png", "page_number": 1} for seed in seeds],
            **body,
        },
    )


# -- in this process ---------------------------------------------------------------------------------------------
def test_a_list_posted_inline_is_saved_and_embedded_in_the_request(site: Site) -> None:
    site.project.encoder.poison[content_of(png(503))] = PermanentError("not this one")
    answer = post_list(site, "in-1", [501, 502, 503], "inline", batch_size=2, max_retries=0)
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["success"], done["images_saved"], done["clip_embeddings_generated"]) == (True, 3, 2)
    assert [(f["index"], f["error"]) for f in done["failed_images"]] == [(2, "not this one")]
    job = done["job"]
    assert (job["state"], job["mode"], job["counts"]) == ("done", "inline", {"posted": 3})
    assert job["stages"]["slig"]["embedded"] == 2
    assert job["vectors"]["image_understanding_embeddings"] == 3
    assert site.queue.submitted == []


def test_the_same_job_posted_again_does_nothing_and_answers_the_same(site: Site) -> None:
    first = post_list(site, "in-1", [501, 502], "inline").json()
    calls = len(site.project.encoder.calls)
    again = post_list(site, "in-1", [501, 502], "inline").json()
    assert again == first
    assert len(site.project.encoder.calls) == calls


def test_a_used_job_id_with_another_list_is_refused(site: Site) -> None:
    assert post_list(site, "in-1", [501], "inline").status_code == 200
    answer = post_list(site, "in-1", [502], "inline")
    assert answer.status_code == 409
    assert "take a new job id" in answer.json()["hint"]
    elsewhere = site.as_role("rival", "writer").post(
        f"{SAVE}/in-1", params={"mode": "inline"}, json={"document_id": "x", "material_images": []}
    )
    assert elsewhere.status_code == 200  # a job id is its workspace's own


def test_a_job_that_failed_here_says_why_and_goes_on_when_it_is_posted_again(site: Site) -> None:
    site.project.encoder.poison[content_of(png(501))] = ModelUnavailable("the weights are gone")
    failed = post_list(site, "in-1", [501, 502], "inline")
    assert failed.status_code == 500
    assert failed.json()["detail"] == "the weights are gone"
    job = site.as_role("shop", "reader").get("/api/jobs/in-1").json()
    assert (job["state"], job["error"]) == ("failed", "the weights are gone")
    site.project.encoder.poison.clear()
    again = post_list(site, "in-1", [501, 502], "inline")
    assert again.status_code == 200, again.text
    assert again.json()["clip_embeddings_generated"] == 2


def test_a_job_that_a_dead_server_left_is_taken_up_again(site: Site) -> None:
    post_list(site, "in-1", [501], "inline")
    with site.database.transaction() as connection:
        connection.execute(text("UPDATE jobs SET state = 'running', result = NULL, finished_at = NULL"))
    again = post_list(site, "in-1", [501], "inline")
    assert (again.status_code, again.json()["job"]["state"]) == (200, "done")


def test_a_long_job_goes_on_behind_an_answer_that_says_so(site: Site) -> None:
    object.__setattr__(site.settings, "api_timeout_s", 5.5)
    go_on = threading.Event()
    site.project.encoder.before_encode = lambda contents: assert_set(go_on)
    try:
        answer = post_list(site, "in-1", [501], "inline")
        assert answer.status_code == 202
        assert answer.json()["job"]["state"] == "running"
        twice = post_list(site, "in-1", [501], "inline")
        assert twice.status_code == 202
    finally:
        go_on.set()
    client = site.as_role("shop", "reader")
    with client.stream("GET", "/api/jobs/in-1/events") as stream:
        events = [line for line in stream.iter_lines() if line.startswith("event: ")]
    assert events[-1] == "event: end"
    assert client.get("/api/jobs/in-1").json()["result"]["clip_embeddings_generated"] == 1
    assert sum(site.project.encoder.tried.values()) >= 1
    assert site.project.encoder.encoded[content_of(png(501))] == 1


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_a_list_can_not_take_the_place_of_a_document_that_landed(site: Site) -> None:
    for mode in ("inline", "run"):
        answer = post_list(site, f"job-{mode}", [501], mode, document_id="tiles")
        assert answer.status_code == 422
        assert "a posted list can't replace it" in answer.json()["detail"]
        assert site.as_role("shop", "reader").get(f"/api/jobs/job-{mode}").json()["state"] == "failed"


def test_a_url_is_not_fetched_unless_that_is_switched_on(site: Site) -> None:
    urls = ["http://169.254.169.254/latest", "http://127.0.0.1:1/x.png", "https://cdn.example/oak.png"]
    answer = site.as_role("shop", "writer").post(
        f"{SAVE}/urls",
        params={"mode": "inline"},
        json={"document_id": "urls", "material_images": [{"url": url} for url in urls]},
    )
    failed = answer.json()["failed_images"]
    assert len(failed) == 3
    assert all("fetch_urls" in item["error"] for item in failed), failed


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"material_images": "x"}, "material_images"),
        ({"material_images": [1]}, "material_images.0"),
        ({"material_images": [{}] * 10_001}, "material_images"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_retries": 11}, "max_retries"),
        ({"document_id": "a/../b"}, "document_id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_posted_list_is_checked_field_by_field(body: dict[str, Any], field: str, site: Site) -> None:
    answer = post_list(site, "in-1", [501], **body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert site.count("SELECT count(*) FROM jobs") == 0


# -- by the queue ------------------------------------------------------------------------------------------------
def test_a_posted_list_is_queued_with_its_config_and_followed_to_its_end(site: Site) -> None:
    answer = post_list(site, "run-1", [501, 502], batch_size=7, max_retries=1)
    assert answer.status_code == 202
    assert answer.json()["images_saved"] == 0
    ((targets, title, config),) = site.queue.submitted
    key = DocumentKey("shop", "posted")
    assert targets == {asset: [key] for asset in ["document_images", *STAGE_ASSETS]}
    assert title == "save_images shop/run-1"
    assert config["slig_embeddings"] == {"batch_size": 7, "max_retries": 1}
    assert config["text_embeddings"] == {"max_retries": 1}
    client = site.as_role("shop", "reader")
    assert client.get("/api/jobs/run-1").json()["state"] == "queued"
    site.project.ingestor().ingest(key)
    site.queue.states["backfill-1"] = QueuedRuns("running", ("run-a",), "")
    halfway = client.get("/api/jobs/run-1").json()
    assert (halfway["state"], halfway["run_ids"]) == ("running", ["run-a"])
    assert (halfway["stages"]["slig"]["missing"], halfway["result"]["images_saved"]) == (2, 2)
    embedder = site.project.embedder()
    embedder.open_collection()
    embedder.run("shop", embedder.pending(key), run_id="r")
    site.queue.states["backfill-1"] = QueuedRuns("done", ("run-a",), "")
    done = post_list(site, "run-1", [501, 502], batch_size=7, max_retries=1)
    assert done.status_code == 200
    assert done.json()["images_saved"] == 2
    assert done.json()["clip_embeddings_generated"] == 2
    assert done.json()["run_id"] == "run-a"
    assert len(site.queue.submitted) == 1


def test_counts_are_of_what_changed_since_the_job_was_asked_for(site: Site) -> None:
    assert post_list(site, "in-1", [501, 502], "inline").is_success
    site.project.encoder.poison[content_of(png(503))] = PermanentError("not yet")
    assert post_list(site, "in-2", [501, 502, 503], "inline").json()["clip_embeddings_generated"] == 0
    site.project.encoder.poison.clear()
    assert post_list(site, "run-3", [502, 503, 504]).status_code == 202
    key = DocumentKey("shop", "posted")
    site.project.ingestor().ingest(key)
    with site.database.transaction() as connection:
        connection.execute(text("UPDATE embedding_failures SET error_class = 'transient'"))
    embedder = site.project.embedder()
    embedder.run("shop", embedder.pending(key), run_id="r")
    site.queue.states["backfill-1"] = QueuedRuns("done", (), "")
    done = site.as_role("shop", "reader").get("/api/jobs/run-3").json()
    assert done["result"]["images_saved"] == 1  # 504; 501 has left, 503 had a row
    assert done["result"]["clip_embeddings_generated"] == 2  # 503 and 504


def test_a_queue_that_can_not_be_had_is_503_and_the_job_is_handed_in_later(site: Site) -> None:
    site.queue.fault = StoreUnavailable("Dagster's storage can't be used")
    assert post_list(site, "run-1", [501]).status_code == 503
    site.queue.fault = None
    assert post_list(site, "run-1", [501]).status_code == 202
    assert len(site.queue.submitted) == 1


def test_two_requests_at_once_hand_a_job_in_once(site: Site) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(post_list(site, "run-1", [501]).status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 6
    assert len(site.queue.submitted) == 1


def test_a_job_that_nothing_carries_out_says_what_to_do(site: Site) -> None:
    site.queue.served = False
    assert "embedding-assets up" in post_list(site, "run-1", [501]).json()["job"]["hint"]


def test_a_failed_run_fails_the_job_and_the_same_request_tries_again(site: Site) -> None:
    post_list(site, "run-1", [501])
    site.queue.states["backfill-1"] = QueuedRuns("failed", ("run-a",), "1 of 1 runs failed")
    job = site.as_role("shop", "reader").get("/api/jobs/run-1").json()
    assert (job["state"], job["error"]) == ("failed", "1 of 1 runs failed")
    assert job["finished_at"]
    again = post_list(site, "run-1", [501])
    assert (again.status_code, again.json()["job"]["state"]) == (202, "queued")
    assert len(site.queue.submitted) == 2


# -- regenerate, understand, retry -------------------------------------------------------------------------------
def test_nothing_missing_is_a_job_that_is_done_at_once(site: Site) -> None:
    client = site.as_role("shop", "writer")
    with site.database.transaction() as connection:
        connection.execute(text("UPDATE document_images SET has_text_embedding = true"))
    answer = client.post("/api/internal/regenerate-image-embeddings", json={})
    assert answer.status_code == 202
    assert answer.json()["job"]["state"] == "done"
    assert answer.json()["counts"]["missing_slig"] == 0
    assert site.queue.submitted == []


def test_regenerating_all_that_is_missing_names_the_documents_of_each_stage(site: Site) -> None:
    key = site.project.ingested("shop/new", [601, 602])
    answer = site.as_role("shop", "writer").post("/api/internal/regenerate-image-embeddings", json={})
    counts = answer.json()["counts"]
    assert counts["missing_slig"] == 2
    assert counts["missing_text"] == 6
    ((targets, _, _),) = site.queue.submitted
    assert targets["slig_embeddings"] == [key]
    assert targets["text_embeddings"] == [key, DocumentKey("shop", "tiles")]
    assert targets["understanding_embeddings"] == [key]


def test_forcing_drops_the_vectors_of_the_chosen_images_only(site: Site) -> None:
    image, *others = site.images["shop"]
    rows = {row.id: row for row in site.project.rows(DocumentKey("shop", "tiles"))}
    answer = site.as_role("shop", "writer").post(
        "/api/internal/regenerate-image-embeddings",
        json={"image_ids": [str(image)], "force_regenerate": True, "job_id": "force-1"},
    )
    assert answer.json()["counts"]["images"] == 1
    assert answer.json()["counts"]["vectors_dropped"] == 2  # visual and understanding
    after = {row.id: row for row in site.project.rows(DocumentKey("shop", "tiles"))}
    assert not after[image].has_slig_embedding
    assert not after[image].has_understanding_embedding
    assert after[image].has_vision_analysis
    assert [after[i].version for i in others] == [rows[i].version for i in others]
    site.project.check_flags_equal_vectors()
    again = site.as_role("shop", "writer").post(
        "/api/internal/regenerate-image-embeddings",
        json={"image_ids": [str(image)], "force_regenerate": True, "job_id": "force-1"},
    )
    assert again.json()["job"]["job_id"] == "force-1"
    assert len(site.queue.submitted) == 1


def test_forcing_a_document_makes_all_of_it_due_with_its_failures(site: Site) -> None:
    answer = site.as_role("shop", "writer").post(
        "/api/internal/regenerate-image-embeddings", json={"document_id": "tiles", "force_regenerate": True}
    )
    counts = answer.json()["counts"]
    assert (counts["missing_slig"], counts["failures_released"]) == (4, 1)
    assert len(site.project.vectors(DocumentKey("rival", "tiles"))) == 3


def test_understanding_vectors_are_queued_for_what_lacks_them(site: Site) -> None:
    key = DocumentKey("shop", "tiles")
    with site.database.transaction() as connection:
        connection.execute(text("UPDATE document_images SET has_understanding_embedding = false"))
    new = site.project.ingested("shop/new", [601])
    client = site.as_role("shop", "admin")
    counted = client.post("/api/admin/understanding-embeddings/backfill", json={"dry_run": True}).json()
    assert counted == {
        "counts": {"images_to_embed": 4, "images_to_analyse": 0, "documents": 1},
        "job": None,
    }
    queued = client.post("/api/internal/queue-understanding-embeddings", json={}).json()
    assert queued["counts"] == {"images_to_embed": 4, "images_to_analyse": 1, "documents": 2}
    assert site.queue.submitted[0][0] == {"vision_analysis": [new], "understanding_embeddings": [new, key]}
    backfill = client.post("/api/admin/understanding-embeddings/backfill", json={"document_id": "tiles"})
    assert backfill.json()["job"]["kind"] == "backfill"
    assert site.queue.submitted[1][0] == {"understanding_embeddings": [key]}


def test_retrying_makes_a_permanent_failure_due_and_runs_what_follows(site: Site) -> None:
    client = site.as_role("shop", "writer")
    image = site.images["shop"][2]
    nothing = client.post("/api/failures/retry", json={"stage": "vision"})
    assert nothing.json()["counts"]["failures"] == 0
    answer = client.post("/api/failures/retry", json={"image_ids": [str(image)], "stage": "slig"})
    assert answer.json()["counts"] == {"failures": 1, "failures_released": 1, "documents": 1}
    assert site.queue.submitted[0][0] == {"slig_embeddings": [DocumentKey("shop", "tiles")]}
    assert site.project.embedder().pending(DocumentKey("shop", "tiles")) == [image]
    assert site.project.embedder().pending(DocumentKey("rival", "tiles")) == []


def test_where_ingest_failed_the_document_goes_the_whole_way_again(site: Site) -> None:
    folder = {"good.png": png(700), "bad.png": png(701)[:40]}
    key = site.project.land("shop/half", folder)
    site.project.ingestor().ingest(key)
    answer = site.as_role("shop", "writer").post("/api/failures/retry", json={"document_id": "half"})
    assert answer.json()["counts"]["failures"] == 1
    assert site.queue.submitted[0][0] == {asset: [key] for asset in ["document_images", *STAGE_ASSETS]}
    assert not site.project.ingestor().is_current(key)


@pytest.mark.parametrize(
    "path",
    ["internal/queue-understanding-embeddings", "internal/regenerate-image-embeddings", "failures/retry"],
)
def test_a_document_that_is_not_there_is_not_found(path: str, site: Site) -> None:
    answer = site.as_role("shop", "writer").post(f"/api/{path}", json={"document_id": "nothing"})
    assert answer.status_code == 404
    assert site.count("SELECT count(*) FROM jobs") == 0


# -- following ---------------------------------------------------------------------------------------------------
def test_jobs_are_listed_latest_first_page_by_page(site: Site) -> None:
    for n in range(5):
        post_list(site, f"run-{n}", [501])
    client = site.as_role("shop", "reader")
    found: list[str] = []
    after = None
    while True:
        page = client.get("/api/jobs", params={"limit": 2, **({"after": after} if after else {})}).json()
        found += [item["job_id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == [f"run-{n}" for n in (4, 3, 2, 1, 0)]


def test_a_stream_tells_each_change_and_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0.05)
    post_list(site, "run-1", [501])
    changes = [QueuedRuns("running", ("run-a",), ""), QueuedRuns("done", ("run-a",), "")]
    events: list[tuple[str, Any]] = []
    with site.as_role("shop", "reader").stream("GET", "/api/jobs/run-1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
                if changes:
                    site.queue.states["backfill-1"] = changes.pop(0)
    assert [name for name, _ in events] == ["progress", "progress", "progress", "end"]
    assert [data["state"] for _, data in events] == ["queued", "running", "done", "done"]
    assert site.app.state.streams == 0


def test_there_is_a_limit_to_streams(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_STREAMS", 0)
    post_list(site, "run-1", [501])
    answer = site.as_role("shop", "reader").get("/api/jobs/run-1/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")


def test_a_stream_ends_when_its_key_is_revoked(site: Site) -> None:
    from embedding_assets.store.api_keys import revoke_key

    post_list(site, "run-1", [501])
    with site.as_role("shop", "reader").stream("GET", "/api/jobs/run-1/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: progress"
        with site.database.transaction() as connection:
            revoke_key(connection, site.keys["shop", "reader"].split("_")[1])
        rest = list(lines)
    assert "event: problem" in rest
    assert '"status": 401' in rest[rest.index("event: problem") + 1]
