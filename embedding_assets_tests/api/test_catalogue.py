"""Search, documents, images, thumbnails, failures, coverage: what they answer."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from embedding_assets.ingest.thumbnail import SIDES, ThumbnailCache, make_thumbnail
from embedding_assets.store.database import Database
from embedding_assets_tests.api.site import Site
from embedding_assets_tests.factories import make_document
from embedding_assets_tests.pipeline.project import png


def every_page(client: Any, path: str, items: Any = lambda page: page, **params: Any) -> list[Any]:
    """All items of a list, read page by page."""
    found: list[Any] = []
    after = None
    while True:
        answer = client.get(path, params={**params, **({"after": after} if after else {})})
        assert answer.status_code == 200, answer.text
        page = items(answer.json())
        assert len(page["items"]) <= params["limit"]
        found += page["items"]
        after = page["next"]
        if after is None:
            return found


# -- search ------------------------------------------------------------------------------------------------------
def test_search_finds_by_text_by_upload_and_by_an_image(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    first, second = shared_site.images["shop"][:2]
    by_upload = client.post("/api/search", files={"image": ("x.png", png(1), "image/png")})
    assert by_upload.json()["hits"][0]["image_id"] == str(second)
    by_id = client.post("/api/search", json={"image_id": str(first), "top_k": 50}).json()
    assert str(first) not in {hit["image_id"] for hit in by_id["hits"]}
    assert len(by_id["hits"]) == 3
    by_text = client.post("/api/search", json={"text": "blue herringbone", "top_k": 2}).json()
    assert len(by_text["hits"]) == 2
    assert by_text["hits"][0]["thumbnail"].startswith("/api/images/")
    assert "store_key" not in by_text["hits"][0]
    both = client.post(
        "/api/search",
        files={"image": ("x.png", png(1))},
        data={"text": "blue", "top_k": "3", "filters": '{"width": {"$gte": 64}}', "weights": '{"visual": 1}'},
    )
    assert both.json()["profile"] == "custom"
    assert both.json()["hits"][0]["image_id"] == str(second)


def test_search_explains_itself_where_asked(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    plain = client.post("/api/search", json={"text": "grey"}).json()
    assert plain["arms"] is None
    assert plain["hits"][0]["scores"] is None
    explained = client.post("/api/search", json={"text": "grey", "explain": True}).json()
    arms = {arm["arm"]: arm for arm in explained["arms"]}
    assert arms["visual"]["weight"] > 0
    assert arms["text"]["left_out"]
    assert explained["timings_ms"]["total"] > 0
    assert set(explained["hits"][0]["scores"]) >= {"visual", "understanding"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"text": ""}, "text"),
        ({"text": "x" * 2_001}, "text"),
        ({"text": "x", "top_k": 0}, "top_k"),
        ({"text": "x", "top_k": 201}, "top_k"),
        ({"text": "x", "profile": "best"}, "profile"),
        ({"text": "x", "weights": {"smell": 1}}, "weights.smell.[key]"),
        ({"text": "x", "weights": {"visual": -1}}, "weights.visual"),
        ({"text": "x", "weights": {"visual": 0}}, None),
        ({"text": "x", "filters": {"a b": 1}}, None),
        ({"text": "x", "filters": {f"k{n}": 1 for n in range(17)}}, "filters"),
        ({"text": "x", "first_page": 5, "last_page": 2}, None),
        ({"text": "x", "first_page": 2**31}, "first_page"),
        ({"text": "x", "image_id": "no"}, "image_id"),
        ({"text": "x", "colour": "red"}, "colour"),
        ({"text": "x", "document_id": "a/b"}, "document_id"),
        ({"text": "x", "workspace_id": "../x"}, "workspace_id"),
        ([1], "body"),
        ("x", "body"),
    ],
)
def test_a_search_that_is_not_as_expected_says_why(body: Any, field: str | None, shared_site: Site) -> None:
    answer = shared_site.as_role("shop", "reader").post("/api/search", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["title"].startswith("Unprocessable")
    assert problem["status"] == 422
    assert len(problem["detail"]) > 10
    if field:
        assert field in [error["field"] for error in problem["errors"]]


def test_uploads_obey_the_limits_of_ingest(database: Database, tmp_path: Path) -> None:
    site = Site(database, tmp_path, max_image_bytes=20_000, max_image_pixels=1_000_000).fill().with_keys()
    site.services.search_engine.queries.encoder = _DecodingEncoder(site.project.encoder)
    client = site.as_role("shop", "reader")

    def search(data: bytes, **form: Any) -> Any:
        return client.post("/api/search", files={"image": ("x", data)}, data=form)

    assert search(bytes(20_001)).status_code == 413
    assert search(b"").status_code == 422
    assert search(b"GIF89a no").status_code == 422
    assert search(png(1)[:100]).status_code == 422
    bomb = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(bomb, "PNG", optimize=True)
    assert len(bomb.getvalue()) < 20_000
    assert search(bomb.getvalue()).status_code == 422
    twice = client.post("/api/search", files=[("image", ("a", png(1))), ("image", ("b", png(1)))])
    assert twice.status_code in (400, 422)
    assert client.post("/api/search", files={"other": ("a", png(1))}).status_code == 422
    assert search(png(1), filters="{").status_code == 422
    assert search(png(1), top_k="many").status_code == 422
    assert search(png(1)).status_code == 200


class _DecodingEncoder:
    """A fake encoder that decodes uploads as the real one does."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.space = encoder.space
        self.encode_images, self.encode_texts = encoder.encode_images, encoder.encode_texts

    def prepare(self, data: bytes) -> Any:
        from embedding_assets.ingest.decode import decode_rgb

        decode_rgb(data, 1_000_000)
        return self.encoder.prepare(data)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_kind_of_body_is_refused(kind: str, shared_site: Site) -> None:
    answer = shared_site.as_role("shop", "reader").post(
        "/api/search", content=b"text=x", headers={"Content-Type": kind}
    )
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["detail"]


# -- documents and images ----------------------------------------------------------------------------------------
def test_documents_are_read_page_by_page_each_exactly_once(site: Site) -> None:
    names = {f"doc-{n:02d}.pdf" for n in range(7)} | {"Z", "a", "_b", "ä".replace("ä", "x")}
    for name in names:
        make_document(site.database, f"shop/{name}", 1)
    client = site.as_role("shop", "reader")
    for limit in (1, 3, 500):
        found = [item["document_id"] for item in every_page(client, "/api/documents", limit=limit)]
        assert sorted(found) == sorted({*names, "tiles"})
    incomplete = every_page(client, "/api/documents", limit=2, incomplete=True)
    assert {item["document_id"] for item in incomplete} == {*names, "tiles"}  # one failed below the minimum
    assert not any(item["complete"] for item in incomplete)


def test_a_document_shows_coverage_vectors_and_its_images_in_order(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    found = client.get("/api/documents/shop/tiles").json()
    assert found["stages"]["slig"] == {
        "images": 4,
        "embedded": 3,
        "skipped": 0,
        "rejected": 1,
        "missing": 0,
        "coverage": 0.75,
        "complete": False,
    }
    assert found["vectors"]["image_slig_embeddings"] == 3
    assert found["vectors"]["image_understanding_embeddings"] == 4
    images = every_page(client, "/api/documents/shop/tiles", lambda page: page["images"], limit=2)
    assert [image["image_id"] for image in images] == [str(i) for i in shared_site.images["shop"]]
    assert [image["failed_stages"] for image in images] == [[], [], ["slig"], []]


def test_an_image_shows_its_analysis_and_texts(shared_site: Site) -> None:
    image = shared_site.images["shop"][0]
    found = shared_site.as_role("shop", "reader").get(f"/api/images/{image}").json()
    assert found["document_id"] == "tiles"
    assert found["analysis"]["material_type"] == "porcelain"
    assert found["analysis_text"].startswith("Material: porcelain.")
    assert found["analyzed_by"] == "fake fake-model"
    assert "image_slig_embeddings" in found["vectors"]


@pytest.mark.parametrize(
    "cursor", ["x", "!!", "W10", "eyJhIjoxfQ", "WzFd", "WyJhIiwiYiJd", "IlwidDgwMCI", "W1wiXHVkODAwXCJd"]
)
def test_a_cursor_that_is_none_is_refused(cursor: str, shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    for path in ("/api/documents", "/api/failures", "/api/jobs"):
        answer = client.get(path, params={"after": cursor})
        assert answer.status_code in (200, 422), answer.text  # "WyJhIiwiYiJd" is a place among the jobs
    assert client.get("/api/failures", params={"after": cursor}).status_code == 422


# -- thumbnails --------------------------------------------------------------------------------------------------
def test_a_thumbnail_is_a_small_jpeg_that_need_not_be_sent_twice(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    path = f"/api/images/{shared_site.images['shop'][0]}/thumbnail"
    answer = client.get(path, params={"side": 40})
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 64)
    tag = answer.headers["etag"]
    again = client.get(path, params={"side": 64}, headers={"If-None-Match": f'"x", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(path, params={"side": 65}, headers={"If-None-Match": tag})
    assert other.status_code == 200  # another size is another picture
    with Image.open(io.BytesIO(other.content)) as picture:
        assert picture.size == (64, 64)  # never larger than the image
    assert "private" in answer.headers["cache-control"]
    for side in (0, -1, 1025, "big"):
        assert client.get(path, params={"side": side}).status_code == 422


def test_a_browsers_copy_is_shown_only_to_who_may_see_it(shared_site: Site) -> None:
    path = f"/api/images/{shared_site.images['shop'][0]}/thumbnail"
    tag = shared_site.as_role("shop", "reader").get(path).headers["etag"]
    headers = {"If-None-Match": tag}
    assert shared_site.as_role("rival", "admin").get(path, headers=headers).status_code == 404
    assert shared_site.client().get(path, headers=headers).status_code == 401


def test_an_image_without_a_picture_has_no_thumbnail(site: Site) -> None:
    image = site.images["shop"][0]
    client = site.as_role("shop", "reader")
    with site.database.transaction() as connection:
        key = connection.execute(
            text("SELECT store_key FROM document_images WHERE id = :id"), {"id": image}
        ).scalar_one()
    (Path(str(site.project.image_store.root)) / key).unlink()
    missing = client.get(f"/api/images/{image}/thumbnail")
    assert missing.status_code == 404
    assert "ingest its document again" in missing.json()["hint"]
    assert str(site.project.folder) not in missing.text
    with site.database.transaction() as connection:
        connection.execute(
            text("UPDATE document_images SET store_key = NULL, status = 'rejected', status_reason = 'broken'")
        )
    assert "broken" in client.get(f"/api/images/{image}/thumbnail").json()["detail"]


def test_thumbnails_are_kept_up_to_a_size() -> None:
    reads: list[int] = []

    def read(seed: int) -> bytes:
        reads.append(seed)
        return png(seed, 256)

    size = len(make_thumbnail(png(0, 256), 128, 10**6))
    cache = ThumbnailCache(max_bytes=5 * size)
    for seed in range(20):
        cache.get(str(seed), 128, 10**6, lambda seed=seed: read(seed))  # type: ignore[misc]
    assert cache._bytes <= 5 * size
    cache.get("19", 128, 10**6, lambda: read(19))
    cache.get("0", 128, 10**6, lambda: read(0))
    assert reads == [*range(20), 0]


@pytest.mark.parametrize("side", SIDES)
def test_a_thumbnail_keeps_the_shape(side: int) -> None:
    file = io.BytesIO()
    Image.new("CMYK", (1200, 300), (0, 128, 255, 0)).save(file, "JPEG")
    with Image.open(io.BytesIO(make_thumbnail(file.getvalue(), side, 10**6))) as picture:
        assert (picture.mode, picture.size) == ("RGB", (side, side // 4))


# -- failures and coverage ---------------------------------------------------------------------------------------
def test_failures_are_read_page_by_page(site: Site) -> None:
    from embedding_assets.errors import ErrorClass
    from embedding_assets.keys import DocumentKey
    from embedding_assets.store.failures import Failure, record_failures

    key = DocumentKey("shop", "tiles")
    with site.database.transaction() as connection:
        for image in [None, *site.images["shop"]]:
            for stage in ("ingest", "text") if image is None else ("text", "vision"):
                record_failures(
                    connection, [Failure(key, image, stage, ErrorClass.TRANSIENT, "E", f"{stage} {image}", 1)]
                )
    client = site.as_role("shop", "reader")
    for limit in (1, 2, 4, 500):
        found = every_page(client, "/api/failures", limit=limit)
        places = [(item["image_id"], item["stage"]) for item in found]
        assert len(places) == len(set(places)) == 11
    only = every_page(client, "/api/failures", limit=3, stage="vision", error_class="transient")
    assert [item["index"] for item in only] == [0, 1, 2, 3]
    assert every_page(client, "/api/failures", limit=3, document_id="other") == []
    permanent = every_page(client, "/api/failures", limit=3, error_class="permanent")
    assert [item["message"] for item in permanent] == ["no such colour space"]


def test_coverage_adds_up(shared_site: Site) -> None:
    found = shared_site.as_role("shop", "reader").get("/api/coverage").json()
    slig = found["stages"]["slig"]
    assert slig["images"] == slig["embedded"] + slig["skipped"] + slig["rejected"] + slig["missing"] == 4
    assert slig["failures"] == {"permanent": 1}
    assert found["vectors"]["image_slig_embeddings"] == 3
    assert found["failures"]["slig"] == {"permanent": 1}


def test_metrics_count_images_failures_and_searches(shared_site: Site) -> None:
    client = shared_site.as_role("shop", "reader")
    client.post("/api/search", json={"text": "grey"})
    client.get(f"/api/images/{uuid.uuid4()}")
    lines = client.get("/metrics").text.splitlines()
    assert 'embedding_assets_images{stage="slig",state="embedded",workspace="shop"} 3.0' in lines
    assert 'embedding_assets_failures{error_class="permanent",stage="slig",workspace="shop"} 1.0' in lines
    assert any(
        line.startswith('embedding_assets_search_seconds_count{stage="candidates"}')
        or line.startswith('embedding_assets_search_seconds_count{stage="scores"}')
        for line in lines
    )
    assert any(line.startswith('embedding_assets_search_arm_seconds_count{arm="visual"}') for line in lines)
    assert any(
        line.startswith(
            'embedding_assets_http_requests_total{method="GET",route="/api/images/{image_id}",status="404"}'
        )
        for line in lines
    )


def test_the_openapi_document_has_an_example_that_works_for_each_body(shared_site: Site) -> None:
    document = shared_site.app.openapi()
    client = shared_site.as_role("shop", "admin")
    make_document(shared_site.database, "shop/natural-stone.pdf", 1)
    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                body = json.loads(json.dumps(example["value"]).replace('"demo"', '"shop"'))
                answer = client.request(
                    method.upper(), path.replace("{job_id}", f"example-{name}"), json=body
                )
                assert answer.status_code in (200, 202), f"{method} {path} {name}: {answer.text}"
                asked += 1
    assert asked >= 8
