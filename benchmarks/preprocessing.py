"""Decoding and preprocessing: this project's against open_clip's own transform, and threads beside a model.

    python benchmarks/preprocessing.py [--quick] [--json FILE]

Prints the machine and versions, then two tables. The first: from JPEG bytes to what the model takes, processor
time per picture and pictures per second by variant and decode threads, and how far the vectors are from those
of open_clip's transform (cosine, and centred cosine: after subtracting the mean vector, which shows what a
plain cosine hides). The second: files to vectors with a ViT-B-32 (random weights: speed does not depend on
them), by number of decode threads and torch threads, beside the model alone on prepared tensors.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL
import torch
import torchvision
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from embedding_assets.encoders.decode_ahead import prepare_ahead
from embedding_assets.encoders.preprocessing import Preprocessing
from embedding_assets.encoders.slig import OpenClipEncoder

BATCH = 20


def pictures(count: int, width: int = 1025, height: int = 768) -> list[bytes]:
    """JPEGs with smooth areas, edges and noise; fixed by seed."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    files = []
    for _ in range(count):
        scale = rng.uniform(0.3, 3.0, (3, 3))
        channels = [
            90
            + 60 * np.sin(x / (9 * a))
            + 50 * np.cos(y / (14 * b) + x / 31)
            + 60 * (((x // (40 * c)) + y // 31) % 2)
            for a, b, c in scale
        ]
        pixels = np.stack(channels, axis=-1) + rng.normal(0, 6, (height, width, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def rate(function: Callable[[bytes], Any], files: list[bytes], threads: int) -> float:
    """Pictures per second, best of three passes over the files."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, files[:threads]))
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            list(pool.map(function, files))
            seconds.append(time.perf_counter() - started)
    return len(files) / min(seconds)


def cpu_milliseconds(function: Callable[[bytes], Any], files: list[bytes]) -> float:
    """Processor time per picture, all threads of the process together: hardly depends on what else runs."""
    function(files[0])
    started = time.process_time()
    for data in files:
        function(data)
    return (time.process_time() - started) / len(files) * 1000


def cosines(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    centre = theirs.mean(dim=0)
    plain = torch.nn.functional.cosine_similarity(ours, theirs).min()
    centred = torch.nn.functional.cosine_similarity(ours - centre, theirs - centre).min()
    return float(plain), float(centred)


def compare_variants(files: list[bytes], network: Any, size: int, resize_mode: str) -> list[dict[str, Any]]:
    config = PreprocessCfg(size=size, resize_mode=resize_mode)
    ours, theirs = Preprocessing.from_open_clip(vars(config)), image_transform_v2(config, is_train=False)
    variants: dict[str, Callable[[bytes], Any]] = {
        "decode only": lambda data: decode(data).load(),
        "open_clip's transform": lambda data: theirs(decode(data)),
        "this project": lambda data: ours.prepare(decode(data)),
    }
    rows = [
        {
            "variant": name,
            "size": f"{size} {resize_mode}",
            "CPU ms": cpu_milliseconds(function, files),
            **{f"{threads} thread{'s'[: threads - 1]}": rate(function, files, threads) for threads in (1, 2)},
        }
        for name, function in variants.items()
    ]
    if size == 224:
        some = files[:BATCH]
        with torch.inference_mode():
            reference = network.encode_image(torch.stack([theirs(decode(data)) for data in some]))
            pixels = ours.batch(
                [ours.prepare(decode(data)) for data in some], torch.device("cpu"), torch.float32
            )
            rows[-1]["cosine"], rows[-1]["centred"] = cosines(network.encode_image(pixels), reference)
    return rows


def compare_threads(files: list[bytes], encoder: OpenClipEncoder) -> list[dict[str, Any]]:
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    prepared = [encoder.prepare(data) for data in files[:BATCH]]
    cores = os.cpu_count() or 1
    rows = []
    for torch_threads in sorted({1, cores}):
        torch.set_num_threads(torch_threads)
        encoder.encode_images(prepared)
        started = time.perf_counter()
        for _ in batches:
            encoder.encode_images(prepared)
        alone = len(batches) * BATCH / (time.perf_counter() - started)
        for decode_threads in sorted({1, cores, 2 * cores}):
            started = time.perf_counter()
            done = 0
            for batch in prepare_ahead(batches, encoder.prepare, decode_threads):
                done += len(encoder.encode_images(batch))
            rows.append(
                {
                    "torch threads": torch_threads,
                    "decode threads": decode_threads,
                    "images/s": done / (time.perf_counter() - started),
                    "model alone": alone,
                }
            )
    torch.set_num_threads(cores)
    return rows


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, open_clip, PIL)}
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **versions,
    }


def show(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        cells = []
        for name in names:
            value = row.get(name, "")
            digits = 5 if name in {"cosine", "centred"} else 1
            cells.append(f"{value:.{digits}f}" if isinstance(value, float) else str(value))
        print("| " + " | ".join(cells) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pictures: about half a minute")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()), "\n")
    files = pictures(40 if options.quick else 200)
    encoder = OpenClipEncoder("ViT-B-32", "random", decode=decode, device="cpu", dtype="float32")
    network = open_clip.create_model("ViT-B-32").eval()
    variants = [
        row
        for size, mode in ((224, "shortest"), (512, "squash"))
        for row in compare_variants(files[:100], network, size, mode)
    ]
    del network
    show(variants)
    threads = compare_threads(files, encoder)
    show(threads)
    if options.json:
        result = {"machine": about, "preprocessing": variants, "threads": threads}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
