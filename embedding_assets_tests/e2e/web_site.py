"""A small catalogue, embedded by the real pipeline with the demo model, and the application that serves it."""

from __future__ import annotations

import io
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from embedding_assets.api.app import create_app
from embedding_assets.api.services import Services
from embedding_assets.demo.catalogue import product_lines
from embedding_assets.demo.faults import truncated_jpeg
from embedding_assets.demo.pages import Entry, build_pdf, jpeg_image
from embedding_assets.demo.specification import ProductSpec, product_of
from embedding_assets.demo.swatches import draw_swatch
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.all_stages import run_all_stages
from embedding_assets.pipeline.assembly import (
    open_image_store,
    open_ingestor,
    open_nearby_text_embedder,
    open_slig_embedder,
    open_understanding_embedder,
    open_vision_runner,
)
from embedding_assets.pipeline.asset_stages import INGEST_ASSET, stages_in_use
from embedding_assets.pipeline.jobs import QueuedRuns
from embedding_assets.pipeline.stage_runner import AnyRunner
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database

WORKSPACE = "demo"
SIDE = 192
"""Pixels of a swatch's side."""

TILES: tuple[ProductSpec, ...] = tuple(
    product_of(*look)
    for look in (
        ("wool", "blue", "herringbone", "matte"),
        ("wool", "blue", "chevron", "matte"),
        ("wool", "green", "herringbone", "matte"),
        ("marble", "white", "plain", "glossy"),
        ("marble", "red", "hexagon", "glossy"),
        ("marble", "blue", "brick bond", "glossy"),
        ("porcelain", "grey", "plain", "matte"),
        ("porcelain", "red", "checker", "matte"),
        ("oak", "brown", "herringbone", "matte"),
        ("oak", "brown", "basketweave", "matte"),
        ("terrazzo", "green", "plain", "glossy"),
        ("terrazzo", "black", "stripes", "glossy"),
    )
)
"""Products of the catalogue, in order."""

CATALOGUE = DocumentKey(WORKSPACE, "floors.pdf")
SHOWROOM = DocumentKey(WORKSPACE, "showroom")
"""A folder of images; one of them is broken."""
BROKEN = "0003.jpg"
ARRIVALS = DocumentKey(WORKSPACE, "arrivals")
"""Read, and not embedded yet."""


def swatch(spec: ProductSpec, piece: int = 1, form: str = "JPEG") -> bytes:
    """A picture of a product as a file; another `piece` is another picture."""
    file = io.BytesIO()
    draw_swatch(spec, SIDE, piece).save(file, form)
    return file.getvalue()


class QueueHere:
    """Takes runs as Dagster's queue does, and carries them out in a thread with the pipeline's own stages."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.failed: list[Exception] = []
        self._threads: dict[str, threading.Thread] = {}

    def submit(
        self,
        targets: Mapping[str, Sequence[DocumentKey]],
        *,
        title: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Starts a thread."""
        number = str(uuid.uuid4())
        self._threads[number] = threading.Thread(target=self._run, args=(dict(targets),), name=title)
        self._threads[number].start()
        return number

    def _run(self, targets: dict[str, Sequence[DocumentKey]]) -> None:
        try:
            for key in targets.get(INGEST_ASSET, ()):
                open_ingestor(self.settings, self.database).ingest(key, force=True)
            for stage in stages_in_use(self.settings):
                for key in targets.get(stage.asset, ()):
                    embed(self.settings, self.database, key, stage.name)
        except Exception as error:  # noqa: BLE001 (handed to the test, which fails)
            self.failed.append(error)

    def look(self, backfill_id: str) -> QueuedRuns:
        """Whether the thread goes on."""
        return QueuedRuns("running" if self._threads[backfill_id].is_alive() else "done", (), "")

    def is_served(self) -> bool:
        """Always."""
        return True

    def depth(self) -> dict[str, int]:
        """Nothing ever waits."""
        return {}

    def close(self) -> None:
        """Waits for what goes on."""
        for thread in self._threads.values():
            thread.join()


def embed(settings: Settings, database: Database, key: DocumentKey, stage: str) -> None:
    """Does one stage of a document."""
    store = open_image_store(settings)
    runners: dict[str, AnyRunner] = {
        "slig": open_slig_embedder(settings, database, store),
        "vision": open_vision_runner(settings, database, store),
        "understanding": open_understanding_embedder(settings, database),
        "text": open_nearby_text_embedder(settings, database),
    }
    runner = runners[stage]
    runner.preflight()
    run_id = str(uuid.uuid4())
    runner.run(key.workspace_id, runner.pending(key, run_id), run_id=run_id)


@dataclass
class Site:
    """A running application and what it serves."""

    settings: Settings
    database: Database
    queue: QueueHere
    address: str = ""
    keys: list[DocumentKey] = field(default_factory=list)

    def land(self, key: DocumentKey, name: str, content: bytes) -> None:
        """Puts an image into a folder document."""
        path = Path(self.settings.landing) / str(key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fill(site: Site) -> None:
    """Lands and embeds the catalogue."""
    entries = [Entry(jpeg_image(draw_swatch(spec, SIDE, 1)), product_lines(spec)) for spec in TILES]
    content, _ = build_pdf("Floors of the North", ("Floors",), entries, columns=3, rows=2)
    path = Path(site.settings.landing) / str(CATALOGUE)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    site.land(SHOWROOM, "0001.jpg", swatch(TILES[0], 2))
    site.land(SHOWROOM, "0002.png", swatch(TILES[4], 2, "PNG"))
    site.land(SHOWROOM, BROKEN, truncated_jpeg(draw_swatch(TILES[8], SIDE, 2)))
    run_all_stages(site.settings, site.database, WORKSPACE)
    for number, spec in enumerate(TILES[:4]):
        site.land(ARRIVALS, f"{number:04d}.jpg", swatch(spec, 3))
    open_ingestor(site.settings, site.database).ingest(ARRIVALS)


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """Serves a site on a free port of loopback."""
    services = Services(site.settings, database=site.database, run_queue=site.queue)
    listener = socket.create_server(("127.0.0.1", 0))
    site.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(site.settings, services=services)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"
