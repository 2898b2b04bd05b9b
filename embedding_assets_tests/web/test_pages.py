"""Who sees which page, and what of it."""

from __future__ import annotations

import re
import uuid

import pytest
from sqlalchemy import text

from embedding_assets.api.auth import COOKIE
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import INGEST_ASSET
from embedding_assets.store.api_keys import create_key
from embedding_assets_tests.api.site import DOCUMENT, LOOPBACK, Site
from embedding_assets_tests.pipeline.project import png

PAGES = (
    "/",
    "/?q=matte",
    "/?image_id={image}",
    f"/?q=matte&document_id={DOCUMENT}",
    "/images/{image}",
    "/coverage",
    f"/documents/{DOCUMENT}",
    f"/documents/{DOCUMENT}/progress",
)


def address(page: str, site: Site, workspace: str) -> str:
    return page.format(image=site.images[workspace][0])


@pytest.mark.parametrize("page", PAGES)
def test_a_key_sees_the_pages_of_its_workspace(shared_site: Site, page: str) -> None:
    answer = shared_site.as_role("shop", "reader").get(address(page, shared_site, "shop"))
    assert answer.status_code == 200
    assert "rival" not in answer.text
    for image in shared_site.images["rival"]:
        assert str(image) not in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_a_key_finds_nothing_of_another_workspace(shared_site: Site, page: str) -> None:
    client = shared_site.as_role("shop", "reader")
    theirs = address(page, shared_site, "rival")
    joined = f"{theirs}{'&' if '?' in theirs else '?'}workspace_id=rival"
    assert client.get(joined).status_code == 404
    if "{image}" in page:
        absent = page.format(image=uuid.uuid4())
        assert client.get(theirs).status_code == client.get(absent).status_code == 404


@pytest.mark.parametrize("page", PAGES)
def test_without_a_key_a_browser_is_asked_for_one_and_comes_back(shared_site: Site, page: str) -> None:
    wanted = address(page, shared_site, "shop")
    client = shared_site.client(accept="text/html")
    answer = client.get(wanted, follow_redirects=False)
    assert answer.status_code == 303
    form = client.get(answer.headers["location"]).text
    assert f'name="next" value="{wanted.replace("&", "&amp;")}"' in form


def test_a_browser_that_logged_in_sees_its_pages_and_can_log_out(shared_site: Site) -> None:
    client = shared_site.client(accept="text/html", origin=LOOPBACK)
    client.post("/login", data={"key": shared_site.keys["shop", "reader"], "next": "/coverage"})
    page = client.get("/coverage").text
    assert "Log out" in page
    client.post("/logout")
    assert client.get("/coverage", follow_redirects=False).status_code == 303


def test_a_key_of_some_workspaces_chooses_among_them(site: Site) -> None:
    with site.database.transaction() as connection:
        secret, _ = create_key(connection, "two", "reader", ["shop", "third"])
    page = site.client(secret).get("/coverage").text
    assert re.findall(r"<option[^>]*>([^<]*)</option>", page) == ["shop", "third"]
    assert "workspace_id=shop" in page


# -- retrying ------------------------------------------------------------------------------------------------
def test_only_a_writer_may_retry_and_a_reader_gets_no_button(site: Site) -> None:
    path = f"/documents/{DOCUMENT}"
    failed = {"image_id": str(site.images["shop"][2])}
    assert ">Retry<" not in site.as_role("shop", "reader").get(path).text
    assert site.as_role("shop", "reader").post(f"{path}/retry", data=failed).status_code == 403
    assert site.queue.submitted == []
    assert ">Retry<" in site.as_role("shop", "writer").get(path).text
    answer = site.as_role("shop", "writer").post(f"{path}/retry", data=failed, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{path}?notice=retrying")
    ((targets, _, _),) = site.queue.submitted
    assert targets["slig_embeddings"] == [DocumentKey("shop", DOCUMENT)]
    assert INGEST_ASSET not in targets


def test_a_retry_never_touches_another_workspace(site: Site) -> None:
    client = site.as_role("shop", "writer")
    theirs = {"image_id": str(site.images["rival"][2])}
    client.post(f"/documents/{DOCUMENT}/retry", data=theirs)
    refused = client.post(f"/documents/{DOCUMENT}/retry?workspace_id=rival", data=theirs)
    assert refused.status_code == 404
    assert site.queue.submitted == []
    count = (
        "SELECT count(*) FROM embedding_failures WHERE workspace_id = 'rival' AND error_class = 'permanent'"
    )
    assert site.count(count) > 0


def test_a_retry_that_nobody_starts_says_what_to_do(site: Site) -> None:
    site.queue.served = False
    page = site.as_role("shop", "writer").post(f"/documents/{DOCUMENT}/retry")
    assert page.status_code == 200
    assert "embedding-assets up" in page.text


def test_another_site_can_not_have_a_browser_retry(site: Site) -> None:
    client = site.client(accept="text/html", **{"sec-fetch-site": "cross-site"})
    client.cookies.set(COOKIE, site.keys["shop", "admin"])
    assert client.post(f"/documents/{DOCUMENT}/retry").status_code == 403
    assert site.queue.submitted == []


# -- what pages hold -----------------------------------------------------------------------------------------
def test_text_from_documents_is_never_markup(site: Site) -> None:
    evil = "<script>alert(1)</script>\"'"
    image = site.images["shop"][0]
    with site.database.transaction() as connection:
        connection.execute(text("UPDATE documents SET title = :evil"), {"evil": evil})
        connection.execute(
            text(
                "UPDATE document_images SET caption = :evil, nearby_text = :evil, reference = :evil, "
                "vision_analysis = jsonb_build_object('description', CAST(:evil AS text), "
                "'primary_color_hex', CAST(:evil AS text))"
            ),
            {"evil": evil},
        )
        connection.execute(text("UPDATE embedding_failures SET message = :evil"), {"evil": evil})
    client = site.as_role("shop", "writer")
    for page in (
        *PAGES[:7],
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/login?next=%22%3E%3Cscript%3Ealert(1)",
    ):
        answer = client.get(page.format(image=image))
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text, page
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_pages_hold_nothing_that_the_content_security_policy_forbids(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "writer")
    for page in (*PAGES[:7], "/login"):
        html = client.get(address(page, shared_site, "shop")).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html), page
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html)), page
        assert not re.findall(r'(?:src|href)="https?://(?!127\.0\.0\.1)', html), page


def test_the_form_by_itself_leads_to_the_address_of_its_search(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    answer = client.post("/", data={"q": "matte grey", "profile": "auto"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=matte+grey")


def test_an_upload_is_searched_by_at_once(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    answer = client.post("/", data={"q": ""}, files={"image": ("one.png", png(0), "image/png")})
    assert answer.status_code == 200
    best = re.search(r'data-image="([^"]*)"', answer.text)
    assert best is not None
    assert best[1] == str(shared_site.images["shop"][0])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("q=x&profile=nothing", "there is no profile"),
        ("q=" + "x" * 2001, "2000 is the limit"),
        ("q=x&show=100000", "less than or equal to 200"),
        ("image_id=not-an-id", "image_id"),
    ],
)
def test_a_search_that_can_not_be_answered_says_why(shared_site: Site, query: str, words: str) -> None:
    answer = shared_site.client(shared_site.keys["shop", "reader"], accept="text/html").get(f"/?{query}")
    assert answer.status_code == 422
    assert words in answer.text.lower()
    assert answer.headers["content-type"].startswith("text/html")
