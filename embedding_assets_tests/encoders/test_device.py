from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedding_assets.encoders.device import (
    SelfCheck,
    check_pictures,
    choose_device,
    choose_dtype,
    compare_formats,
    cpu_has_bfloat16,
)
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import SettingsError

CPU = torch.device("cpu")


def bfloat16_candidate(_: torch.device) -> tuple[str | None, str]:
    return "bfloat16", "it is there"


@pytest.mark.parametrize(
    ("found", "dtype", "reason"),
    [
        (SelfCheck(cosine=0.9995, speedup=2.0), "bfloat16", "2.00 times as fast"),
        (SelfCheck(cosine=0.9985, speedup=2.0), "float32", "not close enough"),
        (SelfCheck(cosine=0.9995, speedup=0.12), "float32", "not faster"),
        (SelfCheck(cosine=float("nan"), speedup=9.0), "float32", "not close enough"),
    ],
)
def test_auto_takes_a_shorter_format_only_if_it_is_close_and_faster(
    found: SelfCheck, dtype: str, reason: str
) -> None:
    precision = choose_dtype("auto", CPU, lambda _: found, bfloat16_candidate)
    assert precision.dtype == dtype
    assert reason in precision.reason


def test_auto_stays_with_float32_where_the_device_has_nothing_shorter() -> None:
    def check(name: str) -> SelfCheck:
        raise AssertionError("nothing to check")

    precision = choose_dtype("auto", CPU, check, lambda _: (None, "the processor has neither"))
    assert (precision.dtype, precision.reason) == ("float32", "the processor has neither")


def test_auto_stays_with_float32_where_the_shorter_format_breaks() -> None:
    def check(name: str) -> SelfCheck:
        raise RuntimeError("not implemented for 'BFloat16'")

    precision = choose_dtype("auto", CPU, check, bfloat16_candidate)
    assert precision.dtype == "float32"
    assert "not implemented" in precision.reason


def test_a_format_asked_for_by_name_is_taken_however_far_off_and_slow() -> None:
    precision = choose_dtype("bfloat16", CPU, lambda _: SelfCheck(cosine=0.9, speedup=0.1))
    assert precision.dtype == "bfloat16"
    assert "0.90000" in precision.reason
    assert choose_dtype("float32", CPU, lambda _: pytest.fail("needs no check")).dtype == "float32"


def test_a_format_asked_for_by_name_that_gives_no_numbers_is_refused_with_the_settings_name() -> None:
    with pytest.raises(SettingsError, match=r"EMBEDDING_ASSETS_SLIG_DTYPE=float16.*non-finite"):
        choose_dtype("float16", CPU, lambda _: SelfCheck(cosine=float("nan"), speedup=1.0))


def test_the_comparison_reports_the_worst_cosine_and_the_best_of_two_times() -> None:
    exact = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    tilted = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    times = iter([0.0, 5.0, 10.0, 14.0, 20.0, 23.0, 30.0, 32.0])  # float32: 5 and 4 s; the other: 3 and 2 s
    found = compare_formats(lambda: exact, lambda: tilted, clock=lambda: next(times))
    assert found.cosine == pytest.approx(0.8)
    assert found.speedup == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_the_comparison_reports_vectors_without_direction_as_nan(bad: float) -> None:
    def broken() -> Vectors:
        return np.array([[1.0, 0.0], [bad, bad]], dtype=np.float32)

    assert np.isnan(compare_formats(lambda: np.eye(2, dtype=np.float32), broken).cosine)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f avx512_bf16", True), ("fpu amx_tile amx_bf16", True), ("fpu avx2 avx512f", False)],
)
def test_bfloat16_is_known_by_the_processors_flags(flags: str, expected: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n")
    assert cpu_has_bfloat16(cpuinfo) is expected


def test_a_machine_that_does_not_tell_its_flags_has_no_bfloat16(tmp_path: Path) -> None:
    assert cpu_has_bfloat16(tmp_path / "missing") is False


def test_the_check_pictures_are_the_same_every_time_and_differ_from_one_another() -> None:
    pictures = check_pictures(4, 48, 32)
    assert pictures.shape == (4, 3, 48, 32)
    assert np.array_equal(pictures, check_pictures(4, 48, 32))
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("setting", ["cuda:7", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused_with_the_settings_name(setting: str) -> None:
    with pytest.raises(SettingsError, match=f"EMBEDDING_ASSETS_SLIG_DEVICE='{setting}'"):
        choose_device(setting)


def test_auto_finds_a_device() -> None:
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    assert choose_device("cpu") == CPU
