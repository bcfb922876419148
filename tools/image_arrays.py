"""Small square images as one array in memory, from a folder or from a few packed files.

    python tools/image_arrays.py --images train --unlabelled test --output packed --files 3

packs the encoded bytes of every image, unchanged, into three .npz files of equal size, to be
carried to another machine. Deflating them takes out what the headers of small JPEGs have in
common, a third of Tiny-ImageNet. Each file holds every third image, so it is a sample of all.
"""

from __future__ import annotations

import argparse
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".webp", ".png", ".jpg", ".jpeg"}


class ImageArray(NamedTuple):
    """Decoded images: pixels (n, side, side, 3) uint8; labels (n,), "" where there is none."""

    pixels: np.ndarray
    labels: np.ndarray


def image_files(folder: Path) -> list[Path]:
    """Every image below a folder, any depth, in order of name."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]


def label_of(path: Path, folder: Path) -> str:
    """The first folder below `folder` on the way to an image, "" for an image right in it."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Crop an image to its middle square and resize that, where it has another size."""
    if image.size == (side, side):
        return image
    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


def decode(encoded: bytes, side: int) -> np.ndarray:
    """Decode an image as square RGB (side, side, 3)."""
    return np.asarray(fit_square(Image.open(io.BytesIO(encoded)).convert("RGB"), side))


def read_images(folder: Path, side: int) -> ImageArray:
    """Read the images of a folder, or of the packed files in it.

    Args:
        folder: of images at any depth, where the first folder below it is the label, or of .npz
            files that `write_packed` wrote.
        side: pixels of the square images to make.

    Raises:
        FileNotFoundError: the folder holds neither.
    """
    encoded: list[bytes] = []
    labels: list[str] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as packed:
            ends = np.cumsum(packed["sizes"])
            data = packed["encoded"].tobytes()
            encoded += [data[end - n : end] for n, end in zip(packed["sizes"], ends, strict=True)]
            labels += packed["labels"].tolist()
    if not encoded:
        paths = image_files(folder)
        encoded = [path.read_bytes() for path in paths]
        labels = [label_of(path, folder) for path in paths]
    if not encoded:
        raise FileNotFoundError(f"{folder} holds no image and no packed file.")
    pixels = np.empty((len(encoded), side, side, 3), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + 1000, len(encoded))):
            pixels[index] = decode(encoded[index], side)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, len(encoded), 1000)))
    return ImageArray(pixels, np.array(labels))


def write_packed(paths: list[Path], labels: list[str], output: Path, files: int) -> None:
    """Write encoded images and their labels into `files` .npz files in a folder."""
    output.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        encoded = [path.read_bytes() for path in paths[number::files]]
        np.savez_compressed(
            output / f"{number}.npz",
            encoded=np.frombuffer(b"".join(encoded), np.uint8),
            sizes=np.array([len(one) for one in encoded], np.int32),
            labels=np.array(labels[number::files]),
        )


def main() -> None:
    """Pack the images of the folders on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of folders of a class")
    parser.add_argument("--unlabelled", type=Path, help="folder of more images, without a class")
    parser.add_argument("--every", type=int, default=1, help="take each so many-th image only")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--files", type=int, default=1, help="number of files (default: 1)")
    args = parser.parse_args()
    paths = image_files(args.images)[:: args.every]
    labels = [label_of(path, args.images) for path in paths]
    if args.unlabelled:
        unlabelled = image_files(args.unlabelled)[:: args.every]
        paths, labels = paths + unlabelled, labels + [""] * len(unlabelled)
    write_packed(paths, labels, args.output, args.files)
    print(f"{args.output}: {len(paths)} images in {args.files} files")


if __name__ == "__main__":
    main()
