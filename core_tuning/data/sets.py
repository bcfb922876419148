"""How the paper's data sets are read, with the splits of Table 10."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

from torchvision import datasets

from ..errors import UserError
from ..files import require_file
from .folder import (
    load_domains,
    require_folder,
    require_same_classes,
    scan_classes,
    subfolders,
)
from .images import DecodedImages, ImageFiles, LabelledImages
from .names import check_class_names, shown
from .scan import reason_of
from .splits import Source, split_per_class, stratified_split

# Fixed, and not the run's seed: runs of several seeds then share one test set.
TEST_SEED = 0
EMOJI_TEST_SHARE = 0.25
CALTECH_IMAGES_PER_CLASS = 30
IMAGENETTE_VARIANTS = ("", "-320", "-160")


class Place(NamedTuple):
    """Where a data set is to be read.

    Attributes:
        name: of the set.
        root: the folder that holds it.
        layout: what belongs into that folder.
        download: fetch the set before.
        hint: what may help where files are missing, to end a sentence.
    """

    name: str
    root: Path
    layout: str
    download: bool
    hint: str

    def __str__(self) -> str:
        """Say what is expected behind a sentence that names the folder."""
        return f"{self.layout} in it{self.hint}"


@dataclass(frozen=True)
class Torchvision:
    """A set that torchvision reads.

    Attributes:
        dataset: torchvision's class.
        train: keywords of the class for each part that is trained on.
        test: likewise for the part that tests.
        split: what the results call this split.
    """

    dataset: Callable[..., Any]
    train: Sequence[Mapping[str, Any]]
    test: Mapping[str, Any]
    split: str

    def __call__(self, place: Place) -> Source:
        """Read the set.

        Raises:
            UserError: files are missing or damaged, or its parts differ in their classes.
        """
        root = place.root
        with _reading(place):
            *train, test = (
                self.dataset(root, download=place.download, **part)
                for part in (*self.train, self.test)
            )
            source = Source(_images(train, root), _images([test], root), self.split)
        for part, which in zip((*train, test), (*self.train, self.test), strict=True):
            where = f"The {which.get('split', 'test')} images of '{place.name}'"
            require_same_classes(_classes(part), source.train.classes, where, "its first part")
        return source


def _classes(part: Any) -> list[str]:
    # Flowers102 has none before torchvision 0.22.
    return getattr(part, "classes", None) or [str(number) for number in range(1, 103)]


def _images(parts: Sequence[Any], root: Path) -> LabelledImages:
    classes = _classes(parts[0])
    if hasattr(parts[0], "data"):
        return DecodedImages(parts[0].data, parts[0].targets, classes)
    paths, labels = zip(*(sample for part in parts for sample in _samples(part)), strict=True)
    return ImageFiles(paths, labels, classes, root=root)


def _samples(part: Any) -> Iterable[tuple[Path, int]]:
    if isinstance(part, datasets.StanfordCars):
        return part._samples
    paths = part._images if isinstance(part, datasets.OxfordIIITPet) else part._image_files
    return zip(paths, part._labels, strict=True)


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    """Turn what torchvision raises about files into a UserError that says what was expected."""
    try:
        yield
    except URLError as error:
        raise UserError(
            f"'{place.name}' could not be downloaded into {place.root} ({error.reason}): check the "
            f"network, or lay out {place.layout} there by hand."
        ) from error
    # A damaged list, matrix or pickle makes its reader raise anything.
    except Exception as error:
        reason = reason_of(error).removesuffix("You can use download=True to download it")
        if isinstance(error, FileNotFoundError):
            reason = f"it lacks {error.filename}"
        raise UserError(
            f"'{place.name}' cannot be read from {place.root} ({reason.strip(' .')}): expected "
            f"{place}."
        ) from error


def caltech101(place: Place) -> Source:
    """Read Caltech-101 and its background class: 30 images a class to train on, the rest to test.

    torchvision leaves the background class out and Table 10 counts it, hence only the download is
    torchvision's.
    """
    if place.download:
        with _reading(place):
            datasets.Caltech101(place.root, download=True)
    folder = place.root / "caltech101" / "101_ObjectCategories"
    require_folder(folder, f"class/*.jpg in it{place.hint}")
    images = scan_classes(folder, root=place.root)
    train, test = split_per_class(images.labels, CALTECH_IMAGES_PER_CLASS, TEST_SEED)
    return Source(
        images.subset(train),
        images.subset(test),
        f"{CALTECH_IMAGES_PER_CLASS} a class drawn with seed {TEST_SEED}/the rest",
    )


def emoji_domains() -> Source:
    """Read the embedded set, all domains together: a quarter of each domain and class tests.

    One emoji drawn by two design teams can be in both parts; leaving a domain out is the split
    that keeps the artwork apart.
    """
    domains = load_domains()
    first, *others = domains.values()
    everything = first.joined(others)
    strata = [(name, label) for name, images in domains.items() for label in images.labels]
    train, test = stratified_split(strata, EMOJI_TEST_SHARE, TEST_SEED)
    return Source(
        everything.subset(train),
        everything.subset(test),
        f"all domains, {1 - EMOJI_TEST_SHARE:.0%}/{EMOJI_TEST_SHARE:.0%} of each domain and class, "
        f"drawn with seed {TEST_SEED}",
    )


def flowers_kaggle(place: Place) -> Source:
    """Read Kaggle's split of Oxford Flowers, the paper's (6,552 / 818): `valid` is the test set."""
    root = place.root
    for folder in ("train", "valid"):
        require_folder(root / folder, f"class folders 1 to 102 in it, for {place.layout} in {root}")
    names = [path.name for path in subfolders(root / "train")]
    unnumbered = [name for name in names if not name.isdigit()]
    if unnumbered:
        raise UserError(
            f"The class folder {root / 'train' / unnumbered[0]} is not numbered: "
            f"expected {place.layout}; use the data set 'folder' for other layouts."
        )
    train = scan_classes(root / "train", sorted(names, key=int), root=root)
    test = scan_classes(root / "valid", train.classes, root=root)
    return Source(train, test, "Kaggle train/valid")


def imagenet20(place: Place) -> Source:
    """Read Imagenette and Imagewoof as one set of 20 classes by WordNet id.

    Both come in three sizes (full, -320 and -160); the largest that both have is read.
    """
    root = place.root
    for variant in IMAGENETTE_VARIANTS:
        halves = [root / f"imagenette2{variant}", root / f"imagewoof2{variant}"]
        if all(half.is_dir() for half in halves):
            train, test = (
                _union(root, [half / part for half in halves]) for part in ("train", "val")
            )
            require_same_classes(
                test.classes,
                train.classes,
                f"The val folders of {halves[0]} and {halves[1]}",
                "their train folders",
            )
            return Source(train, test, f"imagenette2{variant} and imagewoof2{variant} train/val")
    raise UserError(
        f"The folder {root} does not hold Imagenette and Imagewoof in one size: expected {place}."
    )


def _union(root: Path, folders: list[Path]) -> ImageFiles:
    """Read class folders that lie in several folders; a class in two of them has both's images."""
    paths: dict[str, list[str]] = defaultdict(list)
    for images in map(scan_classes, folders):
        for path, label in zip(images.paths, images.labels, strict=True):
            paths[images.classes[label]].append(path)
    return ImageFiles.of_classes(paths, sorted(paths), root)


def inat18(place: Place) -> Source:
    """Read iNaturalist 2018 by the competition's train2018.json and val2018.json."""
    root = place.root
    train_file, test_file = root / "train2018.json", root / "val2018.json"
    train, names = _read_competition(train_file)
    test, _ = _read_competition(test_file)
    ids = sorted({category for _, category in train})
    unknown = sorted({category for _, category in test} - set(ids))
    if unknown:
        raise UserError(
            f"The file {test_file} has the category {unknown[0]}, of which {train_file} has no "
            "image: use both files of the same competition."
        )
    label_of = {category: label for label, category in enumerate(ids)}
    classes = [names.get(category, str(category)) for category in ids]
    check_class_names(classes, f"The file {train_file}")
    parts = [
        ImageFiles([root / f for f, _ in part], [label_of[c] for _, c in part], classes, root=root)
        for part in (train, test)
    ]
    return Source(parts[0], parts[1], "train2018/val2018")


def _read_competition(path: Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """Read a COCO-style file.

    Returns:
        (file name below the root, category id) of each annotation, and the categories' names.
    """
    require_file(path)
    try:
        content = json.loads(path.read_bytes())
    # The last one is what brackets in brackets in brackets make of a damaged file.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"The file {shown(path)} is not JSON ({reason_of(error)}): unpack or copy it anew."
        ) from error
    try:
        file_names = {image["id"]: image["file_name"] for image in content["images"]}
        samples = [(file_names[a["image_id"]], a["category_id"]) for a in content["annotations"]]
        names = {each["id"]: str(each["name"]) for each in content.get("categories", [])}
        if not all(isinstance(f, str) and isinstance(c, int) for f, c in samples):
            raise TypeError("a 'file_name' is not text or a 'category_id' is not a whole number")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The file {shown(path)} is not laid out as the competition's ({reason_of(error)}): "
            "expected 'images' with 'id' and 'file_name', and 'annotations' with 'image_id' and "
            "'category_id'."
        ) from error
    if not samples:
        raise UserError(f"The file {shown(path)} has no images: unpack or copy it anew.")
    return samples, names
