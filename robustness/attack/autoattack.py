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
from logging.handlers import BufferingHandler

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError

QUERIES = 5000
# Target classes of APGD-T and FAB-T in the standard version.
TARGETS = 9
_NORMS = {"l2": "L2", "linf": "Linf"}


def check_pyautoattack() -> None:
    """Raise a UserError if pyautoattack is missing."""
    if importlib.util.find_spec("pyautoattack") is None:
        raise UserError(
            "AutoAttack and Square need pyautoattack, which is not installed: "
            "pip install 'core-tuning[robustness]'."
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
    from pyautoattack import AutoAttack

    devices = range(torch.cuda.device_count()) if images.is_cuda else ()
    trace = sys.gettrace()
    with torch.random.fork_rng(devices=devices):
        with torch.no_grad():
            classes = view(images[:1]).shape[1]
        adversary = AutoAttack(
            view, norm=_NORMS[norm], eps=eps, seed=seed, device=images.device, version=version
        )
        adversary.attacks_to_run = [name]
        targets = min(TARGETS, classes - 1)
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = targets
        adversary.square.n_queries = queries
        try:
            found, _ = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
        finally:
            # Its check for dynamic defences removes a debugger's or coverage's trace function.
            sys.settrace(trace)
    return found


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Fill a list at the end with what pyautoattack warned of, once each, and print none of it."""
    found: list[str] = []
    logger, handler = logging.getLogger("auto-attack"), BufferingHandler(sys.maxsize)
    propagate = logger.propagate
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        texts = (" ".join(record.getMessage().split()) for record in handler.buffer)
        found += dict.fromkeys(text.split(" See flags_doc.md")[0] for text in texts)
