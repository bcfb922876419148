"""AutoAttack's parts by pyautoattack, its authors' code (Croce and Hein, 2020).

pyautoattack 0.2.0 cannot continue from the state file that it writes: its set of attacks comes
back as text, and the comparison with it always fails. So its attacks are called one by one, a
batch at a time, in the order and with the settings of its standard version, and what has been
found is kept by `measure`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# The version for randomised models: the gradient is a mean over so many forward passes, the
# "expectation over transformation" of Athalye et al. (2018).
RAND = ("apgd-ce", "apgd-dlr")
EOT_PASSES = 20
QUERIES = 5000
# Target classes of APGD-T and FAB-T in the standard version.
TARGETS = 9
_NORMS = {"l2": "L2", "linf": "Linf"}
_LOGGER = "auto-attack"


def check_pyautoattack() -> None:
    """Raise a UserError if pyautoattack is missing."""
    if importlib.util.find_spec("pyautoattack") is None:
        raise UserError(
            "AutoAttack and Square need pyautoattack, which is not installed: "
            "pip install 'core-tuning[robustness]'."
        )


def attacks_for(num_classes: int) -> tuple[tuple[str, ...], str]:
    """Choose what AutoAttack runs on a model of so many classes.

    The targeted difference-of-logits-ratio loss of APGD-T divides by the third and fourth largest
    logit, and the untargeted one by the third largest: they need four and three classes.

    Returns:
        Names of attacks, and a sentence on what differs from the standard version, "" if nothing.
    """
    if num_classes >= 4:
        if num_classes > TARGETS:
            return STANDARD, ""
        return STANDARD, (
            f"AutoAttack standard targets {TARGETS} classes; a model of {num_classes} classes has "
            f"{num_classes - 1} to target, and all of them are."
        )
    instead = ("apgd-dlr",) if num_classes == 3 else ()
    names = ("apgd-ce", *instead, "fab-t", "square")
    return names, (
        f"AutoAttack standard needs at least 4 classes for APGD-T's loss and the model has "
        f"{num_classes}: {', '.join(names)} were run instead."
    )


def randomised_attacks_for(num_classes: int) -> tuple[tuple[str, ...], str]:
    """Choose what AutoAttack's rand version runs; like `attacks_for`."""
    if num_classes >= 3:
        return RAND, ""
    return RAND[:1], (
        "AutoAttack rand needs at least 3 classes for APGD-DLR's loss and the model has "
        f"{num_classes}: apgd-ce alone was run."
    )


def run_attack(
    name: str,
    view: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    seed: int,
    *,
    queries: int = QUERIES,
    version: str = "standard",
) -> Tensor:
    """Run one of AutoAttack's attacks with the settings of one of its versions.

    The global random state is left as it was, which pyautoattack reseeds.

    Args:
        name: "apgd-ce", "apgd-t", "apgd-dlr", "fab-t" or "square".
        view: images (n, 3, h, w) in [0, 1] to logits (n, K); its parameters need no gradient.
        images: what is attacked, on the device of `view`.
        labels: true classes (n,).
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        seed: of the attack's random numbers.
        queries: of Square, for each image.
        version: "standard", or "rand" for a randomised model.

    Returns:
        Images (n, 3, h, w): adversarial where one was found, unchanged elsewhere.
    """
    check_pyautoattack()
    from pyautoattack import AutoAttack

    devices = range(torch.cuda.device_count()) if images.is_cuda else ()
    with torch.random.fork_rng(devices=devices), _keep_trace_function():
        with torch.no_grad():
            classes = view(images[:1]).shape[1]
        adversary = AutoAttack(
            view, norm=_NORMS[norm], eps=eps, seed=seed, device=images.device, version=version
        )
        adversary.attacks_to_run = [name]
        targets = min(TARGETS, classes - 1)
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = targets
        adversary.square.n_queries = queries
        found, _ = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
    return found


@contextmanager
def _keep_trace_function() -> Iterator[None]:
    # pyautoattack's check for dynamic defences removes a debugger's or coverage's trace function.
    trace = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(trace)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what pyautoattack warns of, once each, in place of its lines on stderr."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split()).split(" See flags_doc.md")[0]
            if text not in found:
                found.append(text)

    logger = logging.getLogger(_LOGGER)
    handler, propagate = Collect(level=logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
