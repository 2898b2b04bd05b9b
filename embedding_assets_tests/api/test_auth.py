"""Keys, the open mode on loopback, the cookie of the login form, the limit of requests."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from embedding_assets.api.auth import COOKIE, check_may_listen
from embedding_assets.api.problems import ProblemError
from embedding_assets.api.rate_limit import RateLimiter
from embedding_assets.errors import PermanentError, SettingsError
from embedding_assets.keys import InvalidDocumentKey
from embedding_assets.settings import load_settings
from embedding_assets.store import api_keys
from embedding_assets.store.api_keys import create_key, find_key, forget_revoked_keys, list_keys, revoke_key
from embedding_assets.store.database import Database
from embedding_assets_tests.api.site import LOOPBACK, PEER, Site
from embedding_assets_tests.pipeline.project import png


# -- keys --------------------------------------------------------------------------------------------------------
def test_a_key_is_stored_as_a_hash_only(database: Database) -> None:
    with database.transaction() as connection:
        key, row = create_key(connection, "shop's page", "reader", ["shop", "shop"])
        stored = connection.execute(
            text("SELECT to_jsonb(k)::text || k.key_hash::text FROM api_keys k")
        ).scalar()
    secret = key.split("_")[2]
    assert len(secret) == 64
    assert secret not in stored
    assert hashlib.sha256(secret.encode()).hexdigest() in stored
    assert row.workspaces == ("shop",)
    with database.transaction() as connection:
        assert find_key(connection, key) == row
        assert secret not in repr(list_keys(connection))


def test_hashes_are_compared_in_constant_time_for_unknown_ids_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(api_keys.hmac, "compare_digest", compare, raising=False)
    with database.transaction() as connection:
        key, _ = create_key(connection, "", "reader", ["shop"])
        assert find_key(connection, f"ea_{'0' * 12}_{'0' * 64}") is None
        assert find_key(connection, key[:-64] + "0" * 64) is None
    assert compared == [(32, 32), (32, 32)]


def test_a_revoked_key_is_refused_from_the_next_request_on(site: Site) -> None:
    client = site.as_role("shop", "reader")
    assert client.get("/api/documents").status_code == 200
    with site.database.transaction() as connection:
        assert revoke_key(connection, site.keys["shop", "reader"].split("_")[1]) is not None
    assert client.get("/api/documents").status_code == 401


def test_forgetting_removes_revoked_keys_only(database: Database) -> None:
    with database.transaction() as connection:
        _, kept = create_key(connection, "", "reader", ["shop"])
        _, gone = create_key(connection, "", "reader", ["shop"])
        revoke_key(connection, gone.key_id)
        assert forget_revoked_keys(connection) == 1
        assert [key.key_id for key in list_keys(connection)] == [kept.key_id]
        assert revoke_key(connection, "unknown") is None


@pytest.mark.parametrize(
    ("role", "workspaces", "error"),
    [
        ("owner", ["shop"], "there is no role 'owner'"),
        ("reader", [], "a key needs a workspace"),
        ("reader", ["a/b"], "workspace_id 'a/b' is not valid"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    role: Any, workspaces: list[str], error: str, database: Database
) -> None:
    with (
        pytest.raises((PermanentError, InvalidDocumentKey), match=error),
        database.transaction() as connection,
    ):
        create_key(connection, "", role, workspaces)


# -- without keys ------------------------------------------------------------------------------------------------
def test_on_loopback_without_keys_all_is_open(open_site: Site) -> None:
    client = open_site.client()
    answer = client.get("/api/documents", params={"workspace_id": "shop"})
    assert [item["key"] for item in answer.json()["items"]] == ["shop/tiles"]
    assert client.get("/api/documents").json()["items"] == []  # of the workspace "default"
    assert client.post(
        "/api/admin/understanding-embeddings/backfill", json={"workspace_id": "shop", "dry_run": True}
    ).is_success


def test_a_cookie_of_a_key_that_is_gone_does_not_lock_anybody_out_of_an_open_server(open_site: Site) -> None:
    client = open_site.client()
    client.cookies.set(COOKIE, f"ea_{'0' * 12}_{'0' * 64}")
    assert client.get("/api/documents").status_code == 200


def test_the_first_key_ends_the_open_mode_at_once_and_for_good(open_site: Site) -> None:
    client = open_site.client()
    assert client.get("/api/documents").status_code == 200
    with open_site.database.transaction() as connection:
        _, key = create_key(connection, "", "reader", ["shop"])
    assert client.get("/api/documents").status_code == 401
    with open_site.database.transaction() as connection:
        revoke_key(connection, key.key_id)
    assert client.get("/api/documents").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8000"}, 403),
        ({"X-Forwarded-For": "10.0.0.7"}, 403),
        ({"Forwarded": "for=10.0.0.7"}, 403),
    ],
)
def test_open_mode_answers_this_machine_only(headers: dict[str, str], status: int, open_site: Site) -> None:
    assert open_site.client(**headers).get("/api/documents").status_code == status


@pytest.mark.parametrize(
    ("base_url", "peer"), [("http://10.0.0.7:8000", PEER), (LOOPBACK, ("10.0.0.9", 40_000))]
)
def test_open_mode_needs_the_connection_to_be_local(
    base_url: str, peer: tuple[str, int], open_site: Site
) -> None:
    client = TestClient(open_site.app, base_url=base_url, client=peer, headers={"Host": "127.0.0.1:8000"})
    assert client.get("/api/documents").status_code == 401


def test_open_mode_needs_a_loopback_setting(database: Database, tmp_path: Any) -> None:
    site = Site(database, tmp_path, api_host="0.0.0.0")
    assert site.client().get("/api/documents").status_code == 401


@pytest.mark.parametrize("method", ["post", "get"])
def test_another_site_can_not_have_a_browser_change_anything_in_open_mode(
    method: str, open_site: Site
) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ):
        client = open_site.client(**headers)
        if method == "post":
            assert client.post("/api/failures/retry", json={}).status_code == 403
        else:
            assert client.get("/api/failures").status_code == 200
    assert (
        open_site.client(**{"Sec-Fetch-Site": "same-origin"}).post("/api/failures/retry", json={}).is_success
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "catalogue.example"])
def test_it_refuses_to_start_where_others_can_reach_it_without_keys(host: str, database: Database) -> None:
    settings = load_settings(api_host=host)
    with pytest.raises(SettingsError, match=host) as refused:
        check_may_listen(settings, database)
    assert "keys create" in str(refused.value.hint)
    with database.transaction() as connection:
        create_key(connection, "", "reader", ["shop"])
    assert check_may_listen(settings, database) is False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_it_starts_open_on_loopback(host: str, database: Database) -> None:
    assert check_may_listen(load_settings(api_host=host), database) is True


# -- browsers ----------------------------------------------------------------------------------------------------
def test_the_login_form_sets_a_cookie_that_scripts_and_other_sites_can_not_use(site: Site) -> None:
    client = site.client(**{"Sec-Fetch-Site": "same-origin"})
    answer = client.post(
        "/login",
        data={"key": site.keys["shop", "writer"], "next": "/documents?x=1"},
        follow_redirects=False,
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/documents?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.get("/api/documents").json()["items"][0]["key"] == "shop/tiles"
    assert client.post("/api/failures/retry", json={}).status_code == 202
    client.post("/logout", follow_redirects=False)
    assert client.get("/api/documents").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_cookie_changes_nothing_for_another_site(headers: dict[str, str], site: Site) -> None:
    client = site.client(**headers)
    client.cookies.set(COOKIE, site.keys["shop", "admin"])
    assert client.post("/api/failures/retry", json={}).status_code == 403
    assert client.get("/api/failures").status_code == 200


def test_an_origin_of_the_server_itself_is_enough(site: Site) -> None:
    client = site.client(Origin=LOOPBACK)
    client.cookies.set(COOKIE, site.keys["shop", "writer"])
    assert client.post("/api/failures/retry", json={}).status_code == 202


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nX: y", "javascript:x"]
)
def test_logging_in_leads_nowhere_else(target: str, site: Site) -> None:
    client = site.client(**{"Sec-Fetch-Site": "same-origin"})
    answer = client.post(
        "/login", data={"key": site.keys["shop", "reader"], "next": target}, follow_redirects=False
    )
    assert answer.headers["location"] == "/"


def test_a_bad_key_in_the_form_leads_back_to_it(site: Site) -> None:
    client = site.client(**{"Sec-Fetch-Site": "same-origin"})
    answer = client.post("/login", data={"key": "ea_nonsense"}, follow_redirects=False)
    assert answer.headers["location"] == "/login?failed=1"
    assert "set-cookie" not in answer.headers
    foreign = site.client(Origin="https://evil.example")
    assert foreign.post("/login", data={"key": site.keys["shop", "reader"]}).status_code == 403


# -- how often ---------------------------------------------------------------------------------------------------
def test_each_key_has_its_own_limit(database: Database, tmp_path: Any) -> None:
    site = Site(database, tmp_path, api_requests_per_minute=12).with_keys()
    client = site.as_role("shop", "reader")
    answers = [client.get("/api/documents") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 5
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert site.as_role("rival", "reader").get("/api/documents").status_code == 200


def test_guessing_keys_is_limited_by_address(database: Database, tmp_path: Any) -> None:
    site = Site(database, tmp_path, api_requests_per_minute=12).with_keys()
    codes = [site.client(f"ea_{n:012x}_{'0' * 64}").get("/api/documents").status_code for n in range(5)]
    assert codes == [401, 401, 401, 429, 429]
    logins = site.client(**{"Sec-Fetch-Site": "same-origin"}).post("/login", data={"key": "guess"})
    assert logins.status_code == 429


def test_a_bucket_fills_up_again_and_is_forgotten() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    for _ in range(15):
        limiter.count("a")
    with pytest.raises(ProblemError) as refused:
        limiter.count("a")
    assert refused.value.problem.headers["Retry-After"] == "1"
    now = 1.0
    limiter.count("a")
    with pytest.raises(ProblemError):
        limiter.count("a")
    now = 100.0
    for n in range(20_000):
        limiter.count(f"from {n}")
        now += 0.001
    assert len(limiter._buckets) <= 16_000


# -- what is told ------------------------------------------------------------------------------------------------
def test_logs_and_answers_hold_no_key_and_no_image(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = site.keys["shop", "writer"]
    picture = png(7)
    client = site.client(key)
    broken = f'{{"text": "{key}"'.encode()
    answers = [
        client.post("/api/search", files={"image": ("x.png", picture)}),
        client.post("/api/search", files={"image": ("x.png", picture[:50])}),
        client.post("/api/search", json={"text": 5, "image_id": key}),
        client.post("/api/search", content=broken, headers={"Content-Type": "application/json"}),
        client.post("/api/failures/retry", json={"stage": key, "image_ids": [key]}),
        client.get("/api/nothing", params={"key": key}),
        client.get("/api/documents", params={"workspace_id": key + "x", "after": key}),
        site.client(key + "x").get("/api/documents"),
        site.client(**{"Sec-Fetch-Site": "same-origin"}).post("/login", data={"key": key + "x"}),
    ]
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]  # the client's own
    assert logged
    secret = key.split("_")[2]
    for said in [*logged, *(answer.text for answer in answers)]:
        assert secret not in said
        assert "IDAT" not in said
        assert "IHDR" not in said
