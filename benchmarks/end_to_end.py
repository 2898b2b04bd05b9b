"""How much of the model's own speed a whole Dagster run keeps, and whether memory grows with the document.

Speed: images/s of the run of `slig_embeddings` over one document (plan, decode, preprocess, encode, write, check,
materialize) against images/s of the same model on prepared batches that lie ready in memory. Both are measured in
one process; the model before and after the run, since the machine may be busy. The ratio is the figure; in float32, and
in 16 bits where the processor has arithmetic for them. Decoding and bookkeeping cost the same whatever the model, so
that the faster it is, the lower is the ratio.

Memory: peak resident memory of a process that embeds a document, for a small and a large document.

What a new database needs once, the words of the aspects through the model's text tower, is measured apart: it is as
much work for one image as for a million.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from reporting import Bar, arguments, finish, machine, print_machine, print_table
from workload import installation, photographs, write_folder_document

WIDTH, HEIGHT = 1025, 768
BATCH = 20


def measure_run(images: int, model: str, dtype: str, batches_alone: int) -> dict[str, Any]:
    """Ingests and embeds one document in this process; returns speeds and the peak of resident memory."""
    warnings.filterwarnings("ignore", module="dagster")
    is_demo = model == "demo"
    chosen = {"SLIG_MODEL": model} if is_demo else {"SLIG_MODEL": model, "SLIG_PRETRAINED": "random"}
    with installation(SLIG_DTYPE=dtype, **chosen) as settings:
        import dagster as dg

        from embedding_assets.definitions import build_defs
        from embedding_assets.defs.execution import run_job
        from embedding_assets.deploy.instance import apply_dagster_environment
        from embedding_assets.keys import DocumentKey
        from embedding_assets.pipeline.assembly import open_image_store, open_slig_embedder
        from embedding_assets.store.database import open_database

        pictures = photographs(WIDTH, HEIGHT)
        write_folder_document(Path(settings.landing) / "bench" / "photographs", images, pictures)
        embedder = open_slig_embedder(settings, open_database(settings), open_image_store(settings))
        apply_dagster_environment(settings)
        key = DocumentKey("bench", "photographs")
        encoder = embedder.encoder
        ready = [encoder.prepare(picture) for picture in pictures[:BATCH]]
        encoder.encode_images(ready)  # the first call allocates
        start = time.perf_counter()
        embedder.open_collection()
        result: dict[str, Any] = {"images": images, "aspects_s": time.perf_counter() - start}
        result["dtype"] = encoder.precision.dtype

        def model_alone() -> float:
            start = time.perf_counter()
            for _ in range(batches_alone):
                encoder.encode_images(ready)
            return batches_alone * BATCH / (time.perf_counter() - start)

        with dg.DagsterInstance.get() as instance:
            defs = build_defs()

            def run(job: str) -> float:
                start = time.perf_counter()
                (outcome,) = run_job(defs, job, [key], instance, documents_per_run=1)
                if not outcome.success:
                    raise SystemExit(f"{job} failed: {outcome.reason}")
                return time.perf_counter() - start

            before = model_alone() if batches_alone else 0.0
            result["ingest_s"] = run("ingest_document")
            result["embed_s"] = run("embed_document")
            after = model_alone() if batches_alone else 0.0
            event = instance.get_latest_materialization_event(dg.AssetKey("slig_embeddings"))
            assert event is not None
            assert event.asset_materialization is not None
            for name in ("embedded", "decode_seconds", "encode_seconds", "write_seconds"):
                result[name] = event.asset_materialization.metadata[name].value
        result["model_images_s"] = (before + after) / 2
        result["run_images_s"] = images / result["embed_s"]
        result["ingest_images_s"] = images / result["ingest_s"]
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def in_child(images: int, model: str, dtype: str, batches_alone: int) -> dict[str, Any]:
    """`measure_run` in a process of its own, so that peaks of memory do not mix."""
    command = [sys.executable, __file__, "--child", str(images), model, dtype, str(batches_alone)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model; gets random weights")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        count, model, dtype, batches_alone = args.child
        print(json.dumps(measure_run(int(count), model, dtype, int(batches_alone))))
        return
    facts = machine("torch", "open_clip_torch", "dagster", "pillow", "psycopg2-binary")
    print_machine(facts)
    images = 100 if args.quick else 500
    speeds = [in_child(images, args.model, dtype, 3 if args.quick else 10) for dtype in ("float32", "auto")]
    if speeds[1]["dtype"] == "float32":
        speeds = speeds[:1]  # the processor has nothing faster
    ratios = {}
    for speed in speeds:
        alone, both = speed["model_images_s"], images / (speed["ingest_s"] + speed["embed_s"])
        ratios[speed["dtype"]] = speed["run_images_s"] / alone
        print(
            f"\n{args.model}, random weights, {speed['dtype']}, {images} JPEGs of {WIDTH}x{HEIGHT}, batches of {BATCH}"
        )
        print_table(
            [
                {"what": what, "images/s": images_s, "ratio": images_s / alone}
                for what, images_s in (
                    ("model alone, prepared batches", alone),
                    ("Dagster run of slig_embeddings", speed["run_images_s"]),
                    ("Dagster run of document_images (ingest)", speed["ingest_images_s"]),
                    ("both runs together", both),
                )
            ]
        )
        print(f"Fitting the aspects, once a database: {speed['aspects_s']:.1f} s")
    sizes = (200, 1000) if args.quick else (500, 5000)
    memory = [in_child(size, "demo", "auto", 0) for size in sizes]
    growth = memory[1]["peak_mib"] / memory[0]["peak_mib"] - 1
    print("\nPeak resident memory of the process, demo model, the same JPEGs")
    print_table(
        [{"images": m["images"], "peak MiB": m["peak_mib"], "images/s": m["run_images_s"]} for m in memory]
    )
    finish(
        {"machine": facts, "speed": speeds, "memory": memory},
        [
            *(Bar(f"run / model alone, {dtype}", ratio, minimum=0.8) for dtype, ratio in ratios.items()),
            Bar("growth of peak memory", growth, maximum=0.10),
        ],
        args,
    )


if __name__ == "__main__":
    main()
