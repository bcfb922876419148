import pickle

import numpy as np
import pytest
from PIL import Image

from core_tuning.data.images import DecodedImages, ImageFiles, read_image
from core_tuning.errors import UserError


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "image.tiff"
    Image.new("RGB", (4, 4), "white").convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_becomes_white(tmp_path, mode):
    path = tmp_path / "image.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode).save(path)
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_palette_colour_becomes_white(tmp_path):
    path = tmp_path / "image.png"
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] * 256)
    image.save(path, transparency=0)
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_truncated_image_is_named(tmp_path, suffix):
    path = tmp_path / f"broken.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=f"The image .*broken.{suffix} cannot be read .*replace it"):
        read_image(path)


def test_missing_and_alien_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg cannot be read"):
        read_image(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.jpg cannot be read"):
        read_image(tmp_path / "text.jpg")


def test_subset_keeps_labels_and_survives_pickling(tmp_path, write_image):
    paths = [write_image(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(4)]
    images = ImageFiles(paths, [0, 1, 0, 1], ["a", "b"])
    subset = pickle.loads(pickle.dumps(images.subset([3, 0])))
    assert subset.labels == [1, 0]
    assert subset[0][0].getpixel((0, 0)) == (3, 0, 0)
    assert (len(subset), subset.classes) == (2, ["a", "b"])


def test_array_subset():
    array = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    subset = DecodedImages(array, [4, 5], ["x"] * 6).subset([1])
    image, label = subset[0]
    assert (image.getpixel((0, 0)), label) == ((12, 13, 14), 5)
    assert len(DecodedImages(array, [4, 5], ["x"] * 6).subset([])) == 0
