"""How fast a fused search over seven arms is, and how much of the exact answer its indexes find.

    python benchmarks/search_speed.py [--quick] [--check] [--json FILE] [--images N ...] [--without-vecs]

Synthetic clustered vectors (benchmarks/vectors.py), five arms of 768 dimensions and two of 1024, in two workspaces of
three quarters and one quarter of the images. Vectors of queries are given: what a model needs to embed a query is not
measured here. In the same run, on the same database and with an index of its own for each collection, seven plain
`vecs` queries and a fusion in Python.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import vecs
from reporting import Bar, arguments, finish, machine, print_machine, print_table
from sqlalchemy import text
from vectors import LoadedImages, clustered_vectors, empty_database, load_images

from embedding_assets.encoders.aspects import SubspaceMethod
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.pipeline.indexing import IndexBuilder
from embedding_assets.search.arms import ARMS, COLLECTION_OF_ARM, TEXT_ARMS
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.profiles import PROFILES
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.search.request import SearchRequest
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database
from embedding_assets.store.indexes import usable_hnsw
from embedding_assets.store.search import ArmQuery, begin_search, nearest_by_arm
from embedding_assets.store.search_scope import Scope
from embedding_assets.store.spaces import Collection

LARGE, SMALL = "large", "small"
WORKSPACES = (LARGE, LARGE, LARGE, SMALL)
"""Three documents of four are of the large workspace."""

DIMENSIONS = {COLLECTION_OF_ARM[arm]: 1024 if arm in TEXT_ARMS else 768 for arm in ARMS}
QUERIES = 200
TOP_K = 20
CLIENTS = 8
RECALL_AT = 10
QUERY_NOISE = 0.35
"""Length of what a query differs by from an image that fits it."""


class GivenQueries(QueryEncoder):
    """Answers each text with one of the prepared query vectors, without any model."""

    def __init__(self, vectors: dict[str, Vectors]) -> None:
        super().__init__(None, {}, SubspaceMethod())  # type: ignore[arg-type]
        self.vectors = vectors

    def check(self, arm: str, collection: Collection) -> None:
        pass

    def of_texts(self, arm: str, collection: Collection, texts: Sequence[str]) -> Vectors:
        places = [int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) % QUERIES for words in texts]
        return self.vectors[arm][places]


def draw_queries(loaded: LoadedImages, seed: int = 0) -> dict[str, Vectors]:
    """Query vectors by arm, shape (QUERIES, dimension): images of the corpus, moved a little."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(loaded.ids), QUERIES, replace=False)
    queries = {}
    for number, arm in enumerate(ARMS):
        dimension = DIMENSIONS[COLLECTION_OF_ARM[arm]]
        stored = clustered_vectors(len(loaded.ids), dimension, number, loaded.labels)[rows]
        noise = generator.standard_normal(stored.shape, dtype=np.float32) * np.float32(
            QUERY_NOISE / np.sqrt(dimension)
        )
        moved = stored + noise
        queries[arm] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return queries


def words_of(n: int) -> str:
    """A text without digits for each number: codes would be looked for exactly."""
    return "query " + "".join("abcdefghij"[int(digit)] for digit in str(n))


def timed(call: Callable[[int], Any], count: int) -> list[float]:
    """Milliseconds of each of `count` calls, after a third as many that bring the indexes into the server's cache."""
    for n in range(max(3, count // 3)):
        call(n)
    times = []
    for n in range(count):
        start = time.perf_counter()
        call(n)
        times.append(1000 * (time.perf_counter() - start))
    return times


def throughput(call: Callable[[int], Any], seconds: float) -> tuple[float, list[float]]:
    """Calls per second by `CLIENTS` clients at once, and milliseconds of each call."""
    numbers = itertools.count()
    stop = time.monotonic() + seconds
    times: list[float] = []
    lock = threading.Lock()

    def client() -> int:
        done = 0
        while time.monotonic() < stop:
            start = time.perf_counter()
            call(next(numbers))
            with lock:
                times.append(1000 * (time.perf_counter() - start))
            done += 1
        return done

    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(lambda _: client(), range(CLIENTS)))
    return done / (time.monotonic() - start), times


def recall_by_arm(
    database: Database, loaded: LoadedImages, queries: dict[str, Vectors], workspace: str, count: int
) -> dict[str, float]:
    """Share of the exact ten nearest images of the workspace that each arm's index finds."""
    place = {i: n for n, i in enumerate(loaded.ids)}
    inside = np.asarray([name == workspace for name in loaded.workspaces])
    found = {}
    for number, arm in enumerate(ARMS):
        collection = loaded.collections[COLLECTION_OF_ARM[arm]]
        stored = clustered_vectors(len(loaded.ids), collection.dimension, number, loaded.labels)
        hits = 0
        with database.transaction() as connection:
            begin_search(connection, 60, 100)
            index = usable_hnsw(connection, [collection]).get(collection.table)
            for n in range(count):
                cosines = np.where(inside, stored @ queries[arm][n], -2)
                exact = set(np.argpartition(-cosines, RECALL_AT)[:RECALL_AT].tolist())
                near = nearest_by_arm(
                    connection, Scope(workspace), [ArmQuery(arm, collection, queries[arm][n], index)], 100
                )[arm].hits[:RECALL_AT]
                hits += len(exact & {place[i] for i, _ in near})
        found[arm] = hits / (RECALL_AT * count)
    return found


def plain_vecs(database: Database, queries: dict[str, Vectors]) -> Callable[[int], Any]:
    """Seven vecs queries and a weighted sum in Python, as one writes it at first."""
    client = vecs.create_client(database.engine.url.render_as_string(hide_password=False))
    collections = {
        arm: client.get_or_create_collection(name=name, dimension=DIMENSIONS[name])
        for arm, name in COLLECTION_OF_ARM.items()
    }
    weights = PROFILES["balanced"]

    def search(n: int) -> list[tuple[str, float]]:
        fused: dict[str, float] = {}
        for arm, collection in collections.items():
            for image_id, distance in collection.query(
                data=queries[arm][n % QUERIES].tolist(),
                limit=100,
                filters={"workspace_id": {"$eq": LARGE}},
                include_value=True,
                ef_search=100,
            ):
                fused[image_id] = fused.get(image_id, 0.0) + weights[arm] * (1 - distance)
        return sorted(fused.items(), key=lambda one: -one[1])[:TOP_K]

    return search


def against_vecs(
    database: Database,
    loaded: LoadedImages,
    queries: dict[str, Vectors],
    search: Callable[[int], Any],
    runs: int,
) -> dict[str, float]:
    """Milliseconds of seven plain vecs queries, and how many times as long they take as a search."""
    # vecs can't use an index of 16-bit numbers: it gets one of its own kind for each collection.
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET maintenance_work_mem = '2GB'"))
        for collection in loaded.collections.values():
            connection.execute(
                text(
                    f"CREATE INDEX ix_vector_cosine_ops_hnsw_{uuid.uuid4().hex[:7]} ON {collection.qualified} "
                    "USING hnsw (vec vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
                )
            )
    plain = timed(plain_vecs(database, queries), max(20, runs // 4))
    again = timed(search, runs // 2)
    return {
        "plain_vecs_p50_ms": float(np.percentile(plain, 50)),
        "plain_vecs_p95_ms": float(np.percentile(plain, 95)),
        "times_plain": float(np.median(plain) / np.median(again)),
    }


def measure(count: int, quick: bool, with_vecs: bool) -> dict[str, Any]:
    """All figures for a corpus of `count` images."""
    with empty_database(max_parallel_workers_per_gather="0") as database:
        start = time.monotonic()
        loaded = load_images(database, WORKSPACES, count, DIMENSIONS)
        load_s = time.monotonic() - start
        settings = load_settings(index_min_rows=0, index_memory_mb=2048)
        start = time.monotonic()
        reports = IndexBuilder.from_settings(settings, database).build()
        build_s = time.monotonic() - start
        queries = draw_queries(loaded)
        engine = SearchEngine(database, GivenQueries(queries))
        engine.calibrate()
        sizes = {report.table: report.vector.size_bytes or 0 for report in reports}

        def search(workspace: str) -> Callable[[int], Any]:
            def one(n: int) -> Any:
                return engine.search(
                    SearchRequest(workspace, text=words_of(n), profile="balanced", top_k=TOP_K)
                )

            return one

        runs = 60 if quick else 300
        large, small = timed(search(LARGE), runs), timed(search(SMALL), runs)
        laps: dict[str, list[float]] = {}
        for n in range(30):
            for name, value in search(LARGE)(n).timings_ms.items():
                laps.setdefault(name, []).append(value)
        per_second, busy = throughput(search(LARGE), 5 if quick else 20)
        recall = recall_by_arm(database, loaded, queries, LARGE, 20 if quick else 50)
        recall_small = recall_by_arm(database, loaded, queries, SMALL, 20 if quick else 50)
        exact = search(LARGE)(0).exact
        compared = against_vecs(database, loaded, queries, search(LARGE), runs) if with_vecs else {}
    return {
        "images": count,
        "load_s": load_s,
        "build_s": build_s,
        "index_bytes": sum(sizes.values()),
        "exact": exact,
        "p50_ms": float(np.percentile(large, 50)),
        "p95_ms": float(np.percentile(large, 95)),
        "p50_small_ms": float(np.percentile(small, 50)),
        "p95_small_ms": float(np.percentile(small, 95)),
        "steps_ms": {name: float(np.median(values)) for name, values in laps.items()},
        "clients_8_per_s": per_second,
        "clients_8_p95_ms": float(np.percentile(busy, 95)),
        "recall": recall,
        "recall_small": recall_small,
        **compared,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", help="sizes of the corpus")
    parser.add_argument("--without-vecs", action="store_true", help="leave the comparison with vecs out")
    args = parser.parse_args()
    sizes = args.images or ([2_000, 10_000] if args.quick else [10_000, 100_000])
    facts = machine("vecs", "sqlalchemy", "numpy")
    print_machine(facts)
    results = []
    for count in sizes:
        result = measure(count, args.quick, not args.without_vecs)
        results.append(result)
        print_table(
            [
                {
                    "images x 7 arms": result["images"],
                    "p50 ms": result["p50_ms"],
                    "p95 ms": result["p95_ms"],
                    "small workspace p50": result["p50_small_ms"],
                    "p95": result["p95_small_ms"],
                    "8 clients /s": result["clients_8_per_s"],
                    "their p95": result["clients_8_p95_ms"],
                    "vecs x7 p50": result.get("plain_vecs_p50_ms"),
                    "times faster": result.get("times_plain"),
                    "all scored": str(result["exact"]),
                    "indexes MB": result["index_bytes"] / 1e6,
                    "built in s": result["build_s"],
                }
            ]
        )
        print_table(
            [
                {"recall@10": "large workspace", **result["recall"]},
                {"recall@10": "small workspace", **result["recall_small"]},
            ]
        )
        print(
            "steps, median ms:",
            {name: round(value, 1) for name, value in result["steps_ms"].items()},
            flush=True,
        )
    last = results[-1]
    bars = [
        Bar(f"p95 of a fused query at {last['images']:,} images, ms", last["p95_ms"], maximum=60),
        *(
            [Bar("times faster than seven vecs queries", last["times_plain"], minimum=3)]
            if "times_plain" in last
            else []
        ),
        *(Bar(f"recall@10 of {arm}", value, minimum=0.95) for arm, value in last["recall"].items()),
    ]
    finish({"machine": facts, "results": results}, bars, args)


if __name__ == "__main__":
    main()
