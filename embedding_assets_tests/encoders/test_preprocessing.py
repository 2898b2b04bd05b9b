from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from embedding_assets.encoders.preprocessing import Preprocessing
from embedding_assets_tests.encoders.conftest import picture

MODES: list[dict[str, Any]] = [
    {"size": 224, "resize_mode": "shortest", "interpolation": "bicubic"},
    {"size": 64, "resize_mode": "shortest", "interpolation": "bilinear"},
    {"size": (96, 160), "resize_mode": "shortest", "interpolation": "bicubic"},
    {"size": (96, 160), "resize_mode": "shortest", "interpolation": "bilinear"},
    {"size": 256, "resize_mode": "squash", "interpolation": "bicubic"},
    {"size": (64, 128), "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": 128, "resize_mode": "longest", "interpolation": "bicubic", "fill_color": 255},
    {"size": (96, 160), "resize_mode": "longest", "interpolation": "bilinear", "fill_color": 7},
]
SIZES = [(64, 64), (65, 97), (641, 479), (333, 1001), (700, 523), (900, 226), (66, 1100)]


def ours_and_open_clips(settings: dict[str, Any], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    config = PreprocessCfg(**settings)
    image = picture(*size, seed=sum(size))
    preprocessing = Preprocessing.from_open_clip(vars(config))
    ours = preprocessing.batch([preprocessing.prepare(image)], torch.device("cpu"), torch.float32)[0]
    return ours, image_transform_v2(config, is_train=False)(image)


@pytest.mark.parametrize("settings", MODES, ids=lambda mode: f"{mode['resize_mode']}-{mode['size']}")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_model_sees_what_open_clips_own_transform_would_show_it(
    settings: dict[str, Any], size: tuple[int, int]
) -> None:
    ours, theirs = ours_and_open_clips(settings, size)
    assert ours.shape == theirs.shape
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.9999
    # 0.27: about the standard deviation that open_clip divides by; so these are differences in 0..255
    levels = (ours - theirs).abs() * 0.27 * 255
    assert levels.mean() < 0.3
    assert (levels > 1.5).float().mean() < 0.01  # more than rounding only in single pixels at steep edges
    assert levels.max() < 10


def test_prepared_pictures_are_small_and_contiguous() -> None:
    prepared = Preprocessing(224, 224, (0.5,) * 3, (0.5,) * 3).prepare(picture(640, 480))
    assert prepared.dtype == torch.uint8
    assert prepared.shape == (3, 224, 224)
    assert prepared.is_contiguous()
    assert prepared.untyped_storage().nbytes() == 3 * 224 * 224


def test_a_very_long_strip_is_cropped_before_it_is_enlarged() -> None:
    import tracemalloc

    strip = picture(40_000, 16)
    preprocessing = Preprocessing(224, 224, (0.5,) * 3, (0.5,) * 3)
    tracemalloc.start()
    try:
        assert preprocessing.prepare(strip).shape == (3, 224, 224)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20  # 224 x 560,000 pixels would be 376 MB


def test_a_strip_thinner_than_a_pixel_after_resizing_keeps_one_pixel() -> None:
    preprocessing = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3, resize_mode="longest")
    assert preprocessing.prepare(picture(4000, 10)).shape == (3, 32, 32)


def test_grey_pictures_become_rgb() -> None:
    preprocessing = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3)
    assert preprocessing.prepare(picture(50, 40).convert("L")).shape == (3, 32, 32)


def test_the_description_changes_with_every_part() -> None:
    one = Preprocessing(32, 48, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic", "longest", 0)
    others = [
        replace(one, height=33),
        replace(one, width=49),
        replace(one, mean=(0.5, 0.4, 0.30001)),
        replace(one, std=(0.2, 0.2, 0.21)),
        replace(one, interpolation="bilinear"),
        replace(one, resize_mode="squash"),
        replace(one, fill_color=255),
    ]
    assert len({preprocessing.describe() for preprocessing in [one, *others]}) == 8
    assert one.describe().endswith("exif,rgb-on-white v1")


def test_a_mode_that_open_clip_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="resize_mode='stretch'"):
        Preprocessing.from_open_clip({"size": 32, "mean": 0.5, "std": 0.5, "resize_mode": "stretch"})


def test_one_mean_for_all_channels_is_spread() -> None:
    preprocessing = Preprocessing.from_open_clip({"size": [32], "mean": 0.5, "std": 0.25})
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert preprocessing.std == (0.25, 0.25, 0.25)
    assert (preprocessing.height, preprocessing.width) == (32, 32)
    black = torch.zeros(3, 32, 32, dtype=torch.uint8)
    assert torch.equal(
        preprocessing.batch([black], torch.device("cpu"), torch.float32), torch.full((1, 3, 32, 32), -2.0)
    )
