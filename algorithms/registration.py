"""Makes DomainBed know Core-tuning's algorithms and data set, without changing a file of its.

Each function patches one module, so that the import hook can patch a module as it is imported.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from core_tuning.errors import UserError

from .algorithm import CECon, CETuning, CoreTuning
from .checkout import DEFAULT_COMMIT
from .emoji_dataset import emoji_domains_class
from .hyperparameters import (
    ALGORITHMS,
    DOMAINBED_STEPS,
    EMOJI,
    default_hparams,
    random_hparams,
)
from .import_hook import PATCHES
from .launchers import add_launchers
from .script_options import steps_of_train
from .starting_point import StartingPoint

# DomainBed chooses hyper-parameters of small images by the data set's name; this is one of them.
SMALL_IMAGES = "RotatedMNIST"
LARGEST_EMOJI_BATCH = 256
_MARK = "_patched_by_core_tuning"

Hparams = dict[str, tuple[Any, Any]]


def register() -> None:
    """Make the importable `domainbed` know CoreTuning, CECon, CETuning and EmojiDomains.

    Its own algorithms start from a checkpoint where their hyper-parameters name one, and a domain
    that is smaller than a batch is an error instead of an endless wait. May be called again.

    Raises:
        UserError: DomainBed or something that it imports is not there, or one of the names is
            taken by something else.
    """
    for name, patch in PATCHES.items():
        globals()[patch](_import(name))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing.split(".")[0] == "domainbed":
            raise UserError(
                f"Python finds no module {missing}: work in a DomainBed checkout, or run "
                "'core-tuning domainbed install' and then 'core-tuning domainbed train'."
            ) from error
        raise UserError(
            f"DomainBed imports '{missing}', which is not installed: "
            "run pip install 'core-tuning[domainbed]'."
        ) from error


def patch_algorithms(module: ModuleType) -> None:
    """Add the three algorithms to `domainbed.algorithms`."""
    for algorithm in (CoreTuning, CECon, CETuning):
        _add(module, algorithm.__name__, algorithm, module.ALGORITHMS)


def patch_command_launchers(module: ModuleType) -> None:
    """Add Core-tuning's launchers to `domainbed.command_launchers`."""
    add_launchers(module.REGISTRY)


def patch_datasets(module: ModuleType) -> None:
    """Add EmojiDomains to `domainbed.datasets`."""
    _add(module, EMOJI, emoji_domains_class(module.MultipleDomainDataset), module.DATASETS)


def patch_hparams_registry(module: ModuleType) -> None:
    """Make `default_hparams` and `random_hparams` know our algorithms and data set."""
    _wrap(module, "_hparams", _with_our_hparams)


def patch_networks(module: ModuleType) -> None:
    """Let `Featurizer` start from the checkpoint that hyper-parameters name."""
    _wrap(module, "Featurizer", _with_checkpoints)


def patch_fast_data_loader(module: ModuleType) -> None:
    """Refuse domains that can never fill a batch."""
    _wrap(module.InfiniteDataLoader, "__init__", _with_size_check)


def _add(module: ModuleType, name: str, value: type, listed: list[str]) -> None:
    present = getattr(module, name, None)
    if present is not None and not _is_ours(present):
        raise UserError(
            f"{module.__name__} has a '{name}' of its own ({_place(module)}), which Core-tuning "
            "would hide: rename that one, or use another checkout, such as that of "
            "'core-tuning domainbed install'."
        )
    if present is None:
        setattr(module, name, value)
    if name not in listed:
        listed.append(name)


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(f"{__package__}.")


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "no file")


def _wrap(owner: Any, name: str, wrapper: Callable[[Callable], Callable]) -> None:
    original = getattr(owner, name, None)
    if original is None:
        raise UserError(
            f"{owner.__name__} has no '{name}': this copy of DomainBed differs too much from "
            f"commit {DEFAULT_COMMIT[:7]}, which 'core-tuning domainbed install' fetches."
        )
    if hasattr(original, _MARK):
        return
    wrapped = functools.wraps(original)(wrapper(original))
    setattr(wrapped, _MARK, True)
    setattr(owner, name, wrapped)


def _with_our_hparams(original: Callable[..., Hparams]) -> Callable[..., Hparams]:
    def hparams(algorithm: str, dataset: str, random_seed: int) -> Hparams:
        if algorithm not in ALGORITHMS:
            if dataset != EMOJI:
                return original(algorithm, dataset, random_seed)
            return _with_small_batches(original(algorithm, SMALL_IMAGES, random_seed))
        # DomainBed never tells an algorithm the number of steps, which the schedule needs.
        steps = steps_of_train(sys.argv) or DOMAINBED_STEPS
        drawn = random_hparams(algorithm, dataset, random_seed, steps=steps)
        defaults = default_hparams(algorithm, dataset, steps=steps)
        return {name: (default, drawn[name]) for name, default in defaults.items()}

    return hparams


def _with_small_batches(hparams: Hparams) -> Hparams:
    # Random batches of DomainBed's MNIST sets are larger than the smallest domain's 488 images.
    default, drawn = hparams["batch_size"]
    return {**hparams, "batch_size": (default, min(drawn, LARGEST_EMOJI_BATCH))}


def _with_checkpoints(original: Callable) -> Callable:
    def featurizer(input_shape: Any, hparams: Any) -> Any:
        if hparams.get("checkpoint"):
            return StartingPoint(input_shape, hparams)
        return original(input_shape, hparams)

    return featurizer


def _with_size_check(original: Callable[..., None]) -> Callable[..., None]:
    def initialise(
        self: Any, dataset: Any, weights: Any, batch_size: int, num_workers: int
    ) -> None:
        # With weights as many samples are drawn as a batch takes, whatever the domain's size.
        if weights is None and len(dataset) < batch_size:
            raise UserError(too_small(_domain_name(dataset), len(dataset), batch_size))
        original(self, dataset, weights, batch_size, num_workers)

    return initialise


def too_small(domain: str, size: int, batch_size: int) -> str:
    """Say that a domain's training split cannot fill a batch."""
    return (
        f"{domain} has {size} images to train on, fewer than the batch_size of {batch_size} a "
        "domain, and DomainBed would wait for a full batch for ever: lower it, "
        f"""--hparams '{{"batch_size": {size}}}'."""
    )


def _domain_name(split: Any) -> str:
    domain = getattr(split, "underlying_dataset", split)
    while hasattr(domain, "underlying_dataset"):
        domain = domain.underlying_dataset
    if hasattr(domain, "root"):
        return f"The domain {Path(domain.root).name}"
    return f"The domain {domain.name}" if hasattr(domain, "name") else "A domain"
