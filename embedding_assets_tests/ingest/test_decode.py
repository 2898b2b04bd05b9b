"""Images of every format and mode come out as the RGB that a person would see on white."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedding_assets.errors import ImageRejected
from embedding_assets.ingest.decode import decode_rgb
from embedding_assets_tests.ingest.samples import QUARTERS, SIDE, corners, encoded, noise, png16, quarters

MANY = 10**8


def _close(got: list[tuple[int, int, int]], expected: tuple[tuple[int, int, int], ...], within: int) -> bool:
    return bool(np.abs(np.array(got, int) - np.array(expected, int)).max() <= within)


@pytest.mark.parametrize(
    ("image_format", "options", "within"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "jpeg"}, 12),
        ("GIF", {}, 2),
        ("BMP", {}, 0),
        ("AVIF", {"quality": 95}, 12),
    ],
)
def test_every_format_keeps_its_pixels(image_format: str, options: dict[str, object], within: int) -> None:
    image = decode_rgb(encoded(quarters(), image_format, **options), MANY)
    assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
    assert _close(corners(image), QUARTERS, within)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(image_format: str, orientation: int) -> None:
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = quarters(120, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(upright.transpose(stored) if stored is not None else upright, image_format, exif=exif)
    image = decode_rgb(data, MANY)
    assert image.size == (120, 80)
    assert _close(corners(image), QUARTERS, 20)


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(image_format: str) -> None:
    options = {"quality": 95} if image_format == "JPEG" else {}
    image = decode_rgb(encoded(quarters().convert("CMYK"), image_format, **options), MANY)
    assert _close(corners(image), QUARTERS, 12)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, SIDE).astype(np.uint16)
    pixels = np.tile(ramp, (SIDE, 1))
    expected = np.rint(ramp.astype(float) * 255 / 65535)
    for data in (png16(pixels), encoded(Image.fromarray(pixels), "TIFF")):
        got = np.asarray(decode_rgb(data, MANY))[0, :, 0]
        assert np.abs(got - expected).max() <= 1


def test_float_tiff_between_0_and_1_is_scaled() -> None:
    pixels = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (SIDE, 1))
    got = np.asarray(decode_rgb(encoded(Image.fromarray(pixels), "TIFF"), MANY))
    assert got[0, 0, 0] == 0
    assert got[0, -1, 0] == 255
    assert abs(int(got[0, SIDE // 2, 0]) - 128) <= 2


def test_float_tiff_of_any_range_is_stretched_and_nan_is_survived() -> None:
    pixels = np.tile(np.linspace(-5, 3000, SIDE, dtype=np.float32), (SIDE, 1))
    pixels[0, 0] = np.nan
    got = np.asarray(decode_rgb(encoded(Image.fromarray(pixels), "TIFF"), MANY))
    assert (got[1, 0, 0], got[1, -1, 0]) == (0, 255)


def test_32_bit_integers_are_scaled() -> None:
    pixels = np.tile(np.linspace(0, 65535, SIDE, dtype=np.int32), (SIDE, 1))
    got = np.asarray(decode_rgb(encoded(Image.fromarray(pixels), "TIFF"), MANY))
    assert (got[0, 0, 0], got[0, -1, 0]) == (0, 255)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparent_parts_are_laid_on_white(image_format: str) -> None:
    image = quarters().convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, SIDE // 2, SIDE // 2))
    image.putalpha(alpha)
    got = corners(decode_rgb(encoded(image, image_format), MANY))
    assert got[0] == (255, 255, 255)
    assert _close(got[1:], QUARTERS[1:], 20)


def test_half_transparent_grey_is_blended_with_white() -> None:
    image = Image.merge("LA", [Image.new("L", (SIDE, SIDE), 0), Image.new("L", (SIDE, SIDE), 128)])
    assert abs(decode_rgb(encoded(image, "PNG"), MANY).getpixel((5, 5))[0] - 127) <= 1  # type: ignore[index]


def test_a_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    image = quarters().quantize(4)
    first = image.getpixel((5, 5))
    got = corners(decode_rgb(encoded(image, "PNG", transparency=first), MANY))
    assert got[0] == (255, 255, 255)
    assert _close(got[1:], QUARTERS[1:], 3)


def test_a_transparent_gif_is_laid_on_white() -> None:
    image = quarters().quantize(4)
    got = corners(decode_rgb(encoded(image, "GIF", transparency=image.getpixel((5, 5))), MANY))
    assert got[0] == (255, 255, 255)


def test_a_transparent_colour_of_an_rgb_png_is_laid_on_white() -> None:
    got = corners(decode_rgb(encoded(quarters(), "PNG", transparency=QUARTERS[2]), MANY))
    assert got == [QUARTERS[0], QUARTERS[1], (255, 255, 255), QUARTERS[3]]


@pytest.mark.parametrize(("mode", "image_format"), [("1", "PNG"), ("1", "TIFF"), ("L", "JPEG"), ("P", "BMP")])
def test_grey_bilevel_and_palette_become_rgb(mode: str, image_format: str) -> None:
    image = Image.new("L", (SIDE, SIDE), 255)
    image.paste(0, (0, 0, SIDE // 2, SIDE))
    got = decode_rgb(encoded(image.convert(mode), image_format), MANY)
    assert got.mode == "RGB"
    assert got.getpixel((5, 5)) == (0, 0, 0)
    assert got.getpixel((SIDE - 5, 5)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    red, blue = Image.new("RGB", (SIDE, SIDE), "red"), Image.new("RGB", (SIDE, SIDE), "blue")
    for image_format in ("GIF", "WEBP", "TIFF"):
        data = encoded(red, image_format, save_all=True, append_images=[blue])
        pixel = decode_rgb(data, MANY).getpixel((9, 9))
        assert pixel[0] > 200 > 50 > pixel[2]  # type: ignore[index]


def test_lab_tiff_becomes_rgb() -> None:
    data = encoded(Image.new("LAB", (SIDE, SIDE), (255, 128, 128)), "TIFF")
    assert min(decode_rgb(data, MANY).getpixel((3, 3))) > 245  # type: ignore[type-var]


def test_threads_decode_the_same_pixels_under_different_limits() -> None:
    files = [encoded(noise(seed=seed), "PNG") for seed in range(8)]
    expected = [np.asarray(noise(seed=seed)) for seed in range(8)]

    def work(job: int) -> bool:
        data = files[job % 8]
        if job % 3 == 0:
            with pytest.raises(ImageRejected):
                decode_rgb(data, 100)
            return True
        return bool((np.asarray(decode_rgb(data, MANY)) == expected[job % 8]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_are_decoded_or_rejected_and_nothing_else(data: st.DataObject) -> None:
    image_format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]))
    file = bytearray(encoded(quarters(), image_format))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageRejected):
        assert decode_rgb(bytes(file), 1_000_000).mode == "RGB"
