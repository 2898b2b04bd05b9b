"""Who may do what, by table: every route, every role, two workspaces."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from embedding_assets.store.api_keys import ROLES, Role
from embedding_assets.store.jobs import add_job
from embedding_assets_tests.api.site import DOCUMENT, WORKSPACES, Site
from embedding_assets_tests.pipeline.project import png

JOB = "import-1"


@dataclass(frozen=True)
class Route:
    """One route as it is asked for something of a workspace.

    Attributes:
        role: the least that may ask; None: no key is asked for.
        ask: (workspace, one of its images) -> what httpx's `request` takes.
        named: whether the request names something that may be absent, or else a workspace.
    """

    method: str
    path: str
    role: Role | None
    ask: Callable[[str, uuid.UUID], dict[str, Any]] = lambda workspace, image: {}
    url: Callable[[str, uuid.UUID], str] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def send(self, client: Any, workspace: str, image: uuid.UUID) -> httpx.Response:
        url = self.url(workspace, image) if self.url else self.path
        return client.request(self.method, url, **self.ask(workspace, image))


def in_query(workspace: str, image: uuid.UUID) -> dict[str, Any]:
    return {"params": {"workspace_id": workspace}}


def in_body(**more: Any) -> Callable[[str, uuid.UUID], dict[str, Any]]:
    return lambda workspace, image: {"json": {"workspace_id": workspace, **more}}


ROUTES = [
    Route("GET", "/healthz", None),
    Route("GET", "/readyz", None),
    Route("GET", "/metrics", "reader"),
    Route("POST", "/api/search", "reader", in_body(text="blue herringbone")),
    Route("GET", "/api/documents", "reader", in_query),
    Route(
        "GET",
        "/api/documents/{workspace_id}/{document_id}",
        "reader",
        url=lambda workspace, image: f"/api/documents/{workspace}/{DOCUMENT}",
    ),
    Route("GET", "/api/coverage", "reader", in_query),
    Route("GET", "/api/images/{image_id}", "reader", in_query, lambda w, image: f"/api/images/{image}"),
    Route(
        "GET",
        "/api/images/{image_id}/thumbnail",
        "reader",
        in_query,
        lambda w, image: f"/api/images/{image}/thumbnail",
    ),
    Route("GET", "/api/failures", "reader", in_query),
    Route("GET", "/api/jobs", "reader", in_query),
    Route("GET", "/api/jobs/{job_id}", "reader", in_query, lambda w, image: f"/api/jobs/{JOB}"),
    Route("GET", "/api/jobs/{job_id}/events", "reader", in_query, lambda w, image: f"/api/jobs/{JOB}/events"),
    Route(
        "POST",
        "/api/internal/save-images-db/{job_id}",
        "writer",
        in_body(document_id="posted", material_images=[{"path": "oak.png"}]),
        lambda workspace, image: "/api/internal/save-images-db/post-1",
    ),
    Route("POST", "/api/internal/queue-understanding-embeddings", "writer", in_body(document_id=DOCUMENT)),
    Route("POST", "/api/internal/regenerate-image-embeddings", "writer", in_body(document_id=DOCUMENT)),
    Route("POST", "/api/failures/retry", "writer", in_body(document_id=DOCUMENT)),
    Route("POST", "/api/admin/understanding-embeddings/backfill", "admin", in_body(dry_run=True)),
]


@pytest.fixture(scope="module")
def shared_site_with_jobs(shared_site: Site) -> Site:
    """Both workspaces have a job of the same id, which has ended."""
    with shared_site.database.transaction() as connection:
        for workspace in WORKSPACES:
            add_job(
                connection,
                workspace,
                JOB,
                kind="save_images",
                mode="inline",
                request_hash="0",
                document_ids=[DOCUMENT],
                stages=["slig"],
                counts={"posted": 4, "lacked": []},
                created_by="",
            )
        connection.exec_driver_sql("UPDATE jobs SET state = 'done', result = '{}'")
    return shared_site


def test_the_table_has_every_route(shared_site: Site) -> None:
    document = shared_site.app.openapi()
    there = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert there == {str(route) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_without_a_good_key_nothing_is_answered(route: Route, shared_site_with_jobs: Site) -> None:
    site = shared_site_with_jobs
    good = site.keys["shop", "admin"]
    bad = [None, "nonsense", site.revoked, good[:-1] + ("0" if good[-1] != "0" else "1"), good.upper(), ""]
    for key in bad:
        answer = route.send(site.client(key), "shop", site.images["shop"][0])
        if route.role is None:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 401, f"{key}: {answer.text}"
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_role_may_do_what_it_may(route: Route, role: Role, shared_site_with_jobs: Site) -> None:
    site = shared_site_with_jobs
    allowed = route.role is None or ROLES.index(role) >= ROLES.index(route.role)
    for workspace in ("shop", "*"):
        answer = route.send(site.as_role(workspace, role), "shop", site.images["shop"][0])
        if allowed:
            assert answer.status_code in (200, 202), answer.text
        else:
            assert answer.status_code == 403, answer.text
            assert answer.json()["detail"].startswith(f"this needs a key of role {route.role}")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.role is not None and route.path != "/metrics"], ids=str
)
def test_what_is_another_workspaces_answers_as_what_is_not_there(
    route: Route, role: Role, shared_site_with_jobs: Site
) -> None:
    site = shared_site_with_jobs
    client = site.as_role("rival", role)
    before = len(site.queue.submitted)
    theirs = route.send(client, "shop", site.images["shop"][0])
    absent = route.send(client, "nobody", uuid.UUID(int=7))
    assert theirs.status_code == absent.status_code
    assert theirs.content == absent.content
    allowed = ROLES.index(role) >= ROLES.index(route.role or "reader")
    assert theirs.status_code == (404 if allowed else 403)
    assert len(site.queue.submitted) == before


@pytest.mark.parametrize(
    "path",
    ["/api/images/{image}", "/api/images/{image}/thumbnail", "/api/jobs/theirs", "/api/jobs/theirs/events"],
)
def test_an_id_of_another_workspace_is_not_found_in_ones_own(path: str, shared_site: Site) -> None:
    with shared_site.database.transaction() as connection:
        add_job(
            connection,
            "shop",
            "theirs",
            kind="retry",
            mode="run",
            request_hash="0",
            document_ids=[DOCUMENT],
            stages=[],
            counts={},
            created_by="",
        )
    client = shared_site.as_role("rival", "admin")
    for params in ({}, {"workspace_id": "rival"}):
        theirs = client.get(path.format(image=shared_site.images["shop"][0]), params=params)
        absent = client.get(path.format(image=uuid.UUID(int=7)).replace("theirs", "nobodys"), params=params)
        assert theirs.status_code == absent.status_code == 404
        assert theirs.content == absent.content


def test_search_by_another_workspaces_image_is_not_found(shared_site: Site) -> None:
    client = shared_site.as_role("rival", "reader")
    theirs = client.post("/api/search", json={"image_id": str(shared_site.images["shop"][0])})
    absent = client.post("/api/search", json={"image_id": str(uuid.UUID(int=7))})
    assert theirs.status_code == 404
    assert theirs.content == absent.content


def test_lists_and_counts_hold_nothing_of_another_workspace(shared_site_with_jobs: Site) -> None:
    site = shared_site_with_jobs
    client = site.as_role("rival", "admin")
    for path in ("/api/documents", "/api/failures", "/api/jobs", "/api/coverage", "/metrics"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert "shop" not in answer.text, path
        assert not any(str(image) in answer.text for image in site.images["shop"]), path
    found = client.post("/api/search", json={"text": "tile", "top_k": 200})
    assert {hit["workspace_id"] for hit in found.json()["hits"]} == {"rival"}
    assert "embedding_assets_runs" not in client.get("/metrics").text
    assert "embedding_assets_runs" in site.as_role("*", "reader").get("/metrics").text


def test_images_of_another_workspace_are_left_alone_by_id(site: Site) -> None:
    vectors = len(site.project.vectors())
    client = site.as_role("rival", "admin")
    ids = [str(image) for image in site.images["shop"]]
    forced = client.post(
        "/api/internal/regenerate-image-embeddings", json={"image_ids": ids, "force_regenerate": True}
    )
    assert forced.status_code == 202
    assert forced.json()["counts"]["images"] == 0
    assert forced.json()["counts"]["images_unknown"] == len(ids)
    retried = client.post("/api/failures/retry", json={"image_ids": ids})
    assert retried.json()["counts"]["failures"] == 0
    assert site.queue.submitted == []
    assert len(site.project.vectors()) == vectors


def test_a_key_of_two_workspaces_has_to_say_which(site: Site) -> None:
    from embedding_assets.store.api_keys import create_key

    with site.database.transaction() as connection:
        key, _ = create_key(connection, "both", "reader", ["shop", "rival"])
    client = site.client(key)
    assert client.get("/api/documents").status_code == 422
    for workspace in WORKSPACES:
        items = client.get("/api/documents", params={"workspace_id": workspace}).json()["items"]
        assert [item["key"] for item in items] == [f"{workspace}/{DOCUMENT}"]
    assert client.get("/api/documents", params={"workspace_id": "third"}).status_code == 404


def test_a_posted_path_of_another_workspaces_folder_is_rejected(site: Site) -> None:
    secret = site.project.landing / "shop" / "secret.png"
    secret.write_bytes(png(999))
    answer = site.as_role("rival", "writer").post(
        "/api/internal/save-images-db/steal",
        params={"mode": "inline"},
        json={
            "document_id": "stolen",
            "material_images": [
                {"path": str(secret)},
                {"path": "../shop/secret.png"},
                {"path": "/etc/passwd"},
            ],
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["images_saved"] == 3
    assert answer.json()["clip_embeddings_generated"] == 0
    assert all("outside the allowed folders" in item["error"] for item in answer.json()["failed_images"])
