"""Building a model from its files, once per process.

What belongs here: from a `ModelSource` to a model on its device that is known to be sound. What does not:
finding files (`model_source`), choosing formats (`device`), using the model (`slig`).
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_assets.encoders.device import (
    Precision,
    SelfCheck,
    check_pictures,
    choose_device,
    choose_dtype,
    compare_formats,
)
from embedding_assets.encoders.device_errors import is_device_lost, is_out_of_memory
from embedding_assets.encoders.model_source import ModelSource, find_model
from embedding_assets.encoders.preprocessing import Preprocessing
from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.errors import InfrastructureError, ModelUnavailable

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_MEND = "fetch the weights again, or make the folder anew (docs/encoder.md says how)"


@dataclass(frozen=True)
class ModelRequest:
    """Everything that decides which model a process holds: equal requests share one."""

    model: str
    pretrained: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, ready to encode."""

    network: Any
    source: ModelSource
    preprocessing: Preprocessing
    dimension: int
    precision: Precision
    space: EmbeddingSpace

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        import torch

        return torch.device(self.precision.device)

    @property
    def dtype(self) -> torch.dtype:
        """The network's number format."""
        return _torch_dtype(self.precision.dtype)


_models: dict[object, LoadedModel] = {}
_locks: dict[ModelRequest, threading.Lock] = {}
_registry_lock = threading.Lock()


def load_model(request: ModelRequest, token: str | None = None) -> LoadedModel:
    """The model for a request: built by the first call in this process, shared by the others.

    Threads that ask at once wait for one another. A failed load is not remembered: the next call tries again.

    Args:
        request: which model, device and format.
        token: for gated repositories; not part of the request, so that it never reaches a log.

    Raises:
        ModelUnavailable: no weights, broken weights, or no memory for them.
        SettingsError: device or format can't be used here.
        InfrastructureError: the device failed while the model was moved to it.
    """
    with _registry_lock:
        lock = _locks.setdefault(request, threading.Lock())
    with lock:
        key = (request, _files_stamp(request.model), _files_stamp(request.pretrained))
        if key not in _models:
            _models[key] = _load(request, token)
        return _models[key]


def _files_stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Changes when local files of a model do, so that a retrained folder is not taken for the old one."""
    path = Path(name.removeprefix("local-dir:")).expanduser()
    if name.startswith("local-dir:") and path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    else:
        files = [path] if path.is_file() else []
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _load(request: ModelRequest, token: str | None) -> LoadedModel:
    started = time.perf_counter()
    device = choose_device(request.device)
    source = find_model(request.model, request.pretrained, token)
    try:
        network = _build(source)
        preprocessing = _preprocessing_of(network, source)
        network = network.to(device)
        network, precision = _in_best_format(network, preprocessing, request.dtype, device)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelUnavailable(
                f"{source.setting}: the model does not fit into the memory of {device}",
                hint="take a smaller model, or another EMBEDDING_ASSETS_SLIG_DEVICE",
            ) from error
        if is_device_lost(error):
            raise InfrastructureError(f"{device} failed while the model was moved to it: {error}") from error
        raise
    dimension = int(source.config["embed_dim"])
    space = EmbeddingSpace(
        model=source.identity_model,
        weights=source.identity_weights,
        preprocessing=preprocessing.describe(),
        dimension=dimension,
        label=source.label,
    )
    log.info("loaded %s in %.1f s: %s", space, time.perf_counter() - started, precision)
    return LoadedModel(network, source, preprocessing, dimension, precision, space)


def _build(source: ModelSource) -> Any:
    """The network in float32 on the CPU, in eval mode, with weights that are known to be numbers."""
    import open_clip
    import torch

    try:
        if source.weights_file is None:
            with torch.random.fork_rng(devices=[]), _without_random_weights_warning():
                torch.manual_seed(source.seed or 0)
                network = open_clip.create_model(source.open_clip_name, pretrained_text=False)
        else:
            named = not source.open_clip_name.startswith("local-dir:")
            network = open_clip.create_model(
                source.open_clip_name,
                pretrained=str(source.weights_file) if named else None,
                force_preprocess_cfg=dict(source.preprocessing),
                pretrained_text=False,
                require_pretrained=True,
            )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Whatever open_clip, safetensors, torch or transformers raise for broken, foreign or missing files.
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        raise ModelUnavailable(
            f"{source.setting}: {source.weights_file or source.open_clip_name} can't be loaded: "
            f"{type(error).__name__}: {' '.join(lines)[:300]}",
            hint=_MEND,
        ) from error
    for name, values in network.state_dict().items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            # Otherwise every image would be recorded as permanently failed.
            raise ModelUnavailable(
                f"{source.setting}: {source.weights_file} holds numbers that are not finite ({name})",
                hint=_MEND,
            )
    return network.eval().requires_grad_(False)


def _preprocessing_of(network: Any, source: ModelSource) -> Preprocessing:
    try:
        return Preprocessing.from_open_clip(network.visual.preprocess_cfg)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelUnavailable(
            f"{source.setting}: its preprocess_cfg can't be used: {error}", hint=_MEND
        ) from error


def _in_best_format(
    network: Any, preprocessing: Preprocessing, setting: str, device: torch.device
) -> tuple[Any, Precision]:
    import torch

    candidates: dict[str, Any] = {}

    def check(name: str) -> SelfCheck:
        # A processor takes seconds per picture; a GPU needs a batch to show what it can do.
        pictures = check_pictures(
            16 if device.type == "cuda" else 2, preprocessing.height, preprocessing.width
        )
        prepared = [torch.from_numpy(picture) for picture in pictures]
        candidates[name] = copy.deepcopy(network).to(_torch_dtype(name))
        return compare_formats(
            _encoding(network, preprocessing, prepared, device, torch.float32),
            _encoding(candidates[name], preprocessing, prepared, device, _torch_dtype(name)),
        )

    precision = choose_dtype(setting, device, check)
    return candidates.get(precision.dtype, network), precision


def _encoding(
    network: Any,
    preprocessing: Preprocessing,
    prepared: list[torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[], Vectors]:
    import torch

    def encode() -> Vectors:
        with torch.inference_mode():
            features = network.encode_image(preprocessing.batch(prepared, device, dtype))
        vectors: Vectors = features.float().cpu().numpy().astype(np.float32, copy=False)
        return vectors

    return encode


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


@contextmanager
def _without_random_weights_warning() -> Iterator[None]:
    """open_clip warns of random weights on the root logger; here they were asked for, and said so already."""

    def keep(record: logging.LogRecord) -> bool:
        return "Model initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
