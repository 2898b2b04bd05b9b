from __future__ import annotations

import pytest
import torch

from embedding_assets.encoders.device_errors import device_errors
from embedding_assets.errors import InfrastructureError, TooLargeError


class AcceleratorError(RuntimeError):
    """Named as torch's own, which older versions do not have."""


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: 12 bytes"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:20],
)
def test_exhausted_memory_asks_for_a_smaller_batch(error: BaseException) -> None:
    with pytest.raises(TooLargeError, match="20 images do not fit into the memory of cpu"):  # noqa: SIM117
        with device_errors("cpu", 20, "images"):
            raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        AcceleratorError("CUDA error: unspecified launch failure"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_lost_device_is_nobodys_fault_among_the_images(error: Exception) -> None:
    with pytest.raises(InfrastructureError, match="cpu failed while encoding 3 texts"):  # noqa: SIM117
        with device_errors("cpu", 3, "texts"):
            raise error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shape") as caught:  # noqa: SIM117
        with device_errors("cpu", 3, "texts"):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert type(caught.value) is RuntimeError


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(TooLargeError):  # noqa: SIM117
        with device_errors("cpu", 1, "images"):
            torch.empty(2**60, dtype=torch.uint8)
