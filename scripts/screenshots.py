#!/usr/bin/env python
"""Takes the pictures of docs/web.md: the real pages, on the demo catalogue, in headless Chromium.

    .venv/bin/python scripts/screenshots.py [--to docs/images] [--chromium /usr/bin/chromium] [--all]

Needs Chromium (`apt-get install chromium`) and the development dependencies. Builds the demo in a temporary folder
first, one document after the other, with coverage taken in between: that is the history which the coverage page
shows. Takes about two minutes. `--all` adds every page in light, dark and at phone width, to look at.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from embedding_assets.api.app import create_app
from embedding_assets.demo.catalogue import write_demo_catalogue
from embedding_assets.ingest.landing import discover
from embedding_assets.pipeline.assembly import (
    open_image_store,
    open_ingestor,
    open_nearby_text_embedder,
    open_slig_embedder,
    open_understanding_embedder,
    open_vision_runner,
)
from embedding_assets.pipeline.asset_stages import stages_in_use
from embedding_assets.pipeline.coverage_report import take_coverage
from embedding_assets.settings import Settings, load_settings
from embedding_assets.store.database import Database, open_database

WORKSPACE = "demo"
WIDTH, HEIGHT = 1200, 800
COLOURS = 200
"""Colours of a picture's palette: more make the files larger than 200 kB."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def build(settings: Settings, database: Database) -> None:
    """Brings the demo catalogue in, document by document."""
    write_demo_catalogue(Path(settings.landing), WORKSPACE)
    ingestor = open_ingestor(settings, database)
    store = open_image_store(settings)
    runners = [
        open_slig_embedder(settings, database, store),
        open_vision_runner(settings, database, store),
        open_understanding_embedder(settings, database),
        open_nearby_text_embedder(settings, database),
    ]
    stages = stages_in_use(settings)
    keys = [document.key for document in discover(settings.landing, WORKSPACE)]
    for key in keys:
        ingestor.ingest(key)
    take_coverage(database, stages, settings.min_coverage, timedelta(days=1))
    for key in keys:
        for runner in runners:
            run_id = f"in-process:{uuid.uuid4()}"
            runner.preflight()
            runner.run(WORKSPACE, runner.pending(key, run_id), run_id=run_id)
            take_coverage(database, stages, settings.min_coverage, timedelta(days=1))


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The application on a free port of this machine; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def open_page(browser: Browser, width: int, height: int, scheme: str) -> Page:
    """An empty page of that size."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(120_000)  # the first search loads the models
    return page


def save(page: Page, path: Path) -> None:
    """The visible part of a page as a small PNG."""
    page.wait_for_load_state("networkidle")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def take(browser: Browser, address: str, folder: Path, *, everything: bool) -> None:
    """All pictures."""
    page = open_page(browser, WIDTH, HEIGHT, "light")
    page.goto(f"{address}/?q=blue+herringbone")
    image = page.locator("#hits .hit").first.get_attribute("data-image")
    pages = {
        "search": "/?q=matte+grey+porcelain+R11",
        "image": f"/images/{image}",
        "coverage": "/coverage",
    }
    for name, path in pages.items():
        page.set_viewport_size({"width": WIDTH, "height": 1000 if name == "coverage" else HEIGHT})
        page.goto(address + path)
        save(page, folder / f"{name}.png")
    if not everything:
        return
    pages |= {
        "start": "/",
        "like": f"/?image_id={image}",
        "document": "/documents/showroom",
        "login": "/login",
        "empty": "/?workspace_id=nothing-here",
        "missing": f"/images/{uuid.uuid4()}",
    }
    for mode, (width, height, scheme) in {
        "desk": (WIDTH, HEIGHT, "light"),
        "dark": (WIDTH, HEIGHT, "dark"),
        "phone": (360, 740, "light"),
    }.items():
        page = open_page(browser, width, height, scheme)
        for name, path in pages.items():
            page.goto(address + path)
            save(page, folder / "all" / f"{mode}-{name}.png")


def main() -> None:
    """Builds, serves, takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    parser.add_argument("--all", action="store_true", help="every page, light, dark and at phone width, too")
    parser.add_argument("--keep", type=Path, help="a folder for the demo's data that is used again next time")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="ea-"))
    known = folder.is_dir() and any(folder.iterdir())
    settings = load_settings(demo=True, var_dir=folder, api_requests_per_minute=0)
    try:
        if not known:
            build(settings, open_database(settings))
        with serving(settings) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=arguments.chromium, args=list(FLAGS))
            take(browser, address, arguments.to, everything=arguments.all)
            browser.close()
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
