"""What torch's errors mean to a batch: too large, or the device is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedding_assets.errors import InfrastructureError, TooLargeError

_OUT_OF_MEMORY_TYPES = {"OutOfMemoryError", "CUDAOutOfMemoryError"}
# torch has no class of its own for these: CPU allocator (c10/core/CPUAllocator.cpp, two wordings), CUDA and MPS
# allocators, and the libraries that allocate for themselves.
_OUT_OF_MEMORY_TEXTS = (
    "defaultcpuallocator",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_DEVICE_TEXTS = (
    "cuda error",
    "cublas_status",
    "cudnn_status",
    "cudnn error",
    "hip error",
    "mps backend",
    "nvml",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory, of the device or the machine, ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY_TYPES:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY_TEXTS)


def is_device_lost(error: BaseException) -> bool:
    """Whether the error is the accelerator's own, so that no image is to blame."""
    if type(error).__name__ == "AcceleratorError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _DEVICE_TEXTS)


@contextmanager
def device_errors(device: str, count: int, what: str) -> Iterator[None]:
    """Raises torch's errors as errors of this package.

    Args:
        device: where the model runs, for the message.
        count: items in the batch.
        what: what they are ("images", "texts").

    Raises:
        TooLargeError: memory ran out; torch's cached device memory was given back first.
        InfrastructureError: the device reported a fault of its own.
    """
    too_large: str | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            if is_device_lost(error):
                raise InfrastructureError(
                    f"{device} failed while encoding {count} {what}: {_first_line(error)}",
                    hint="after a CUDA error the process can't use the device any more: start it again, and look "
                    "at nvidia-smi or dmesg if it comes back",
                ) from error
            raise
        too_large = _first_line(error)
    if too_large is not None:
        # Raised outside the except block: the error's traceback would keep the tensors of the failed attempt.
        _give_back_memory(device)
        raise TooLargeError(
            f"{count} {what} do not fit into the memory of {device}: {too_large}",
            hint="lower EMBEDDING_ASSETS_BATCH_SIZE, or take a smaller model",
        )


def _give_back_memory(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
