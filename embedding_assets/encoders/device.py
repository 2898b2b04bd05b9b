"""Which device a model runs on and in which number format, and the self-check that decides `auto`.

What belongs here: the choice and its reasons. What does not: loading of models (`loading`), and what to do when
the device fails (`device_errors`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import SettingsError

if TYPE_CHECKING:
    import torch

MIN_COSINE = 0.999
"""Cosine to float32 that every vector of the self-check must keep for `auto` to take a shorter format."""

MIN_SPEEDUP = 1.1
"""Times faster than float32 that a shorter format must be: a gain within timing noise is none."""

_CPU_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_DEVICE_SETTING = "EMBEDDING_ASSETS_SLIG_DEVICE"
_DTYPE_SETTING = "EMBEDDING_ASSETS_SLIG_DTYPE"


@dataclass(frozen=True)
class SelfCheck:
    """What a shorter number format does to a model, against float32 on the same pictures.

    Attributes:
        cosine: the smallest cosine between the vectors of one picture; NaN where a number was not finite.
        speedup: seconds in float32 / seconds in the shorter format.
    """

    cosine: float
    speedup: float


@dataclass(frozen=True)
class Precision:
    """The device and number format that a model runs with, and why.

    Attributes:
        device: as torch names it ("cpu", "cuda:0").
        dtype: "float32", "bfloat16" or "float16".
        reason: one sentence for logs and people.
    """

    device: str
    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.dtype} on {self.device} ({self.reason})"


def choose_device(setting: str) -> torch.device:
    """The device for a setting: `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        SettingsError: no such device, or this machine or this build of torch does not have it.
    """
    import torch

    if setting == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(setting)
        if device.type != "meta":  # meta tensors hold no numbers
            torch.empty(1, device=device)
            return device
        problem = "it holds no numbers"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = (str(error).strip().splitlines() or ["not available"])[0][:200]
    raise SettingsError(
        f"{_DEVICE_SETTING}={setting!r} can't be used here: {problem}",
        hint=f"set {_DEVICE_SETTING} to auto, cpu, cuda, cuda:<n> or mps",
    )


@lru_cache(maxsize=1)
def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself (avx512_bf16 or amx_bf16); False where it can't be told.

    Without these, torch emulates bfloat16: 8 times slower than float32 (ViT-B-32, AVX2 processor).
    """
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return bool(_CPU_BF16_FLAGS & set(line.split()))
    except OSError:
        pass
    return False


def candidate_dtype(device: torch.device) -> tuple[str | None, str]:
    """The shorter number format that is worth a self-check on a device, if any, and why (not)."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if bfloat16 else ("float16", "the GPU has no bfloat16")
    if device.type == "cpu":
        if cpu_has_bfloat16():
            return "bfloat16", "the processor has it"
        return None, "the processor has neither avx512_bf16 nor amx_bf16"
    return None, f"no shorter format is tried on {device.type}"


def choose_dtype(
    setting: str,
    device: torch.device,
    check: Callable[[str], SelfCheck],
    candidate: Callable[[torch.device], tuple[str | None, str]] = candidate_dtype,
) -> Precision:
    """The number format for a setting, with its reason.

    Args:
        setting: "auto", "float32", "bfloat16" or "float16".
        device: where the model runs.
        check: compares a format with float32 on this model and device; called at most once.
        candidate: the format to try on a device under `auto`.

    Raises:
        SettingsError: the format was asked for by name, and the model gives no finite numbers in it, or the
            device can't compute in it.
    """
    if setting == "float32":
        return Precision(str(device), setting, f"{_DTYPE_SETTING} says so")
    if setting != "auto":
        try:
            found = check(setting)
        except (RuntimeError, NotImplementedError) as error:
            raise SettingsError(
                f"{_DTYPE_SETTING}={setting}: {device} can't run this model in it: {str(error)[:200]}",
                hint=f"set {_DTYPE_SETTING}=auto",
            ) from error
        if math.isnan(found.cosine):
            raise SettingsError(
                f"{_DTYPE_SETTING}={setting}: the model gives non-finite numbers in it on {device}",
                hint=f"set {_DTYPE_SETTING}=auto or float32",
            )
        return Precision(
            str(device), setting, f"{_DTYPE_SETTING} says so; cosine to float32 {found.cosine:.5f}"
        )
    name, why = candidate(device)
    if name is None:
        return Precision(str(device), "float32", why)
    try:
        found = check(name)
    except (RuntimeError, NotImplementedError) as error:
        return Precision(str(device), "float32", f"{name} failed its self-check: {str(error)[:120]}")
    measured = f"cosine to float32 {found.cosine:.5f}, {found.speedup:.2f} times as fast"
    if not found.cosine >= MIN_COSINE:
        return Precision(
            str(device), "float32", f"{name} is not close enough: {measured}, {MIN_COSINE} needed"
        )
    if not found.speedup >= MIN_SPEEDUP:
        return Precision(str(device), "float32", f"{name} is not faster: {measured}, {MIN_SPEEDUP} needed")
    return Precision(str(device), name, f"{why}; self-check: {measured}")


def compare_formats(
    reference: Callable[[], Vectors],
    candidate: Callable[[], Vectors],
    clock: Callable[[], float] = time.perf_counter,
) -> SelfCheck:
    """Runs a model in float32 and in another format on the same pictures, each once cold and twice timed.

    Args:
        reference, candidate: encode the pictures; float32, shape (n, dimension), not necessarily normalised.
        clock: seconds, monotonic.
    """

    def timed(encode: Callable[[], Vectors]) -> tuple[NDArray[np.float64], float]:
        vectors = encode()
        seconds = []
        for _ in range(2):
            started = clock()
            vectors = encode()
            seconds.append(clock() - started)
        return np.asarray(vectors, dtype=np.float64), min(seconds)

    expected, slow = timed(reference)
    found, fast = timed(candidate)
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        cosine = float(np.min((expected * found).sum(axis=1) / norms))  # np.min keeps a NaN
    return SelfCheck(cosine=cosine if math.isfinite(cosine) else math.nan, speedup=slow / max(fast, 1e-9))


def check_pictures(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Fixed pictures with structure, for the self-check: uint8, shape (count, 3, height, width).

    Gradients, stripes and checks of different scales with noise on top: a model's vectors of them differ more
    from one another than those of plain noise.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    pictures = np.empty((count, 3, height, width), dtype=np.uint8)
    for index in range(count):
        period = 2.0 ** (1 + index % 5)
        patterns = (
            x * (1 - y),
            0.5 + 0.5 * np.sin(2 * np.pi * period * (x + 0.5 * y)),
            ((np.floor(period * x) + np.floor(period * y)) % 2).astype(np.float32),
        )
        for channel in range(3):
            values = patterns[(index + channel) % 3] * rng.uniform(0.4, 1.0) + rng.normal(0, 0.05, x.shape)
            pictures[index, channel] = (values.clip(0, 1) * 255).astype(np.uint8)
    return pictures
