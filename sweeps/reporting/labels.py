"""What tables and figures call quantities, axes and budgets."""

from __future__ import annotations

from ..claims import ACCURACY, CLEAN, read_eps
from .arrangement import MEASURE, ROW, Arrangement

_AXES = {
    "eta": "η, weight of the contrastive loss",
    "alpha": "α of the Beta distribution of the mixing factors",
    "temperature": "temperature τ of the contrastive loss",
    "lambda_n": "λn, least mixing factor of generated negatives",
    "lambda_p": "λp, least mixing factor of generated positives",
    "dim": "dimension of the projection head (features)",
    "projection_dim": "dimension of the projection head (features)",
    "depth": "depth of the projection head (layers)",
    "projection_depth": "depth of the projection head (layers)",
    "lr": "learning rate",
    "dataset": "data set",
    "target": "target domain, which was not trained on",
    "share": "share of the training images",
    MEASURE: "budget of the attack",
    ROW: "method",
}
_QUANTITIES = {
    "finetune": "test accuracy, top-1 (%)",
    "dg": "accuracy on the target domain, top-1 (%)",
    "domainbed": "accuracy on the target domain, top-1 (%)",
}
_NORMS = {"l2": "L2", "linf": "L-infinity"}


def axis_label(axis: str) -> str:
    """What an axis is called beside a table or a figure; an unknown one keeps its name."""
    return _AXES.get(axis, axis)


def quantity_label(arrangement: Arrangement) -> str:
    """The quantity of an arrangement with its unit."""
    if arrangement.command in _QUANTITIES:
        return _QUANTITIES[arrangement.command]
    return f"{quantity_name(arrangement.quantity)} (%)"


def quantity_name(quantity: str) -> str:
    """A quantity without its unit; of `robust` it is "clean", or the name of an attack."""
    names = {ACCURACY: ACCURACY, CLEAN: "accuracy without an attack"}
    return names.get(quantity, f"accuracy under {quantity}")


def name_value(axis: str, value: str) -> str:
    """A value of an axis, with the axis where it is a bare number or share, such as "eta 0.1"."""
    return f"{axis} {value}" if axis != ROW and value[:1].isdigit() else value


def describe_where(arrangement: Arrangement) -> str:
    """The axes that do not vary and the rule of model selection, such as "cifar10"; or ""."""
    said = [name_value(*each) for each in arrangement.fixed.items() if each[1]]
    if arrangement.measure:
        said.append(f"selected by {arrangement.measure}")
    return ", ".join(said)


def norm_label(norm: str) -> str:
    """ "L2" of "l2", and so on."""
    return _NORMS.get(norm, norm)


def read_budget(measure: str) -> tuple[str, float, str]:
    """Norm, eps and eps as it is written, of a measure such as "linf 4/255"."""
    norm, _, eps = measure.partition(" ")
    return norm, read_eps(eps), eps
