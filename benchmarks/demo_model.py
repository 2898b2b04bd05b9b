"""How well the shipped demo model finds swatches of combinations that its training never showed.

    python benchmarks/demo_model.py [--quick] [--check] [--json FILE] [--model DIR]

Draws 200 held-out swatches, all of different captions, and searches them by their complete caption. `--check` exits
with 1 when recall@1 is under 0.80 or recall@5 under 0.95. `--quick` takes 50 images, for a look rather than a figure.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from embedding_assets.demo import demo_model_path
from embedding_assets.demo.evaluation import (
    EVALUATION_IMAGES,
    REQUIRED_RECALL_AT_1,
    REQUIRED_RECALL_AT_5,
    evaluate,
)

QUICK_IMAGES = 50


def main() -> int:
    """Measure, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description="Held-out recall of the demo model")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the promised recall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="another local-dir: model (default: as shipped)"
    )
    arguments = parser.parse_args()

    folder = arguments.model or demo_model_path()
    began = time.monotonic()
    scores = evaluate(folder, images=QUICK_IMAGES if arguments.quick else EVALUATION_IMAGES)
    seconds = time.monotonic() - began
    size = sum(file.stat().st_size for file in folder.iterdir())
    versions = {
        name: version(name)
        for name in ("torch", "open_clip_torch", "timm", "transformers", "pillow", "numpy")
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"

    rows = [
        (
            f"recall@1 of {scores.images} held-out images",
            f"{scores.recall_at_1:.3f}",
            f">= {REQUIRED_RECALL_AT_1}",
        ),
        (
            f"recall@5 of {scores.images} held-out images",
            f"{scores.recall_at_5:.3f}",
            f">= {REQUIRED_RECALL_AT_5}",
        ),
        *((f"accuracy of {name}", f"{value:.3f}", "") for name, value in scores.attribute_accuracy.items()),
        ("files, MB", f"{size / 1e6:.2f}", "<= 10"),
        ("seconds, drawing included", f"{seconds:.1f}", ""),
    ]
    print("| measure | value | promised |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(
        f"\nmachine: {machine}\nversions: "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
    )

    if arguments.json:
        record = {
            **asdict(scores),
            "bytes": size,
            "seconds": seconds,
            "machine": machine,
            "versions": versions,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if arguments.check and not scores.passed:
        print("recall is below what the demo promises", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
