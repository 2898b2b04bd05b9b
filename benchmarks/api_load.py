"""Sixteen clients search through the HTTP API while documents are being embedded by the same server.

    python benchmarks/api_load.py [--quick] [--check] [--json FILE]

A throwaway installation with the demo catalogue and the demo model, a real server on loopback. For 60 s, 16 clients
search without a pause: texts of every family, "more like this" by an image's id, uploads, and the thumbnails of what
was found. Meanwhile lists of freshly drawn swatches are posted inline, one after the other, so that the server embeds
all the time. Bars: no error, p95 of a search, something embedded, and memory that stays where it was once warm.

`--quick` takes 10 s, in which memory has not settled: its bar is wider there.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from reporting import Bar, arguments, finish, machine, print_machine, print_table
from workload import installation

from embedding_assets.demo.catalogue import write_demo_catalogue
from embedding_assets.demo.queries import FAMILY_QUERIES
from embedding_assets.demo.specification import make_products
from embedding_assets.demo.swatches import draw_swatch
from embedding_assets.pipeline.all_stages import run_all_stages
from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.database import open_database

WORKSPACE = "demo"
CLIENTS = 16
IMAGES_A_LIST = 40
MAX_P95_MS = 2_000.0
MAX_GROWTH_MIB = 64.0
MAX_GROWTH_QUICK_MIB = 192.0
PATIENCE_S = 120.0


@dataclass
class Tally:
    """What the clients saw. One lock for all: each adds a line a request."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, seconds: float) -> None:
        with self.lock:
            self.milliseconds.setdefault(kind, []).append(1000 * seconds)

    def fail(self, what: str) -> None:
        with self.lock:
            self.errors[what] += 1

    def rows(self, elapsed_s: float) -> list[dict[str, Any]]:
        """One line a kind of request, and one for all searches."""
        kinds = dict(sorted(self.milliseconds.items()))
        searches = [ms for kind, times in kinds.items() if kind != "thumbnail" for ms in times]
        return [
            {
                "request": kind,
                "requests": len(times),
                "a second": len(times) / elapsed_s,
                "p50 ms": statistics.median(times),
                "p95 ms": percentile(times, 95),
                "p99 ms": percentile(times, 99),
            }
            for kind, times in {**kinds, "all searches": searches}.items()
            if times
        ]


def percentile(values: list[float], percent: int) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@contextmanager
def server(settings: Settings) -> Iterator[tuple[str, psutil.Process]]:
    """A real server on a free port of loopback; gives its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **os.environ,
        f"{PREFIX}API_PORT": str(port),
        f"{PREFIX}API_REQUESTS_PER_MINUTE": "0",
    }
    process = subprocess.Popen([sys.executable, "-m", "embedding_assets.cli", "serve"], env=variables)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not come up")
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def search_without_pause(address: str, number: int, until: float, tally: Tally) -> None:
    """One client."""
    draw = random.Random(number)
    texts = list(FAMILY_QUERIES.values())
    known: list[str] = []
    with httpx.Client(base_url=address, timeout=60) as client:
        while time.monotonic() < until:
            choice = draw.random()
            started = time.monotonic()
            try:
                if choice < 0.1:
                    kind = "search by upload"
                    answer = client.post("/api/search", files={"image": ("query.png", picture(draw))})
                elif choice < 0.3 and known:
                    kind = "search by image id"
                    answer = client.post("/api/search", json={"image_id": draw.choice(known)})
                elif choice < 0.5 and known:
                    kind = "thumbnail"
                    answer = client.get(f"/api/images/{draw.choice(known)}/thumbnail")
                else:
                    kind = "search by text"
                    answer = client.post("/api/search", json={"text": draw.choice(texts), "explain": True})
            except httpx.HTTPError as error:
                tally.fail(type(error).__name__)
                continue
            tally.add(kind, time.monotonic() - started)
            gone = answer.status_code == 404  # a list that was posted again took its image away
            if answer.status_code != 200 and not gone:
                tally.fail(f"{kind}: {answer.status_code} {answer.text[:200]}")
            elif kind.startswith("search") and not gone:
                hits = answer.json()["hits"]
                if not hits:
                    tally.fail(f"{kind}: no hits")
                known = [hit["image_id"] for hit in hits] or known


def picture(draw: random.Random) -> bytes:
    """A swatch that the catalogue does not hold, as PNG."""
    buffer = BytesIO()
    draw_swatch(draw.choice(PRODUCTS), 128, draw.randrange(10**6)).save(buffer, "PNG")
    return buffer.getvalue()


PRODUCTS = make_products(64, seed=17)


def embed_without_pause(address: str, landing: Path, until: float, tally: Tally) -> int:
    """Posts lists of new images, inline, one after the other; returns how many images were embedded."""
    draw = random.Random(99)
    folder = landing / WORKSPACE / "load"
    folder.mkdir(parents=True, exist_ok=True)
    embedded = number = 0
    with httpx.Client(base_url=address, timeout=120) as client:
        while time.monotonic() < until:
            names = []
            for n in range(IMAGES_A_LIST):
                path = folder / f"{n}.png"
                path.write_bytes(picture(draw))
                names.append({"path": str(path), "caption": f"Sample {number}-{n}"})
            number += 1
            answer = client.post(
                f"/api/internal/save-images-db/load-{number}",
                params={"mode": "inline"},
                json={"document_id": "load", "material_images": names},
            )
            done = answer.json()
            if answer.status_code not in (200, 202) or done["failed_images"]:
                tally.fail(f"embedding: {answer.status_code} {answer.text[:200]}")
                return embedded
            embedded += done["clip_embeddings_generated"]
    return embedded


def main() -> None:
    """Fills an installation, starts the server, and asks it."""
    args = arguments(__doc__).parse_args()
    seconds = 10.0 if args.quick else 60.0
    facts = machine("fastapi", "uvicorn", "torch")
    print_machine(facts)
    with installation(DEMO="true", VISION_OCR="false") as settings:
        write_demo_catalogue(Path(settings.landing), WORKSPACE)
        run_all_stages(settings, open_database(settings), WORKSPACE)
        with server(settings) as (address, process):
            tally, warm = Tally(), Tally()
            search_without_pause(address, 0, time.monotonic() + 5, warm)
            embed_without_pause(address, Path(settings.landing), time.monotonic() + 1, warm)
            if warm.errors:
                raise SystemExit(f"errors before the measurement began: {dict(warm.errors)}")
            started = time.monotonic()
            until = started + seconds
            embedded: list[int] = []
            threads = [
                threading.Thread(target=search_without_pause, args=(address, n, until, tally))
                for n in range(CLIENTS)
            ]
            threads.append(
                threading.Thread(
                    target=lambda: embedded.append(
                        embed_without_pause(address, Path(settings.landing), until, tally)
                    )
                )
            )
            for thread in threads:
                thread.start()
            memory: list[float] = []
            while any(thread.is_alive() for thread in threads):
                memory.append(process.memory_info().rss / 2**20)
                time.sleep(0.5)
            elapsed = time.monotonic() - started
    rows = tally.rows(elapsed)
    print_table(rows)
    # The first third is for caches and thread stacks to fill.
    third = max(1, len(memory) // 3)
    early, late = statistics.median(memory[third : 2 * third]), statistics.median(memory[-third:])
    print_table(
        [
            {
                "embedded meanwhile": sum(embedded),
                "MiB, second third": early,
                "MiB, last third": late,
                "MiB, peak": max(memory),
            }
        ]
    )
    for what, count in tally.errors.most_common(10):
        print(f"error, {count} times: {what}")
    searches = rows[-1]
    bars = [
        Bar("errors", sum(tally.errors.values()), maximum=0),
        Bar("p95 of a search, ms", searches["p95 ms"], maximum=MAX_P95_MS),
        Bar("images embedded meanwhile", sum(embedded), minimum=1),
        Bar(
            "growth of memory, MiB",
            late - early,
            maximum=MAX_GROWTH_QUICK_MIB if args.quick else MAX_GROWTH_MIB,
        ),
    ]
    results = {"machine": facts, "requests": rows, "embedded": sum(embedded), "memory_mib": memory}
    finish(results, bars, args)


if __name__ == "__main__":
    main()
