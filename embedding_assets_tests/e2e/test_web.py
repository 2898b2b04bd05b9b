"""The pages in a real browser, on a catalogue that the real pipeline embedded."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from embedding_assets.settings import PREFIX, load_settings
from embedding_assets.store.api_keys import create_key
from embedding_assets.store.database import Database
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.e2e.browser import TIMEOUT_MS, Watched, chromium, file_payload, running_browser
from embedding_assets_tests.e2e.web_site import (
    ARRIVALS,
    BROKEN,
    CATALOGUE,
    SHOWROOM,
    TILES,
    QueueHere,
    Site,
    embed,
    fill,
    serving,
    swatch,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None, reason="needs Chromium in the PATH, such as by apt-get install chromium"
    ),
]

Open = Callable[..., Page]
expect.set_options(timeout=TIMEOUT_MS)


def new_site(postgres: Server, folder: Path, *, demo: bool) -> Site:
    settings = load_settings(
        database_url=postgres.make_database(postgres.template),
        var_dir=folder,
        demo=demo,
        vision_ocr=False,  # reading text is what takes longest, and nothing here looks at it
        api_requests_per_minute=0,
    )
    assert settings.database_url is not None
    database = Database(settings.database_url.get_secret_value())
    return Site(settings, database, QueueHere(settings, database))


@pytest.fixture(scope="module")
def clean_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def site(postgres: Server, clean_environment: None) -> Iterator[Site]:
    """The catalogue, served openly."""
    folder = Path(tempfile.mkdtemp(prefix="ea-web-"))
    made = new_site(postgres, folder, demo=True)
    fill(made)
    with serving(made):
        yield made
    made.database.dispose()
    shutil.rmtree(folder)


@pytest.fixture
def locked_site(postgres: Server, clean_environment: None, tmp_path: Path) -> Iterator[Site]:
    """Nothing at all, served to holders of a key."""
    made = new_site(postgres, tmp_path, demo=False)
    with serving(made):
        yield made
    made.database.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page 1200 wide; afterwards, no console error that the test did not provoke."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, reduced_motion="reduce")
    page = Watched(context)
    yield page
    context.close()
    assert page.unexpected() == []


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def hits(page: Page) -> list[str]:
    """Names of the hits, best first."""
    expect(page.locator("#hits .hit").first).to_be_visible()
    return page.locator("#hits .hit-title").all_inner_texts()


def search(page: Page, site: Site, text: str) -> list[str]:
    page.goto(site.address)
    page.get_by_label("What to look for").fill(text)
    page.keyboard.press("Enter")
    return hits(page)


# -- search --------------------------------------------------------------------------------------------------
def test_a_text_finds_what_it_describes_and_says_why(page: Page, site: Site) -> None:
    found = search(page, site, "blue herringbone")
    assert found[0] in {TILES[0].name, "0001.jpg"}
    assert "q=blue+herringbone" in page.url
    best = page.locator("#hits .hit").first
    expect(best.locator(".arms dt")).not_to_have_count(0)
    expect(best.locator(".arms .most")).to_have_count(1)
    expect(page.locator(".answer-head")).to_contain_text("the text names a colour or finish: blue")
    page.locator("details.weights summary").click()
    expect(page.locator("details.weights")).to_contain_text("the text says nothing of material")


def test_a_profile_chip_searches_again_by_it(page: Page, site: Site) -> None:
    search(page, site, "blue herringbone")
    page.get_by_role("radio", name="Material").check(force=True)
    expect(page.locator(".why")).to_contain_text("Material: as you chose")
    assert "profile=material_search" in page.url
    page.go_back()
    expect(page.get_by_role("radio", name="Auto")).to_be_checked()


def test_an_uploaded_image_finds_its_like(page: Page, site: Site) -> None:
    page.goto(site.address)
    picture = swatch(TILES[4], 99, "PNG")
    page.locator("#image").set_input_files([file_payload("red.png", "image/png", picture)])  # type: ignore[list-item]
    assert hits(page)[0] in {TILES[4].name, "0002.png"}
    expect(page.locator("#by-image")).to_contain_text("red.png")
    page.get_by_role("button", name="Search without this image").click()
    expect(page.locator("#by-image")).to_have_count(0)


def test_a_dropped_image_and_a_pasted_one_are_searched_by(page: Page, site: Site) -> None:
    page.goto(site.address)
    for event in ("drop", "paste"):
        page.evaluate(
            """async ([event, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], `${event}.png`, {type: "image/png"}));
                document.body.dispatchEvent(event === "drop"
                  ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
                  : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
            }""",
            [event, list(swatch(TILES[10], 99, "PNG"))],
        )
        expect(page.locator("#by-image")).to_contain_text(f"{event}.png")
        assert hits(page)[0] == TILES[10].name


def test_a_file_that_is_no_image_is_refused_with_a_reason(watched: Watched, site: Site) -> None:
    watched.expected.append("422")
    page = watched.page
    page.goto(site.address)
    page.locator("#image").set_input_files([file_payload("notes.png", "image/png", b"no picture at all")])  # type: ignore[list-item]
    expect(page.get_by_role("alert")).to_contain_text("Not an image of a known format")


def test_more_like_this_and_more_of_one_aspect(page: Page, site: Site) -> None:
    search(page, site, "blue herringbone")
    page.locator("#hits .hit", has_text=TILES[0].name).first.locator(".thumb").click()
    expect(page.get_by_role("heading", name=TILES[0].name, level=1)).to_be_visible()
    expect(page.locator("#analysis")).to_contain_text("herringbone")
    expect(page.locator(".flags .has")).to_have_count(7)
    page.get_by_role("link", name="More like this").click()
    assert "0001.jpg" in hits(page)[:2]
    page.get_by_role("link", name="Its colour").click()
    expect(page.locator(".why")).to_contain_text("By its colour alone")
    blue = {spec.name for spec in TILES if spec.colour == "blue"} | {"0001.jpg"}
    assert set(hits(page)[:2]) <= blue


def test_a_document_can_be_searched_alone(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/documents/{SHOWROOM.document_id}")
    page.get_by_role("link", name="Search in it").click()
    page.get_by_label("What to look for").fill("red hexagon")
    page.keyboard.press("Enter")
    assert hits(page)[0] == "0002.png"
    assert set(page.locator(".hit-place").all_inner_texts()) == {SHOWROOM.document_id}
    page.get_by_role("link", name="Search all documents").click()
    expect(page.locator("#hits")).to_contain_text("Floors of the North")


def test_more_adds_hits_and_moves_the_focus_to_the_first_new_one(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/?q=floor&show=5")
    assert len(hits(page)) == 5
    page.get_by_role("link", name="More", exact=True).click()
    expect(page.locator("#hits .hit").nth(5).locator(".thumb")).to_be_focused()


def test_the_search_works_without_scripts(browser: Browser, site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.address)
    page.get_by_label("What to look for").fill("green terrazzo")
    page.get_by_role("button", name="Search").click()
    assert hits(page)[0] == TILES[10].name
    page.goto(site.address)
    picture = file_payload("red.jpg", "image/jpeg", swatch(TILES[4], 99))
    page.locator("#image").set_input_files([picture])  # type: ignore[list-item]
    page.get_by_role("button", name="Search").click()
    assert hits(page)[0] in {TILES[4].name, "0002.png"}
    context.close()


def test_everything_can_be_reached_by_keyboard(page: Page, site: Site) -> None:
    page.goto(site.address)
    expect(page.get_by_label("What to look for")).to_be_focused()
    page.keyboard.type("blue herringbone")
    page.keyboard.press("Enter")
    hits(page)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.type"))
    assert "file" in reached
    assert "radio" in reached
    assert "thumb" in reached


# -- coverage and documents ----------------------------------------------------------------------------------
def test_coverage_shows_sums_and_filters_documents(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/coverage")
    expect(page.locator(".totals")).to_contain_text("of 3")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    page.get_by_role("link", name="Incomplete").click()
    expect(rows.filter(has_text=ARRIVALS.document_id)).to_have_count(1)
    expect(rows.filter(has_text="Floors of the North")).to_have_count(0)
    page.get_by_role("link", name="All 3").click()
    page.get_by_role("link", name="Floors of the North").click()
    expect(page.get_by_role("heading", name="Floors of the North")).to_be_visible()
    expect(page.locator("#images .cell")).to_have_count(len(TILES))
    link = page.get_by_role("link", name="Open in Dagster").get_attribute("href")
    assert link is not None
    assert "partition=demo%2Ffloors.pdf" in link


def test_progress_moves_while_a_document_is_embedded(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/documents/{ARRIVALS.document_id}")
    stage = page.locator("[data-stage=slig]")
    expect(stage).to_contain_text("0 of 4 done")
    embed(site.settings, site.database, ARRIVALS, "slig")
    expect(stage).to_contain_text("4 of 4 done")
    expect(stage.locator("rect.done")).to_have_attribute("width", "100")
    expect(page.locator("#images")).to_contain_text("5 of 7 vectors")


def test_a_mended_image_leaves_the_list_of_failures_after_a_retry(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/documents/{SHOWROOM.document_id}")
    failed = page.locator("#failures .failed")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text(BROKEN)
    expect(failed).to_contain_text("truncated JPEG")
    expect(failed).to_contain_text("1 attempt")
    site.land(SHOWROOM, BROKEN, swatch(TILES[8], 2))
    failed.get_by_role("button", name="Retry").click()
    expect(page.locator("#notice")).to_contain_text("Trying again")
    expect(page.get_by_role("heading", name="Nothing failed")).to_be_visible()
    expect(page.locator("[data-stage=slig]")).to_contain_text("3 of 3 done")
    assert site.queue.failed == []


# -- how it looks --------------------------------------------------------------------------------------------
def every_page(page: Page, site: Site) -> list[str]:
    """Addresses of all kinds of pages."""
    page.goto(f"{site.address}/?q=blue+herringbone")
    image = page.locator("#hits .hit").first.get_attribute("data-image")
    return [
        "/",
        "/?q=blue+herringbone",
        f"/?image_id={image}",
        f"/images/{image}",
        "/coverage",
        f"/documents/{SHOWROOM.document_id}",
        f"/documents/{CATALOGUE.document_id}",
        "/login",
        "/?workspace_id=nothing-here",
        "/coverage?workspace_id=nothing-here",
    ]


def test_no_page_scrolls_sideways_on_a_phone(page: Page, site: Site) -> None:
    addresses = every_page(page, site)
    page.set_viewport_size({"width": 360, "height": 740})
    for address in addresses:
        page.goto(site.address + address)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider == 0, f"{address} is {wider} px wider than the screen"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, site: Site, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for address in every_page(page, site):
        page.goto(site.address + address)
        found = Axe().run(page).response["violations"]
        serious = [
            (rule["id"], node["target"], node["failureSummary"])
            for rule in found
            if rule["impact"] in {"serious", "critical"}
            for node in rule["nodes"]
        ]
        assert serious == [], f"{address} ({scheme})"


def test_dark_mode_is_dark(page: Page, site: Site) -> None:
    def brightness(scheme: str) -> int:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(site.address)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) // 3

    assert brightness("light") > 200
    assert brightness("dark") < 50


# -- what is not there, and who may see it -------------------------------------------------------------------
def test_an_unknown_image_is_a_page_that_says_so(watched: Watched, site: Site) -> None:
    watched.expected.append("404")
    watched.page.goto(f"{site.address}/images/{uuid.uuid4()}")
    expect(watched.page.get_by_role("heading", name="Not found")).to_be_visible()
    watched.page.get_by_role("link", name="Go to search").click()
    expect(watched.page.get_by_label("What to look for")).to_be_visible()


def test_whoever_has_a_key_logs_in_and_finds_out_how_to_begin(page: Page, locked_site: Site) -> None:
    with locked_site.database.transaction() as connection:
        secret, _ = create_key(connection, "browser", "reader", ["shop"])
    page.goto(f"{locked_site.address}/coverage")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("Key").fill("not-the-key")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.goto(f"{locked_site.address}/coverage")
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="No documents yet")).to_be_visible()
    page.get_by_role("link", name="Search").click()
    expect(page.locator("#results")).to_contain_text("embedding-assets demo")
    expect(page.locator("#results")).to_contain_text("--workspace shop")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
