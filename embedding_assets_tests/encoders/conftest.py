"""A tiny model in a folder, as a user would have one: real files, real loading code, random weights."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TINY_PREPROCESSING: dict[str, Any] = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.5, 0.25, 0.2],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Something like a photograph: smooth areas, edges, fine texture and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = []
    for _ in range(3):
        a, b, c = rng.uniform(0.3, 2.0, 3)
        waves = 60 * np.sin(x / (9 * a)) + 50 * np.cos(y / (14 * b) + x / 31)
        edges = 70.0 * (((x // (23 * c)) + (y // 17)) % 2)
        channels.append(90 + waves + edges + rng.normal(0, 8, x.shape))
    return Image.fromarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in open_clip's local-dir: layout. Read only: copy it with `copy_of` to change it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = open_clip.CLIP(**TINY_CONFIG)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY_CONFIG, "preprocess_cfg": TINY_PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def change_config(folder: Path, part: str, **values: Any) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config[part].update(values)
    path.write_text(json.dumps(config))
