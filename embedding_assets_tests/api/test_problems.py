"""Errors are problem details; requests have limits of size and time; every answer has its security headers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from embedding_assets.api.headers import HEADERS
from embedding_assets.api.problems import MEDIA_TYPE
from embedding_assets.errors import InfrastructureError, StoreUnavailable, ThrottledError
from embedding_assets.store.database import Database
from embedding_assets_tests.api.site import Site


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    return problem


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("DELETE", "/api/documents", 405),
        ("GET", "/api/images/no-uuid", 422),
        ("GET", "/api/documents/a/b/c", 404),
        ("GET", "/api/documents?limit=0", 422),
        ("GET", "/api/documents?limit=501", 422),
        ("GET", "/api/documents?workspace_id=a%00b", 422),
        ("GET", "/api/coverage?days=x", 422),
        ("GET", "/api/documents/../shop", 404),
        ("GET", "/api/failures?stage=none", 422),
    ],
)
def test_every_error_is_a_problem(method: str, path: str, status: int, shared_site: Site) -> None:
    check_problem(shared_site.as_role("shop", "admin").request(method, path), status)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 5_000, b'{"text": "\\ud800"}', b"null", b""])
@pytest.mark.parametrize("path", ["/api/search", "/api/failures/retry"])
def test_a_body_that_is_no_json_is_a_problem(path: str, content: bytes, shared_site: Site) -> None:
    answer = shared_site.as_role("shop", "admin").post(
        path, content=content, headers={"Content-Type": "application/json"}
    )
    check_problem(answer, answer.status_code)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (RuntimeError("a secret detail"), 500, None),
        (StoreUnavailable("the database is gone"), 503, "5"),
        (InfrastructureError("the device is gone"), 503, "5"),
        (ThrottledError("slow down", retry_after=7.2), 503, "7"),
    ],
)
def test_a_fault_of_the_server_says_no_more_than_it_should(
    error: Exception, status: int, retry_after: str | None, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: Any) -> Any:
        raise error

    monkeypatch.setattr(site.services.search_engine, "search", fail)
    answer = site.as_role("shop", "reader").post("/api/search", json={"text": "x"})
    check_problem(answer, status)
    assert answer.headers.get("Retry-After") == retry_after
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_good_answers_have_the_headers_too(shared_site: Site) -> None:
    for path in ("/healthz", "/api/documents", f"/api/images/{shared_site.images['shop'][0]}/thumbnail"):
        answer = shared_site.as_role("shop", "reader").get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_server_without_its_database_lives_and_is_not_ready(tmp_path: Path) -> None:
    gone = Database("postgresql://nobody@127.0.0.1:1/nothing")
    site = Site(gone, tmp_path)
    client = site.client()
    assert client.get("/healthz").status_code == 200
    problem = check_problem(client.get("/readyz"), 503)
    assert "127.0.0.1" not in str(problem)
    check_problem(client.get("/api/documents"), 503)


@pytest.mark.parametrize("declared", [True, False])
def test_a_request_that_is_too_large_is_refused(declared: bool, database: Database, tmp_path: Path) -> None:
    site = Site(database, tmp_path, api_max_body_mb=1).with_keys()
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(64):
            sent += 2**16
            yield b" " * 2**16

    body: Any = b" " * (2**20 + 1) if declared else chunks()
    answer = site.as_role("shop", "reader").post(
        "/api/search", content=body, headers={"Content-Type": "application/json"}
    )
    problem = check_problem(answer, 413)
    assert "1048576 bytes" in problem["detail"]


def test_a_length_that_is_a_lie_does_not_help(database: Database, tmp_path: Path) -> None:
    site = Site(database, tmp_path).with_keys()
    for length in ("-1", "x", "9" * 30):
        answer = site.as_role("shop", "reader").post(
            "/api/search", content=b"{}", headers={"Content-Length": length}
        )
        check_problem(answer, 413)


def test_a_request_that_takes_too_long_is_answered_all_the_same(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(database, tmp_path, api_timeout_s=0.5).fill().with_keys()
    ended = threading.Event()
    started = threading.Event()

    def slow(request: Any) -> Any:
        started.set()
        ended.wait(60)
        raise RuntimeError("late")

    monkeypatch.setattr(site.services.search_engine, "search", slow)
    with site.as_role("shop", "reader") as client:  # one event loop for both
        answer = client.post("/api/search", json={"text": "x"})
        problem = check_problem(answer, 503)
        assert "0.5 s" in problem["detail"]
        assert started.is_set()
        assert client.get("/api/documents").status_code == 200
        ended.set()


def test_a_page_may_show_a_problem_in_its_own_way(shared_site: Site) -> None:
    from starlette.responses import PlainTextResponse

    before = getattr(shared_site.app.state, "error_page", None)
    shared_site.app.state.error_page = lambda request, problem: PlainTextResponse(
        f"page: {problem.title}", status_code=problem.status
    )
    try:
        client = shared_site.client(Accept="text/html,*/*")
        assert client.get("/nothing").text == "page: Not Found"
        check_problem(client.get("/api/nothing"), 404)
        check_problem(shared_site.client().get("/nothing"), 404)
    finally:
        shared_site.app.state.error_page = before
