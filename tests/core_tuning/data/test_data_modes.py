"""Each of PIL's modes becomes RGB of 8 bits by its rule, or is refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from core_tuning.data.images import read_image
from core_tuning.data.modes import check_mode, to_rgb
from core_tuning.errors import UserError

RED = (200, 40, 80)
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def _pixel(image):
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 255, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", RED, RED),
        ("RGBX", (*RED, 9), RED),
        ("CMYK", (55, 215, 175, 0), RED),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 255, 200), (200, 0, 0)),
        # Half transparent over white: (v + 255) / 2.
        ("LA", (100, 128), (177, 177, 177)),
        ("La", (50, 128), (177, 177, 177)),
        ("RGBA", (200, 40, 80, 0), (255, 255, 255)),
        ("RGBA", (200, 40, 80, 255), RED),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("I;16", 0x1234, (0x12, 0x12, 0x12)),
        ("I;16L", 0x1234, (0x12, 0x12, 0x12)),
        ("I;16B", 0x1234, (0x12, 0x12, 0x12)),
        ("I;16N", 0xFFFF, (255, 255, 255)),
    ],
)
def test_a_mode_has_its_rule(mode, colour, expected):
    assert _pixel(to_rgb(Image.new(mode, (2, 2), colour))) == expected


@pytest.mark.parametrize(
    ("lab", "expected"),
    [
        ((0, 128, 128), (0, 0, 0)),
        ((255, 128, 128), (255, 255, 255)),
        # L* = 54.3, a* = 80.8, b* = 69.9 is sRGB's red under D50.
        ((138, 209, 198), (255, 0, 0)),
    ],
)
def test_lab_is_converted_by_its_profile(lab, expected):
    pixel = _pixel(to_rgb(Image.new("LAB", (1, 1), lab)))
    assert np.abs(np.subtract(pixel, expected)).max() <= 5


def test_palettes():
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert _pixel(to_rgb(palette)) == RED
    transparent = Image.new("PA", (2, 2))
    assert _pixel(to_rgb(transparent)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_mode_without_a_range_is_refused_by_name(tmp_path, mode):
    with pytest.raises(ValueError, match=f"of mode {mode} .*whose range is not known"):
        check_mode(Image.new(mode, (2, 2)))
    path = tmp_path / "image.tif"
    Image.new(mode, (2, 2), 7).save(path)
    with pytest.raises(
        UserError, match=rf"image\.tif cannot be read \(its pixels are of mode {mode}"
    ):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_a_ramp_of_16_bits_has_all_256_values(tmp_path, suffix):
    path = tmp_path / f"ramp.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5\n256 256\n65535\n" + RAMP.astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(path)
    values = np.asarray(read_image(path))
    # Row r holds 256 r to 256 r + 255.
    assert (values == np.arange(256)[:, None, None]).all()


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_read_as_the_8_that_they_were_made_of(tmp_path, suffix, factor):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / f"8.{suffix}")
    Image.fromarray(grey.astype(np.uint16) * factor).save(tmp_path / f"16.{suffix}")
    eight, sixteen = (np.asarray(read_image(tmp_path / f"{bits}.{suffix}")) for bits in (8, 16))
    assert (eight == sixteen).all()
    assert (eight == grey[:, :, None]).all()


def _png(width: int, colour_type: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row and 16 bits a channel."""
    header = struct.pack(">IIBBBBB", width, 1, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def test_colours_and_transparency_of_16_bits(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(_png(1, 2, struct.pack(">3H", 0x12FF, 0x5600, 0x9A80)))
    assert _pixel(read_image(path)) == (0x12, 0x56, 0x9A)
    path.write_bytes(_png(2, 0, struct.pack(">2H", 0x1234, 0x1235), (b"tRNS", b"\x12\x34")))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [255, 0x12]
    path.write_bytes(_png(2, 4, struct.pack(">4H", 0x1234, 0, 0x1234, 0xFFFF)))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [255, 0x12]


def _tiff(bits: int, photometric: int, pixels: bytes, width: int) -> bytes:
    """A little-endian TIFF of one row of grey."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1),
            (278, 1), (279, len(pixels))]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    )
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(200, b"\0") + pixels


def test_tiff_of_12_bits_and_with_white_as_zero(tmp_path):
    path = tmp_path / "image.tif"
    # 0xABC and 0x123 in three bytes.
    path.write_bytes(_tiff(12, 1, bytes([0xAB, 0xC1, 0x23]), 2))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0xAB, 0x12]
    path.write_bytes(_tiff(16, 0, struct.pack("<2H", 0, 0xFFFF), 2))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_data_say(tmp_path, suffix, orientation):
    """EXIF: where the first row and column of the stored pixels belong."""
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16, :16] = 255  # at the stored image's first row and column
    # (where that corner belongs, whether rows and columns are exchanged)
    corner, exchanged = {
        1: ((0, 0), False), 2: ((0, -1), False), 3: ((-1, -1), False), 4: ((-1, 0), False),
        5: ((0, 0), True), 6: ((0, -1), True), 7: ((-1, -1), True), 8: ((-1, 0), True),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(stored).save(path, exif=exif.tobytes(), quality=95)
    turned = np.asarray(read_image(path, turn=True))
    assert turned.shape == ((64, 32, 3) if exchanged else (32, 64, 3))
    corners = {(y, x): int(turned[y, x, 0]) > 128 for y in (0, -1) for x in (0, -1)}
    assert corners == {place: place == corner for place in corners}
    if suffix != "tif":  # which PIL turns by itself, for DomainBed as well
        assert (np.asarray(read_image(path))[0, 0] > 128).all()


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_a_damaged_exif_block_turns_nothing(tmp_path, exif):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (4, 2), RED).save(path, exif=exif)
    assert read_image(path, turn=True).size == (4, 2)
