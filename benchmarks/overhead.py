"""What a small document costs beyond the model's own time, in chunked runs: 200 documents of 5 images.

Overhead of a document = (time of the runs - time of the model alone on as many prepared images) / documents. The
model is measured before and after the runs, in full batches, in the same process.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from reporting import Bar, arguments, finish, machine, print_machine, print_table
from workload import installation, photographs, write_folder_document

BATCH = 20
IMAGES_PER_DOCUMENT = 5


def main() -> None:
    """Runs the benchmark."""
    args = arguments(__doc__).parse_args()
    documents = 40 if args.quick else 200
    facts = machine("torch", "open_clip_torch", "dagster", "psycopg2-binary")
    print_machine(facts)
    warnings.filterwarnings("ignore", module="dagster")
    with installation(SLIG_MODEL="demo") as settings:
        import dagster as dg

        from embedding_assets.definitions import build_defs
        from embedding_assets.defs.execution import partition_runs, run_job
        from embedding_assets.deploy.instance import apply_dagster_environment
        from embedding_assets.keys import DocumentKey
        from embedding_assets.pipeline.assembly import open_encoder
        from embedding_assets.store.database import open_database

        pictures = photographs(640, 480)
        keys = [DocumentKey("bench", f"small-{n:04d}") for n in range(documents)]
        for key in keys:
            folder = Path(settings.landing) / key.workspace_id / key.document_id
            write_folder_document(folder, IMAGES_PER_DOCUMENT, pictures)
        open_database(settings)
        apply_dagster_environment(settings)
        encoder = open_encoder(settings)
        ready = [encoder.prepare(picture) for picture in pictures[:BATCH]]
        encoder.encode_images(ready)

        def model_seconds() -> float:
            batches = documents * IMAGES_PER_DOCUMENT // BATCH
            start = time.perf_counter()
            for _ in range(batches):
                encoder.encode_images(ready)
            return time.perf_counter() - start

        rows = []
        with dg.DagsterInstance.get() as instance:
            defs = build_defs()
            before = model_seconds()
            seconds = {}
            for job in ("ingest_document", "embed_document"):
                start = time.perf_counter()
                for outcome in run_job(
                    defs, job, keys, instance, documents_per_run=settings.documents_per_run
                ):
                    if not outcome.success:
                        raise SystemExit(f"{job} failed: {outcome.reason}")
                seconds[job] = time.perf_counter() - start
            runs = len(partition_runs(instance, keys, settings.documents_per_run))
            done = instance.get_materialized_partitions(dg.AssetKey("slig_embeddings"))
            if len(done) != documents:
                raise SystemExit(f"{len(done)} of {documents} documents are materialized")
            model = (before + model_seconds()) / 2
        overhead = (seconds["embed_document"] - model) / documents
        rows = [
            {"what": "model alone", "seconds": model, "s/document": model / documents},
            {
                "what": f"slig_embeddings, {runs} runs",
                "seconds": seconds["embed_document"],
                "s/document": seconds["embed_document"] / documents,
            },
            {"what": "overhead of it", "seconds": overhead * documents, "s/document": overhead},
            {
                "what": f"document_images (ingest), {runs} runs",
                "seconds": seconds["ingest_document"],
                "s/document": seconds["ingest_document"] / documents,
            },
        ]
    print(f"\n{documents} documents of {IMAGES_PER_DOCUMENT} JPEGs of 640x480, demo model")
    print_table(rows)
    finish(
        {"machine": facts, "rows": rows},
        [Bar("overhead per document (s)", overhead, maximum=0.2)],
        args,
    )


if __name__ == "__main__":
    main()
