"""How much of the model's own speed a whole Dagster run keeps, and whether memory grows with the document.

Speed: images/s of the run of `slig_embeddings` over one document (plan, decode, preprocess, encode, write, check,
materialize) against images/s of the same model on prepared batches that lie ready in memory. Both are measured in
one process; the model before and after the run, since the machine may be busy. The ratio is the figure.

Memory: peak resident memory of a process that embeds a document, for a small and a large document.
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


def measure_run(images: int, model: str, batches_alone: int) -> dict[str, Any]:
    """Ingests and embeds one document in this process; returns speeds and the peak of resident memory."""
    warnings.filterwarnings("ignore", module="dagster")
    is_demo = model == "demo"
    chosen = {"SLIG_MODEL": model} if is_demo else {"SLIG_MODEL": model, "SLIG_PRETRAINED": "random"}
    with installation(**chosen) as settings:
        import dagster as dg

        from embedding_assets.definitions import build_defs
        from embedding_assets.defs.execution import run_job
        from embedding_assets.deploy.instance import apply_dagster_environment
        from embedding_assets.keys import DocumentKey
        from embedding_assets.pipeline.assembly import open_encoder
        from embedding_assets.store.database import open_database

        pictures = photographs(WIDTH, HEIGHT)
        write_folder_document(Path(settings.landing) / "bench" / "photographs", images, pictures)
        open_database(settings)
        apply_dagster_environment(settings)
        key = DocumentKey("bench", "photographs")
        encoder = open_encoder(settings)
        ready = [encoder.prepare(picture) for picture in pictures[:BATCH]]
        encoder.encode_images(ready)  # the first call allocates

        def model_alone() -> float:
            start = time.perf_counter()
            for _ in range(batches_alone):
                encoder.encode_images(ready)
            return batches_alone * BATCH / (time.perf_counter() - start)

        result: dict[str, Any] = {"images": images}
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


def in_child(images: int, model: str, batches_alone: int) -> dict[str, Any]:
    """`measure_run` in a process of its own, so that peaks of memory do not mix."""
    command = [sys.executable, __file__, "--child", str(images), model, str(batches_alone)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_run(int(args.child[0]), args.child[1], int(args.child[2]))))
        return
    facts = machine("torch", "open_clip_torch", "dagster", "pillow", "psycopg2-binary")
    print_machine(facts)
    images = 100 if args.quick else 500
    speed = in_child(images, "ViT-B-32", 3 if args.quick else 10)
    ratio = speed["run_images_s"] / speed["model_images_s"]
    print(f"\nViT-B-32, random weights, {images} JPEGs of {WIDTH}x{HEIGHT}, batches of {BATCH}")
    print_table(
        [
            {"what": "model alone, prepared batches", "images/s": speed["model_images_s"], "ratio": 1.0},
            {"what": "Dagster run of slig_embeddings", "images/s": speed["run_images_s"], "ratio": ratio},
            {
                "what": "Dagster run of document_images (ingest)",
                "images/s": speed["ingest_images_s"],
                "ratio": speed["ingest_images_s"] / speed["model_images_s"],
            },
            {
                "what": "both runs together",
                "images/s": images / (speed["ingest_s"] + speed["embed_s"]),
                "ratio": images / (speed["ingest_s"] + speed["embed_s"]) / speed["model_images_s"],
            },
        ]
    )
    sizes = (200, 1000) if args.quick else (500, 5000)
    memory = [in_child(size, "demo", 0) for size in sizes]
    growth = memory[1]["peak_mib"] / memory[0]["peak_mib"] - 1
    print("\nPeak resident memory of the process, demo model, the same JPEGs")
    print_table(
        [{"images": m["images"], "peak MiB": m["peak_mib"], "images/s": m["run_images_s"]} for m in memory]
    )
    finish(
        {"machine": facts, "speed": speed, "memory": memory},
        [
            Bar("run / model alone", ratio, minimum=0.8),
            Bar("growth of peak memory", growth, maximum=0.10),
        ],
        args,
    )


if __name__ == "__main__":
    main()
