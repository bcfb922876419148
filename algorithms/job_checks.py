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
from .folders import check_domains, count_images, subfolders
from .hyperparameters import (
    ALGORITHMS,
    CHECKPOINT_VARIABLE,
    DEBUG,
    EMOJI,
    check_hparams,
    default_hparams,
)
from .scripts import check_text

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
    listed = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    # DomainBed's own parser refuses what is not a number at all.
    numbers = [int(value) for value in values if value.lstrip("-").isdecimal()]
    for number in numbers:
        if not 0 <= number < len(names):
            raise UserError(f"{dataset} has no environment {number} to test on: it has {listed}.")
        if numbers.count(number) > 1:
            raise UserError(f"--test_envs names {number} twice: name each environment once.")
    if len(numbers) == len(names):
        raise UserError(
            f"--test_envs names all environments of {dataset}, {listed}: leave one or more to "
            "train on."
        )


def check_fraction(value: str | float | None) -> None:
    """Refuse a --holdout_fraction that leaves nothing to train on or to validate with.

    Raises:
        UserError: it is not between 0 and 1.
    """
    try:
        fraction = 0.5 if value is None else float(value)
    except ValueError:
        return  # DomainBed's own parser refuses what is not a number at all.
    if not 0 < fraction < 1:
        raise UserError(f"--holdout_fraction is {value}: expected above 0, below 1.")


def check_seed(option: str, value: str | None) -> None:
    """Refuse a seed that numpy's generator cannot take.

    Raises:
        UserError: it is below 0 or has more than 32 bits.
    """
    if value is not None and value.lstrip("-").isdecimal() and not 0 <= int(value) < 2**32:
        raise UserError(f"{option} is {value}: expected 0 to {2**32 - 1}.")


def check_algorithm_hparams(algorithm: str, dataset: str, given: Mapping[str, Any]) -> None:
    """Check the hyper-parameters that a user gives, and that a checkpoint named by them is there.

    Raises:
        UserError: one of our algorithms does not know a name, has no checkpoint, or it is missing.
    """
    ours = algorithm in ALGORITHMS
    # Of other algorithms only what is read here: their checkout may have any others.
    read_here = {name: given[name] for name in ("batch_size", "checkpoint") if name in given}
    check_hparams(algorithm, given if ours else read_here)
    default = default_hparams(algorithm, dataset)["checkpoint"] if ours else ""
    checkpoint = given.get("checkpoint", default)
    if ours and not checkpoint:
        raise UserError(
            f"{algorithm} has no checkpoint to start from on {dataset}: name a self-supervised "
            f"""one by --hparams '{{"checkpoint": "moco_v2_800ep_pretrain.pth.tar"}}' or by the """
            f"environment variable {CHECKPOINT_VARIABLE}."
        )
    if not checkpoint or checkpoint in (EMBEDDED, RANDOM):
        return
    check_text(checkpoint, "The checkpoint")
    if not Path(checkpoint).is_file():
        raise UserError(
            f"The checkpoint {checkpoint} is not a file: name one by the hyper-parameter "
            f"checkpoint or by the environment variable {CHECKPOINT_VARIABLE}."
        )


def check_data(dataset: str, data_dir: str | None) -> None:
    """Check that --data_dir holds a data set.

    Raises:
        UserError: it is not given, is not a folder, or lacks the data set, or DomainBed would
            read wrong labels from it.
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
            f"--data_dir is {data_dir}, which is not a folder: name the one with {dataset}."
        )
    if dataset not in FOLDERS:
        return
    folder = Path(data_dir, FOLDERS[dataset])
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {data_dir} holds no {FOLDERS[dataset]}/: put {dataset} there as "
            f"{FOLDERS[dataset]}/DOMAIN/CLASS/IMAGES, or name another folder."
        )
    check_domains(folder, len(domainbed_module("datasets").get_dataset_class(dataset).ENVIRONMENTS))


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
