"""From any mode of PIL's to RGB of 8 bits, by one rule a mode.

- 1, L, P, RGB, RGBX, CMYK, YCbCr, HSV, LAB: PIL's own conversion (LAB by its colour profile).
- LA, La, PA, RGBA, RGBa, and a transparent colour of any mode: laid on white.
- I;16, I;16L, I;16B, I;16N (grey of 16 or, in TIFF, 12 bits) and I of a PNG or a PGM (16 bits): the
  upper 8 bits, v // 256 of 16. An image that was 8 bits before, each value times 256 or 257, is
  equal to what it was; PIL reads colours of 16 bits alike.
- I of another format, F and all others have no known range, and are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
_TRANSPARENT = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Formats whose mode I holds 0 to 65535.
_SIXTEEN_BITS_IN_I = frozenset({"PNG", "PPM"})
_WORDS = {"I": "integers of 32 bits", "F": "floating-point numbers"}
# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def _is_deep(image: Image.Image) -> bool:
    in_i = image.mode == "I" and image.format in _SIXTEEN_BITS_IN_I
    return image.mode in _SIXTEEN_BITS or in_i


def check_mode(image: Image.Image) -> None:
    """Raise a ValueError if there is no rule for an image's mode; its header is enough to tell."""
    if image.mode not in _PLAIN | _TRANSPARENT and not _is_deep(image):
        words = f" ({_WORDS[image.mode]})" if image.mode in _WORDS else ""
        raise ValueError(
            f"its pixels are of mode {image.mode}{words}, whose range is not known; save it with "
            "8 or 16 bits a channel"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to RGB; what is transparent becomes white.

    Raises:
        ValueError: there is no rule for its mode.
    """
    check_mode(image)
    if _is_deep(image):
        return _upper_bits(image)
    if image.mode == "La":
        image = image.convert("LA")  # PIL knows no other way from there
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        white.alpha_composite(opaque)
        image = white
    return image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
    values = np.asarray(image)
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says."""
    image.load()  # some formats keep it behind the pixels
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    # A damaged EXIF block may raise anything, and says nothing of how the image was held.
    except Exception:
        return image
