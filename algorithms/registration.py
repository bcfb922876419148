"""Makes DomainBed know Core-tuning's algorithms and data set, without changing a file of its.

Each function patches one module, so that the import hook can patch a module as it is imported.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from core_tuning.commands import DOMAINBED_LAUNCHERS
from core_tuning.errors import UserError

from .algorithm import CLASSES
from .checkout import DEFAULT_COMMIT
from .emoji_dataset import emoji_domains_class
from .featurizer import StartingPoint
from .folders import check_domains
from .hook import PATCHES, suspended
from .hyperparameters import ALGORITHMS, EMOJI, default_hparams, random_hparams
from .script_options import run_steps

# DomainBed chooses hyper-parameters of small images by the data set's name; this is one of them.
SMALL_IMAGES = "RotatedMNIST"
LARGEST_EMOJI_BATCH = 256
_MARK = "_patched_by_core_tuning"
_TESTED = f"commit {DEFAULT_COMMIT[:7]}, which 'core-tuning domainbed install' fetches"

Hparams = dict[str, tuple[Any, Any]]
Instead = Callable[[Callable, inspect.BoundArguments], Any]


def register() -> None:
    """Make the importable `domainbed` know CoreTuning, CECon, CETuning and EmojiDomains.

    Its own algorithms start from a checkpoint where their hyper-parameters name one; a domain
    that is smaller than a batch and folders that give wrong labels are errors. May be called
    again.

    Raises:
        UserError: DomainBed or something that it imports is not there or broken, this copy of it
            lacks what is patched, or one of the names is taken. Nothing is patched then.
    """
    with suspended(), ExitStack() as undo:
        for name in PATCHES:
            patch(_import(name), undo)
        undo.pop_all()


def patch(module: ModuleType, undo: ExitStack) -> None:
    """Patch one of the modules of `PATCHES`, which is imported.

    Args:
        module: of DomainBed.
        undo: receives what takes each change back.

    Raises:
        UserError: this copy of DomainBed lacks what is patched, or a name is taken.
    """
    globals()[PATCHES[module.__name__]](module, undo)


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
    except Exception as error:  # Whatever the changes that somebody made to a copy raise.
        raise UserError(
            f"{name} cannot be imported ({type(error).__name__}: {error}{_line_of(error)}): mend "
            f"this copy of DomainBed, or use {_TESTED}."
        ) from error


def _line_of(error: Exception) -> str:
    """Return the last line of DomainBed's that an error has passed, for those who change it."""
    folders = tuple(getattr(sys.modules.get("domainbed"), "__path__", ()))
    theirs = [
        f"; {frame.filename}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(folders)
    ]
    return theirs[-1] if theirs else ""


def patch_algorithms(module: ModuleType, undo: ExitStack) -> None:
    """Add our algorithms to `domainbed.algorithms`."""
    listed = _needed(module, "ALGORITHMS", list)
    for algorithm in CLASSES.values():
        _add(module, algorithm.__name__, algorithm, listed, undo)


def patch_command_launchers(module: ModuleType, undo: ExitStack) -> None:
    """Add Core-tuning's launchers to `domainbed.command_launchers`."""
    registry = _needed(module, "REGISTRY", dict)
    before = set(registry)
    add_launchers(registry)
    for name in set(registry) - before:
        undo.callback(registry.pop, name, None)


def add_launchers(registry: MutableMapping[str, Callable], place: Any = None) -> None:
    """Add Core-tuning's launchers to DomainBed's registry.

    Args:
        registry: to change.
        place: where they run jobs; None reads it from the environment when they are called.

    Raises:
        UserError: the checkout has another launcher by the name of one; nothing was added.
    """
    ours = importlib.import_module(DOMAINBED_LAUNCHERS).launchers(place)
    for name, launcher in ours.items():
        present = registry.get(name, launcher)
        if not str(getattr(present, "__module__", "")).startswith("core_tuning."):
            raise UserError(
                f"This checkout has a launcher '{name}' of its own, which Core-tuning's would "
                "hide: rename that one, or use another checkout."
            )
    registry.update(ours)


def patch_datasets(module: ModuleType, undo: ExitStack) -> None:
    """Add EmojiDomains to `domainbed.datasets`, and refuse folders that give wrong labels."""
    listed = _needed(module, "DATASETS", list)
    emoji = emoji_domains_class(_needed(module, "MultipleDomainDataset", type))
    _add(module, EMOJI, emoji, listed, undo)
    folders = getattr(module, "MultipleEnvironmentImageFolder", None)
    # A copy that reads its folders by other means is on its own.
    if "root" in _parameters(getattr(folders, "__init__", None)):
        _wrap(folders, "__init__", ("root",), _check_labels, undo)


def patch_hparams_registry(module: ModuleType, undo: ExitStack) -> None:
    """Make `default_hparams` and `random_hparams` know our algorithms and data set."""
    _wrap(module, "_hparams", ("algorithm", "dataset", "random_seed"), _hparams, undo)


def patch_networks(module: ModuleType, undo: ExitStack) -> None:
    """Let `Featurizer` start from the checkpoint that hyper-parameters name."""
    _wrap(module, "Featurizer", ("input_shape", "hparams"), _featurizer, undo)


def patch_fast_data_loader(module: ModuleType, undo: ExitStack) -> None:
    """Refuse domains that can never fill a batch."""
    loader = _needed(module, "InfiniteDataLoader", type)
    _wrap(loader, "__init__", ("dataset", "weights", "batch_size"), _check_size, undo)


def _needed(module: ModuleType, name: str, kind: type) -> Any:
    value = getattr(module, name, None)
    if not isinstance(value, kind):
        what = "class" if kind is type else kind.__name__
        raise _differs(f"{module.__name__} has no {what} '{name}'")
    return value


def _differs(what: str) -> UserError:
    return UserError(f"{what}: this copy of DomainBed differs too much from {_TESTED}.")


def _add(module: ModuleType, name: str, value: type, listed: list[str], undo: ExitStack) -> None:
    present = getattr(module, name, None)
    if present is not None and not _is_ours(present):
        raise UserError(
            f"{module.__name__} has a '{name}' of its own ({_place(module)}), which Core-tuning "
            "would hide: rename that one, or use another checkout, such as that of "
            "'core-tuning domainbed install'."
        )
    if present is None:
        _set(module, name, value, undo)
    if name not in listed:
        listed.append(name)
        undo.callback(_take_out, listed, name)


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(f"{__package__}.")


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "no file")


def _take_out(listed: list[str], name: str) -> None:
    if name in listed:
        listed.remove(name)


def _set(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(_delete, owner, name)
    setattr(owner, name, value)


def _delete(owner: Any, name: str) -> None:
    if name in vars(owner):
        delattr(owner, name)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters if inspect.isfunction(function) else {}


def _wrap(
    owner: Any, name: str, parameters: Sequence[str], instead: Instead, undo: ExitStack
) -> None:
    """Put a wrapper in the place of a function, which passes on whatever else it is given.

    Args:
        owner: module or class.
        name: of the function there. A class of this name is not a function: others may inherit it.
        parameters: what `instead` reads by name.
        instead: is given the function and its arguments.
        undo: receives what puts the function back.
    """
    original = getattr(owner, name, None)
    if hasattr(original, _MARK):
        return
    if original is None or not set(parameters) <= set(_parameters(original)):
        raise _differs(f"{owner.__name__} has no function '{name}' of {', '.join(parameters)}")
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapper(*given: Any, **named: Any) -> Any:
        call = signature.bind(*given, **named)
        call.apply_defaults()
        return instead(original, call)

    setattr(wrapper, _MARK, True)
    _set(owner, name, wrapper, undo)


def _hparams(original: Callable[..., Hparams], call: inspect.BoundArguments) -> Hparams:
    values = call.arguments
    algorithm, dataset = values["algorithm"], values["dataset"]
    if algorithm not in ALGORITHMS:
        if dataset != EMOJI:
            return original(*call.args, **call.kwargs)
        values["dataset"] = SMALL_IMAGES
        return _with_small_batches(original(*call.args, **call.kwargs))
    # DomainBed never tells an algorithm the number of steps, which the schedule needs.
    _import("domainbed.datasets")
    steps = run_steps(dataset)
    drawn = random_hparams(algorithm, dataset, values["random_seed"], steps=steps)
    defaults = default_hparams(algorithm, dataset, steps=steps)
    return {name: (default, drawn[name]) for name, default in defaults.items()}


def _with_small_batches(hparams: Hparams) -> Hparams:
    # Random batches of DomainBed's MNIST sets are larger than the smallest domain's 488 images.
    default, drawn = hparams["batch_size"]
    return {**hparams, "batch_size": (default, min(drawn, LARGEST_EMOJI_BATCH))}


def _featurizer(original: Callable, call: inspect.BoundArguments) -> Any:
    hparams = call.arguments["hparams"]
    if hparams.get("checkpoint"):
        return StartingPoint(call.arguments["input_shape"], hparams)
    return original(*call.args, **call.kwargs)


def _check_labels(original: Callable, call: inspect.BoundArguments) -> None:
    dataset, root = call.args[0], call.arguments["root"]
    if isinstance(root, (str, os.PathLike)):
        check_domains(Path(root), len(getattr(dataset, "ENVIRONMENTS", None) or ()))
    original(*call.args, **call.kwargs)


def _check_size(original: Callable, call: inspect.BoundArguments) -> None:
    dataset, batch_size = call.arguments["dataset"], call.arguments["batch_size"]
    # With weights as many samples are drawn as a batch takes, whatever the domain's size.
    if call.arguments["weights"] is None and len(dataset) < batch_size:
        raise UserError(too_small(_domain_name(dataset), len(dataset), batch_size))
    original(*call.args, **call.kwargs)


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
