"""Jobs of the API carried out by a daemon that is really running."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from embedding_assets.api.app import create_app
from embedding_assets.api.services import Services
from embedding_assets.pipeline.service import ImageEmbeddingService
from embedding_assets.settings import load_settings
from embedding_assets_tests.api.site import LOOPBACK, PEER
from embedding_assets_tests.e2e.test_daemon import Deployment, alerts, deployment, wait_until
from embedding_assets_tests.pipeline.project import png

__all__ = ["alerts", "deployment"]

pytestmark = pytest.mark.slow


def test_a_posted_list_is_run_with_its_config_and_a_bad_one_fails_its_job(deployment: Deployment) -> None:
    project = deployment.project
    settings = load_settings()
    services = Services(
        settings,
        database=project.database,
        image_store=project.image_store,
        embedding=ImageEmbeddingService(project.ingestor(), project.embedder),
    )
    folder = project.landing / "shop" / ".posted"  # hidden: no documents of their own
    folder.mkdir(parents=True)
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(png(seed))
    (folder / "broken.png").write_bytes(png(9)[:60])

    with TestClient(create_app(settings, services=services), base_url=LOOPBACK, client=PEER) as client:

        def post(job: str, names: list[str], document: str) -> Any:
            answer = client.post(
                f"/api/internal/save-images-db/{job}",
                json={
                    "document_id": document,
                    "workspace_id": "shop",
                    "material_images": [
                        {"path": f".posted/{name}", "caption": f"Sample {name}"} for name in names
                    ],
                    "batch_size": 2,
                    "max_retries": 0,
                },
            )
            assert answer.status_code in (200, 202), answer.text
            return answer.json()

        def ended(job: str) -> Any:
            found = client.get(f"/api/jobs/{job}", params={"workspace_id": "shop"}).json()
            return found if found["state"] in ("done", "failed") else None

        first = post("good", ["0.png", "1.png", "2.png"], "posted")
        assert first["job"]["state"] == "queued"
        assert "no Dagster daemon is running" in first["job"]["hint"]
        deployment.start()
        good = wait_until(lambda: ended("good"), "the job has ended", deployment.alive)
        assert good["state"] == "done", good
        assert good["result"] == {
            "images_saved": 3,
            "clip_embeddings_generated": 3,
            "failed_images": [],
        }
        assert len(good["run_ids"]) == 1
        assert all(stage["missing"] == 0 and stage["embedded"] == 3 for stage in good["stages"].values())
        assert len(good["stages"]) == 4
        assert good["run_url"].endswith(f"/runs/b/{good['run_url'].rsplit('/', 1)[1]}")
        run = deployment.graphql(
            '{ runOrError(runId: "%s") { ... on Run { runConfigYaml } } }' % good["run_ids"][0]  # noqa: UP031
        )
        assert "batch_size: 2" in run["runOrError"]["runConfigYaml"]

        post("bad", ["0.png", "broken.png"], "half")
        bad = wait_until(lambda: ended("bad"), "the job has ended", deployment.alive)
        assert bad["state"] == "failed"
        assert "1 of 1 runs failed" in bad["error"]
        assert [item["path"] for item in bad["result"]["failed_images"]] == [".posted/broken.png"]
        assert bad["result"]["clip_embeddings_generated"] == 1
        failures = client.get("/api/failures", params={"workspace_id": "shop"}).json()["items"]
        assert [item["stage"] for item in failures] == ["ingest"]

        (folder / "broken.png").write_bytes(png(9))
        retried = client.post(
            "/api/failures/retry", json={"workspace_id": "shop", "document_id": "half", "job_id": "again"}
        )
        assert retried.status_code == 202
        again = wait_until(lambda: ended("again"), "the job has ended", deployment.alive)
        assert again["state"] == "done", again
        assert client.get("/api/failures", params={"workspace_id": "shop"}).json()["items"] == []
        metrics = client.get("/metrics").text
        assert 'embedding_assets_runs{status="queued"} 0.0' in metrics
        assert 'embedding_assets_images{stage="slig",state="embedded",workspace="shop"} 5.0' in metrics
