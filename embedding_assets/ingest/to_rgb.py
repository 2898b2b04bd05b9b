"""Any pixel format becomes 8-bit RGB on white.

numpy is imported where it is used: the PDF worker validates images too, and numpy's thread pools would reserve
more address space than its memory limit may allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_WHITE_IS_ZERO = 0

# What to do to the stored pixels so that they stand upright: Exif 2.32, tag Orientation.
TRANSPOSE_FOR_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or where the EXIF block can't be read."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 (a broken EXIF block raises almost anything, and the pixels are sound)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """A loaded image with its EXIF orientation applied.

    Pillow applies a TIFF's orientation itself when it loads one, and drops the tag; so this must come after
    `load`, or it would turn a TIFF twice.
    """
    method = TRANSPOSE_FOR_ORIENTATION.get(exif_orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    turned.info = dict(image.info)
    return turned


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB pixels of a loaded image of any mode, transparent parts white.

    Scaling to 8 bits: unsigned 16-bit by 255/65535 (12-bit TIFF by 255/4095); 32-bit integers and floats as they
    are where they lie within 0..255 (floats within 0..1 times 255, integers up to 65535 as 16-bit), otherwise
    from their smallest to their largest value. NaN counts as 0. Embedded colour profiles are not applied.
    """
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image.copy()
    if mode.startswith("I;16"):
        return _from_16_bit(image)
    if mode in {"I", "F"}:
        return _merge(_scaled_to_8_bit(image))
    if mode == "LAB":
        return _from_lab(image)
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "PA":  # Pillow converts PA to RGBA by way of the palette's own alpha only
        alpha = image.getchannel("A")
        rgba = image.convert("RGBA")
        rgba.putalpha(alpha)
    elif image.mode == "La":
        rgba = image.convert("LA").convert("RGBA")
    else:
        rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    import numpy as np

    pixels = np.asarray(image).astype(np.uint32)
    transparent = image.info.get("transparency")
    white_is_zero = False
    top = 65535
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE_TAG, (16,))
        bits = bits[0] if isinstance(bits, tuple) else bits
        top = (1 << bits) - 1 if 8 < bits < 16 else top
        white_is_zero = image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    grey = ((np.minimum(pixels, top) * 255 + top // 2) // top).astype(np.uint8)
    if white_is_zero:  # Pillow leaves 16-bit white-is-zero TIFFs as they are stored
        grey = 255 - grey
    if isinstance(transparent, int):
        grey[pixels == transparent] = 255
    return _merge(grey)


def _scaled_to_8_bit(image: Image.Image) -> npt.NDArray[np.uint8]:
    import numpy as np

    values: npt.NDArray[Any] = np.asarray(image)
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    is_float = np.issubdtype(values.dtype, np.floating)
    if low >= 0 and high <= 1 and is_float:
        numbers *= 255
    elif low >= 0 and high <= 255:
        pass
    elif low >= 0 and high <= 65535 and not is_float:
        numbers *= 255 / 65535
    else:
        numbers = (numbers - low) * (255 / (high - low)) if high > low else numbers * 0
    return np.clip(np.rint(numbers), 0, 255).astype(np.uint8)


def _merge(grey: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("Lab colours could not be converted")
    return converted
