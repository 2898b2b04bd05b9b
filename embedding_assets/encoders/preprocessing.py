"""From a decoded picture to the numbers that a model sees, exactly as open_clip does it, only faster.

open_clip resizes with Pillow; this resizes with torchvision's antialiased uint8 kernels, which came from
Pillow's algorithm and differ by rounding only (docs/encoder.md has the measurement). Pictures stay uint8 until
the batch is on the device: a quarter of the memory while they wait, and of the bytes to copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

DECODING = "exif,rgb-on-white v1"
"""How bytes become pixels before anything here: EXIF orientation applied, alpha laid on white, RGB."""

ELONGATED = 4.0
"""From this ratio of sides on, "shortest" resizes only the part that its centre crop keeps. Resizing all of a
64 x 1,500,000 picture to 224 pixels of height would take 3.5 GB to crop 224 columns from."""


@dataclass(frozen=True)
class Preprocessing:
    """One model's preprocessing, with open_clip's names for its parts.

    Attributes:
        height, width: what the model takes, in pixels.
        mean, std: per channel, on values from 0 to 1.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "squash" (both sides to size), "shortest" (short side to size, centre crop) or "longest"
            (long side to size, padded with `fill_color`).
        fill_color: 0..255, used by "longest".
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Reads `model.visual.preprocess_cfg` of an open_clip model.

        Raises:
            ValueError: a mode or interpolation that open_clip 3 does not have.
        """
        size = config["size"]
        height, width = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[-1]))
        interpolation = str(config.get("interpolation") or "bicubic")
        # open_clip's inference transform takes "random" for bicubic (open_clip/transform.py, image_transform)
        interpolation = "bicubic" if interpolation == "random" else interpolation
        resize_mode = str(config.get("resize_mode") or "shortest")
        if interpolation not in {"bicubic", "bilinear"} or resize_mode not in {
            "squash",
            "shortest",
            "longest",
        }:
            raise ValueError(f"unknown preprocessing: resize_mode={resize_mode!r}, {interpolation=}")
        return cls(
            height,
            width,
            _three(config["mean"]),
            _three(config["std"]),
            interpolation,
            resize_mode,
            int(config.get("fill_color") or 0),
        )

    def describe(self) -> str:
        """The part of the embedding space that this is: a text that changes whenever a vector would."""
        numbers = "; ".join(
            f"{name} {','.join(f'{value:.8g}' for value in values)}"
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        fill = f" fill {self.fill_color}" if self.resize_mode == "longest" else ""
        size = f"{self.width}x{self.height}"
        return f"{size} {self.resize_mode}{fill} {self.interpolation}; {numbers}; {DECODING}"

    def prepare(self, image: Image) -> torch.Tensor:
        """Resizes, crops or pads one picture. Safe in several threads at once.

        Args:
            image: RGB, any size.

        Returns:
            uint8, shape (3, height, width), contiguous, on the CPU.
        """
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        if image.mode != "RGB":
            image = image.convert("RGB")
        rows, columns = self._resized(image.height, image.width)
        if self.resize_mode == "shortest" and max(rows / self.height, columns / self.width) >= ELONGATED:
            return self._resize_centre(image, rows, columns)
        # A channels-last view: the uint8 kernels are fastest on it, and nothing is copied.
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        resized = functional.resize(
            pixels, [rows, columns], interpolation=InterpolationMode(self._interpolation()), antialias=True
        ).numpy()
        # In numpy, not torch: torch would spread so small a copy over its threads, and from several decode
        # threads that costs three times what the resize does.
        if self.resize_mode == "shortest":
            top, left = _centre(rows, self.height), _centre(columns, self.width)
            resized = resized[:, top : top + self.height, left : left + self.width]
        elif (rows, columns) != (self.height, self.width):
            padded = np.full((3, self.height, self.width), self.fill_color, dtype=np.uint8)
            top, left = (self.height - rows) // 2, (self.width - columns) // 2
            padded[:, top : top + rows, left : left + columns] = resized
            resized = padded
        return torch.from_numpy(np.ascontiguousarray(resized))

    def batch(
        self, prepared: Sequence[torch.Tensor], device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Stacks prepared pictures, moves them to the device and normalises them there.

        Args:
            prepared: uint8, shape (3, height, width) each, from `prepare`.

        Returns:
            `dtype`, shape (len(prepared), 3, height, width), on `device`. The arithmetic is open_clip's
            (float32: divide by 255, subtract mean, divide by std), so the numbers are the same.
        """
        import torch

        stacked = torch.stack(list(prepared))
        if device.type == "cuda":  # a copy from pinned memory need not be waited for
            stacked = stacked.pin_memory()
        pixels = stacked.to(device, non_blocking=device.type == "cuda").to(torch.float32).div_(255.0)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=device).view(3, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=device).view(3, 1, 1)
        return pixels.sub_(mean).div_(std).to(dtype)

    def _interpolation(self) -> str:
        # open_clip's "shortest" for a size that is not square ignores the configured interpolation
        if self.resize_mode == "shortest" and self.height != self.width:
            return "bicubic"
        return self.interpolation

    def _resized(self, rows: int, columns: int) -> tuple[int, int]:
        """Sides after the resize, before crop or padding; open_clip's and torchvision's rounding."""
        if self.resize_mode == "squash":
            return self.height, self.width
        if self.resize_mode == "shortest" and self.height == self.width:
            short, long = sorted((rows, columns))
            new_long = int(self.height * long / short)
            return (self.height, new_long) if rows <= columns else (new_long, self.width)
        pick = max if self.resize_mode == "longest" else min
        ratio = pick(rows / self.height, columns / self.width)
        return max(1, round(rows / ratio)), max(1, round(columns / ratio))

    def _resize_centre(self, image: Image, rows: int, columns: int) -> torch.Tensor:
        """The centre crop of a picture resized to rows x columns, without making the rest of it."""
        import torch
        from PIL.Image import Resampling

        top, left = _centre(rows, self.height), _centre(columns, self.width)
        across, down = image.width / columns, image.height / rows
        box = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
        method = Resampling.BILINEAR if self._interpolation() == "bilinear" else Resampling.BICUBIC
        box = (box[0], box[1], min(box[2], image.width), min(box[3], image.height))
        centre = image.resize((self.width, self.height), method, box=box)
        return torch.from_numpy(np.array(centre).transpose(2, 0, 1).copy())


def _centre(outer: int, inner: int) -> int:
    """Where a centre crop begins, with torchvision's rounding."""
    return round((outer - inner) / 2.0)


def _three(value: Any) -> tuple[float, float, float]:
    if isinstance(value, int | float):
        return float(value), float(value), float(value)
    first, second, third = (float(number) for number in value)
    return first, second, third
