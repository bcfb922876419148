"""The paper's data sets that torchvision does not read in the paper's split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .embedded import emoji_domains_folder
from .folders import image_paths, load_domains, require_folder, scan_classes, subfolders
from .images import ImageFiles
from .splits import Source, stratified_split

EMOJI_TEST_SHARE = 0.25
# Fixed, and not the run's seed: runs of several seeds then share one test set.
EMOJI_TEST_SEED = 0
IMAGENETTE_VARIANTS = ("", "-320", "-160")


def emoji_domains() -> Source:
    """Read the embedded set, all domains together: a quarter of each domain and class tests.

    One emoji drawn by two design teams can be in both parts; leaving a domain out is the split
    that keeps the artwork apart.
    """
    domains = load_domains(emoji_domains_folder())
    classes = next(iter(domains.values())).classes
    paths = [path for images in domains.values() for path in images.paths]
    labels = [label for images in domains.values() for label in images.labels]
    strata = [(name, label) for name, images in domains.items() for label in images.labels]
    everything = ImageFiles(paths, labels, classes)
    train, test = stratified_split(strata, EMOJI_TEST_SHARE, EMOJI_TEST_SEED)
    return Source(
        everything.subset(train),
        everything.subset(test),
        f"all domains, {1 - EMOJI_TEST_SHARE:.0%}/{EMOJI_TEST_SHARE:.0%} of each domain and class, "
        f"drawn with seed {EMOJI_TEST_SEED}",
    )


def flowers_kaggle(root: Path, layout: str) -> Source:
    """Read Kaggle's split of Oxford Flowers, the paper's (6,552 / 818): `valid` is the test set."""
    require_folder(root, f"{layout} in it")
    for folder in ("train", "valid"):
        require_folder(root / folder, f"class folders 1 to 102 in it, for {layout} in {root}")
    names = [path.name for path in subfolders(root / "train")]
    unnumbered = [name for name in names if not name.isdigit()]
    if unnumbered:
        raise UserError(
            f"The class folder {root / 'train' / unnumbered[0]} is not numbered: "
            f"expected {layout}; use the data set 'folder' for other layouts."
        )
    train = scan_classes(root / "train", sorted(names, key=int))
    test = scan_classes(root / "valid", train.classes)
    return Source(train, test, "Kaggle train/valid")


def imagenet20(root: Path, layout: str) -> Source:
    """Read Imagenette and Imagewoof as one set of 20 classes by WordNet id.

    Both come in three sizes (full, -320 and -160); the largest that both have is read.
    """
    require_folder(root, f"{layout} in it")
    for variant in IMAGENETTE_VARIANTS:
        halves = [root / f"imagenette2{variant}", root / f"imagewoof2{variant}"]
        if all(half.is_dir() for half in halves):
            train, test = (_union([half / part for half in halves]) for part in ("train", "val"))
            lacking = set(train.classes) ^ set(test.classes)
            if lacking:
                raise UserError(
                    f"The train and val folders of {halves[0]} and {halves[1]} differ in "
                    f"their classes: only one has {', '.join(sorted(lacking))}; unpack both "
                    "archives anew."
                )
            return Source(train, test, f"imagenette2{variant} and imagewoof2{variant} train/val")
    raise UserError(
        f"The folder {root} does not hold Imagenette and Imagewoof in one size: expected {layout}."
    )


def _union(folders: list[Path]) -> ImageFiles:
    """Read class folders that lie in several folders; a class in two of them has both's images."""
    paths: dict[str, list[Path]] = {}
    for folder in folders:
        images = scan_classes(folder)
        for name in images.classes:
            paths.setdefault(name, []).extend(image_paths(folder / name))
    classes = sorted(paths)
    return ImageFiles(
        [path for name in classes for path in paths[name]],
        [label for label, name in enumerate(classes) for _ in paths[name]],
        classes,
    )


def inat18(root: Path, layout: str) -> Source:
    """Read iNaturalist 2018 by the competition's train2018.json and val2018.json."""
    require_folder(root, f"{layout} in it")
    train_file, test_file = root / "train2018.json", root / "val2018.json"
    train, test = _coco_samples(train_file, layout), _coco_samples(test_file, layout)
    unknown = sorted({c for _, c in test} - {c for _, c in train})
    if unknown:
        raise UserError(
            f"The file {test_file} has the category {unknown[0]}, of which {train_file} has no "
            "image: use both files of the same competition."
        )
    names = _category_names(train_file)
    ids = sorted({category for _, category in train})
    label_of = {category: label for label, category in enumerate(ids)}
    classes = [names.get(category, str(category)) for category in ids]
    parts = [
        ImageFiles([root / f for f, _ in part], [label_of[c] for _, c in part], classes)
        for part in (train, test)
    ]
    return Source(parts[0], parts[1], "train2018/val2018")


def _read_json(path: Path, layout: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"The file {path} does not exist: expected {layout} in {path.parent}.")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"The file {path} is not JSON ({error}): unpack or copy it anew."
        ) from error


def _coco_samples(path: Path, layout: str) -> list[tuple[str, int]]:
    """Return (file name below the root, category id) of each annotation of a COCO-style file."""
    content = _read_json(path, layout)
    try:
        file_names = {image["id"]: image["file_name"] for image in content["images"]}
        samples = [(file_names[a["image_id"]], a["category_id"]) for a in content["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"The file {path} is not laid out as the competition's (it lacks {error}): expected "
            "'images' with 'id' and 'file_name', and 'annotations' with 'image_id' and "
            "'category_id'."
        ) from error
    if not samples:
        raise UserError(f"The file {path} has no images: unpack or copy it anew.")
    return samples


def _category_names(path: Path) -> dict[int, str]:
    categories = json.loads(path.read_text()).get("categories", [])
    return {category["id"]: str(category["name"]) for category in categories}
