"""What would make a DomainBed job fail or hang, seen before it starts.

DomainBed's modules are looked up when a check runs, in the checkout that is in use.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.errors import UserError
from core_tuning.pretrained import EMBEDDED, RANDOM

from .environments import DATASETS
from .folders import count_images, subfolders
from .hyperparameters import (
    ALGORITHMS,
    CHECKPOINT_VARIABLE,
    DEBUG,
    EMOJI,
    check_hparams,
    default_hparams,
)

# Folders inside --data_dir of the data sets that are root/domain/class/images.
FOLDERS = {
    "SVIRO": "sviro",
    **{name: layout.folder for name, layout in DATASETS.items() if name != EMOJI},
}
# What they need of --data_dir: nothing, or a place to download to.
_WITHOUT_DATA = (EMOJI, *DEBUG)
_DOWNLOADED = ("RotatedMNIST", "ColoredMNIST")
_DEBUG_IMAGES = 16


def domainbed_module(name: str) -> ModuleType:
    """Return `domainbed.NAME`."""
    return importlib.import_module(f"domainbed.{name}")


def check_dataset_name(name: str) -> None:
    """Refuse a data set that DomainBed does not know.

    Raises:
        UserError: with the nearest one.
    """
    datasets = domainbed_module("datasets")
    if not getattr(vars(datasets).get(name), "ENVIRONMENTS", None):
        raise UserError(f"DomainBed has no data set '{name}': {nearest(name, datasets.DATASETS)}")


def check_algorithm_name(name: str) -> None:
    """Refuse an algorithm that DomainBed does not know.

    Raises:
        UserError: with the nearest one.
    """
    algorithms = domainbed_module("algorithms")
    found = vars(algorithms).get(name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(
            f"DomainBed has no algorithm '{name}': {nearest(name, algorithms.ALGORITHMS)}"
        )


def nearest(name: str, known: Collection[str]) -> str:
    """Say which of the known names is meant, or list them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(known)}."


def check_test_envs(dataset: str, values: Sequence[str]) -> None:
    """Refuse test environments that do not exist, with which DomainBed would test nothing.

    Raises:
        UserError: with the environments that there are.
    """
    names = domainbed_module("datasets").get_dataset_class(dataset).ENVIRONMENTS
    for value in values:
        # What is no number at all is for DomainBed's own parser to refuse.
        if value.lstrip("-").isdigit() and not 0 <= int(value) < len(names):
            listed = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
            raise UserError(f"{dataset} has no environment {value} to test on: it has {listed}.")


def check_algorithm_hparams(algorithm: str, dataset: str, given: Mapping[str, Any]) -> None:
    """Check the hyper-parameters that a user gives, and that a checkpoint named by them is there.

    Raises:
        UserError: one of our algorithms does not know a name, has no checkpoint, or it is missing.
    """
    ours = algorithm in ALGORITHMS
    if ours:
        check_hparams(algorithm, given)
    default = default_hparams(algorithm, dataset)["checkpoint"] if ours else ""
    checkpoint = given.get("checkpoint", default)
    if ours and not checkpoint:
        raise UserError(
            f"{algorithm} has no checkpoint to start from on {dataset}: name a self-supervised "
            f"""one by --hparams '{{"checkpoint": "moco_v2_800ep_pretrain.pth.tar"}}' or by the """
            f"environment variable {CHECKPOINT_VARIABLE}."
        )
    if checkpoint and checkpoint not in (EMBEDDED, RANDOM) and not Path(checkpoint).is_file():
        raise UserError(
            f"The checkpoint {checkpoint} is no file: name one by the hyper-parameter checkpoint "
            f"or by the environment variable {CHECKPOINT_VARIABLE}."
        )


def check_data(dataset: str, data_dir: str | None) -> None:
    """Check that --data_dir holds a data set.

    Raises:
        UserError: it is not given, is not a folder, or lacks the data set or one of its domains.
    """
    if dataset in _WITHOUT_DATA:
        return
    if data_dir is None:
        raise UserError(
            f"{dataset} is read from disk: name the folder that holds it by --data_dir."
        )
    if dataset in _DOWNLOADED:
        return
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data_dir is {data_dir}, which is no folder: name the one with {dataset}."
        )
    if dataset not in FOLDERS:
        return
    expected = len(domainbed_module("datasets").get_dataset_class(dataset).ENVIRONMENTS)
    folder = Path(data_dir, FOLDERS[dataset])
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {data_dir} holds no {FOLDERS[dataset]}/: put {dataset} there as "
            f"{FOLDERS[dataset]}/DOMAIN/CLASS/IMAGES, or name another folder."
        )
    found = [domain.name for domain in subfolders(folder)]
    if len(found) != expected:
        raise UserError(
            f"{folder} has {len(found)} folders ({', '.join(found) or 'none'}) where {dataset} has "
            f"{expected} domains, and DomainBed takes each folder for one: leave those alone there."
        )


@cache
def domain_sizes(dataset: str, data_dir: str | None) -> dict[str, int] | None:
    """Count the images of each domain, in DomainBed's order; None where they are not in folders.

    The data are there, as `check_data` makes sure.
    """
    if dataset in DEBUG:
        names = domainbed_module("datasets").get_dataset_class(dataset).ENVIRONMENTS
        return dict.fromkeys(names, _DEBUG_IMAGES)
    if dataset != EMOJI and dataset not in FOLDERS:
        return None
    root = emoji_domains_folder() if dataset == EMOJI else Path(str(data_dir), FOLDERS[dataset])
    return {domain.name: count_images(domain) for domain in subfolders(root)}
