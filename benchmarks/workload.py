"""What the pipeline benchmarks share: a throwaway installation, and documents of as many images as wanted."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from embedding_assets.settings import PREFIX, Settings, load_settings

BASE_IMAGES = 40
"""Different pictures; further images are these with another JPEG comment, so that every one has bytes of its own."""


@contextmanager
def installation(**variables: str) -> Iterator[Settings]:
    """Settings of a throwaway installation: embedded Postgres, Dagster instance and folders in a temporary folder.

    Args:
        variables: further settings by name, in capitals and without prefix.
    """
    for name in list(os.environ):
        if name.startswith((PREFIX, "DAGSTER_")) or name == "DATABASE_URL":
            del os.environ[name]
    with TemporaryDirectory(prefix="embedding-assets-benchmark-") as folder:
        os.environ[f"{PREFIX}VAR_DIR"] = folder
        os.environ.update({f"{PREFIX}{name}": value for name, value in variables.items()})
        yield load_settings()


def photographs(width: int, height: int, seed: int = 0) -> list[bytes]:
    """JPEGs with structure at every scale, as photographs have: smooth noise of octaves, quality 90."""
    generator = np.random.default_rng(seed)
    pictures = []
    for _ in range(BASE_IMAGES):
        canvas = np.zeros((height, width, 3), np.float32)
        for octave in range(2, 9):
            noise = generator.random((2**octave, 2**octave, 3), dtype=np.float32) * 255
            layer = Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
            canvas += np.asarray(layer, np.float32) / 2 ** (octave - 1)
        buffer = BytesIO()
        Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    return pictures


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same picture with other bytes: a COM segment after the start marker (ITU-T T.81, B.2.4.5)."""
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def write_folder_document(folder: Path, count: int, pictures: list[bytes], tag: str = "") -> None:
    """A folder of `count` JPEGs, no two with the same bytes."""
    folder.mkdir(parents=True)
    for n in range(count):
        comment = f"{tag}{folder.name}-{n}-{random.Random(n).random()}".encode()
        (folder / f"{n:05d}.jpg").write_bytes(with_comment(pictures[n % len(pictures)], comment))
