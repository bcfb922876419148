"""The paper's data sets that torchvision does not read in the paper's split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checking import reason_of
from .embedded import emoji_domains_folder
from .folders import load_domains, require_folder, scan_classes
from .images import ImageFiles
from .listing import subfolders
from .names import check_class_names, shown
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
    folder = emoji_domains_folder()
    domains = load_domains(folder)
    classes = next(iter(domains.values())).classes
    paths = [path for images in domains.values() for path in images.paths]
    labels = [label for images in domains.values() for label in images.labels]
    strata = [(name, label) for name, images in domains.items() for label in images.labels]
    everything = ImageFiles(paths, labels, classes, root=folder)
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
    train = scan_classes(root / "train", sorted(names, key=int), root=root)
    test = scan_classes(root / "valid", train.classes, root=root)
    return Source(train, test, "Kaggle train/valid")


def imagenet20(root: Path, layout: str) -> Source:
    """Read Imagenette and Imagewoof as one set of 20 classes by WordNet id.

    Both come in three sizes (full, -320 and -160); the largest that both have is read.
    """
    require_folder(root, f"{layout} in it")
    for variant in IMAGENETTE_VARIANTS:
        halves = [root / f"imagenette2{variant}", root / f"imagewoof2{variant}"]
        if all(half.is_dir() for half in halves):
            train, test = (
                _union(root, [half / part for half in halves]) for part in ("train", "val")
            )
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


def _union(root: Path, folders: list[Path]) -> ImageFiles:
    """Read class folders that lie in several folders; a class in two of them has both's images."""
    paths: dict[str, list[str]] = {}
    for folder in folders:
        images = scan_classes(folder)
        for path, label in zip(images.paths, images.labels, strict=True):
            paths.setdefault(images.classes[label], []).append(path)
    classes = sorted(paths)
    return ImageFiles(
        [path for name in classes for path in paths[name]],
        [label for label, name in enumerate(classes) for _ in paths[name]],
        classes,
        root=root,
    )


def inat18(root: Path, layout: str) -> Source:
    """Read iNaturalist 2018 by the competition's train2018.json and val2018.json."""
    require_folder(root, f"{layout} in it")
    train_file, test_file = root / "train2018.json", root / "val2018.json"
    train, names = _read_competition(train_file, layout)
    test, _ = _read_competition(test_file, layout)
    unknown = sorted({c for _, c in test} - {c for _, c in train})
    if unknown:
        raise UserError(
            f"The file {test_file} has the category {unknown[0]}, of which {train_file} has no "
            "image: use both files of the same competition."
        )
    ids = sorted({category for _, category in train})
    label_of = {category: label for label, category in enumerate(ids)}
    classes = [names.get(category, str(category)) for category in ids]
    check_class_names(classes, f"The file {train_file}")
    parts = [
        ImageFiles([root / f for f, _ in part], [label_of[c] for _, c in part], classes, root=root)
        for part in (train, test)
    ]
    return Source(parts[0], parts[1], "train2018/val2018")


def _read_competition(path: Path, layout: str) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """Read a COCO-style file.

    Returns:
        (file name below the root, category id) of each annotation, and the categories' names.
    """
    content = _read_json(path, layout)
    fault = ""
    try:
        file_names = {image["id"]: image["file_name"] for image in content["images"]}
        samples = [(file_names[a["image_id"]], a["category_id"]) for a in content["annotations"]]
        names = {each["id"]: str(each["name"]) for each in content.get("categories", [])}
        if not all(isinstance(f, str) and isinstance(c, int) for f, c in samples):
            fault = "a 'file_name' is no text or a 'category_id' no whole number"
    except KeyError as error:
        fault = f"it lacks {error}"
    except (TypeError, AttributeError):
        fault = "its lists or their entries are of other types"
    if fault:
        raise UserError(
            f"The file {shown(path)} is not laid out as the competition's ({fault}): expected "
            "'images' with 'id' and 'file_name', and 'annotations' with 'image_id' and "
            "'category_id'."
        )
    if not samples:
        raise UserError(f"The file {shown(path)} has no images: unpack or copy it anew.")
    return samples, names


def _read_json(path: Path, layout: str) -> Any:
    if not path.is_file():
        raise UserError(
            f"The file {shown(path)} does not exist: expected {layout} in {shown(path.parent)}."
        )
    try:
        return json.loads(path.read_bytes())
    # The last one is what brackets in brackets in brackets make of a damaged file.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"The file {shown(path)} is not JSON ({reason_of(error)}): unpack or copy it anew."
        ) from error
