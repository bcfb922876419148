"""Domains, their order, and DomainBed's splits of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core_tuning.algorithms.environments import (
    check_splits,
    check_targets,
    load_environments,
    split_environment,
)
from core_tuning.algorithms.hyperparameters import EMOJI
from core_tuning.algorithms.names import seed_hash
from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.errors import UserError

SEEDS = {
    (0,): 1003224347,
    (0, 0): 894182419,
    (1, 2): 1981683110,
    (7, 3): 1754140012,
    (0, "lr"): 1017368932,
    (123, "é ä"): 542821762,
}
# What misc.split_dataset of DomainBed b93c22a gives: (count, fraction, trial, domain) -> splits.
SPLITS = {
    (10, 0.2, 0, 0): ([8, 1, 4, 5, 0, 9, 6, 7], [2, 3]),
    (10, 0.2, 0, 1): ([3, 7, 8, 6, 1, 2, 9, 4], [5, 0]),
    (12, 0.25, 3, 2): ([5, 9, 1, 11, 7, 3, 10, 8, 4], [0, 2, 6]),
    (7, 0.5, 1, 0): ([0, 2, 3, 1], [6, 4, 5]),
}
DOMAINBED_SPLITS = """
import json, sys
from torchvision.datasets import ImageFolder
from domainbed.lib import misc
given = json.load(sys.stdin)
splits = []
for root, trial, fraction, number in given["splits"]:
    folder = ImageFolder(root)
    out, in_ = misc.split_dataset(
        folder, int(len(folder) * fraction), misc.seed_hash(trial, number)
    )
    splits.append([[folder.samples[i] for i in part.keys] for part in (in_, out)])
seeds = [misc.seed_hash(*values) for values in given["seeds"]]
print(json.dumps({"splits": splits, "seeds": seeds}))
"""


@pytest.fixture
def awkward(tmp_path):
    """Two domains whose names, extensions and nesting are as bad as they come."""
    for domain in ("Zürich photos", "art.PAINTING", "a b"):
        for label, name in enumerate(("Ärger", "b", "B c", "日本")):
            folder = tmp_path / domain / name
            for place in (folder, folder / "m", folder / "m-n", folder / "m" / "x"):
                place.mkdir(parents=True)
                for number in ("10", "9", "a", "Z", " ", "ß", "m~", "A"):
                    for extension in ("PNG", "jpeg", "Jpg", "webp", "txt"):
                        Image.new("RGB", (2, 2), (label, 0, 0)).save(
                            place / f"{number}.{extension}",
                            "PNG" if extension == "txt" else None,
                        )
    return tmp_path


def test_seeds_are_domainbeds_without_a_checkout():
    for values, expected in SEEDS.items():
        assert seed_hash(*values) == expected
    assert seed_hash(EMOJI, "CoreTuning", [0], 1, 2) == 520806893


@pytest.mark.parametrize("given", SPLITS)
def test_splits_are_domainbeds_without_a_checkout(given):
    assert split_environment(*given) == SPLITS[given]


def test_a_large_split():
    inside, outside = split_environment(2048, 0.2, 0, 0)
    assert inside[:6] == [895, 510, 1575, 933, 362, 656]
    assert outside[:6] == [548, 677, 1997, 977, 1553, 1123]
    assert (len(inside), len(outside)) == (1639, 409)
    assert sorted(inside + outside) == list(range(2048))


def test_a_split_leaves_the_global_generator_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    split_environment(100, 0.2, 0, 0)
    assert (np.random.get_state()[1] == before).all()


def test_splits_of_a_real_checkout(kit, checkout, awkward):
    """The very images, in order, of ImageFolder and misc.split_dataset."""
    roots = {EMOJI: emoji_domains_folder(), "awkward": awkward}
    cases, ours = [], []
    for name, root in roots.items():
        environments = load_environments(
            name if name == EMOJI else root.name, None if name == EMOJI else root.parent
        )
        assert environments.names == sorted(path.name for path in root.iterdir())
        for number, images in enumerate(environments.images):
            for trial, fraction in [(0, 0.2), (1, 0.2), (5, 0.37)]:
                cases.append((str(root / environments.names[number]), trial, fraction, number))
                split = split_environment(len(images), fraction, trial, number)
                ours.append([[[images.paths[i], images.labels[i]] for i in part] for part in split])
    seeds = [[trial, number] for trial in range(20) for number in range(6)] + [[3, "weight_decay"]]
    given = {"splits": cases, "seeds": seeds}
    theirs = kit.domainbed(checkout, DOMAINBED_SPLITS, given)
    assert theirs["seeds"] == [seed_hash(*values) for values in seeds]
    for case, one, two in zip(cases, ours, theirs["splits"], strict=True):
        assert one == two, case
    assert sum(len(part) for part in ours[-1]) == 4 * 4 * 8 * 4


def test_awkward_names_in_domainbeds_order(awkward):
    environments = load_environments(awkward.name, awkward.parent)
    assert environments.names == ["Zürich photos", "a b", "art.PAINTING"]
    assert environments.classes == ["B c", "b", "Ärger", "日本"]
    first = [Path(path).relative_to(awkward) for path in environments.images[0].paths]
    of_class = [path.relative_to("Zürich photos/B c") for path in first if path.parts[1] == "B c"]
    # Folder by folder, "m-n" before "m/x" because "-" comes before "/".
    assert list(dict.fromkeys(str(path.parent) for path in of_class)) == [".", "m", "m-n", "m/x"]
    names = [path.name for path in of_class[:32]]
    assert names == sorted(names)
    assert "9.PNG" in names
    assert Counter(path.suffix for path in first)[".txt"] == 0


def test_the_embedded_set_and_a_folder(kit):
    emoji = load_environments(EMOJI, None)
    assert emoji.names == ["fluent", "mono", "noto", "twemoji"]
    assert (emoji.image_size, len(emoji.classes)) == (32, 10)
    toys = load_environments("toys", kit.data, 24)
    assert toys.names == list(kit.DOMAINS)
    assert toys.classes == list(kit.CLASSES)
    assert toys.image_size == 24
    assert [len(images) for images in toys.images] == [3 * n for n in kit.DOMAINS.values()]


def test_domainbeds_names_are_their_folders(kit, tmp_path):
    for name, folder in [("PACS", "PACS"), ("OfficeHome", "office_home"),
                         ("TerraIncognita", "terra_incognita"), ("DomainNet", "domain_net"),
                         ("VLCS", "VLCS")]:  # fmt: skip
        (tmp_path / folder).symlink_to(kit.data / "toys")
        environments = load_environments(name, tmp_path)
        assert (environments.names, environments.image_size) == (list(kit.DOMAINS), 224)
        assert environments.evaluate_every == (1000 if name == "DomainNet" else 300)


@pytest.mark.parametrize(
    ("targets", "named"),
    [([3], "0 brush, 1 cut, 2 dots"), ([-1], "-1"), ([1, 1], "twice"), ([0, 1, 2], "one or more")],
)
def test_bad_targets(kit, targets, named):
    with pytest.raises(UserError, match=named):
        check_targets(targets, load_environments("toys", kit.data))


def test_sizes_of_splits(kit):
    environments = load_environments("toys", kit.data)
    # 30, 36 and 42 images: 24 of the first are trained on at a fifth held out.
    check_splits(environments, [1], 0.2, 24)
    with pytest.raises(UserError, match="domain brush has 24 images, fewer than a batch of 25"):
        check_splits(environments, [1], 0.2, 25)
    check_splits(environments, [0], 0.2, 29)
    with pytest.raises(UserError, match="30 images of domain brush into 30 and 0"):
        check_splits(environments, [0], 0.03, 1)
    check_splits(environments, [0], 1 / 30, 1)
    with pytest.raises(UserError, match="into 0 and 30"):
        check_splits(environments, [0], 1 - 1e-17, 1)
