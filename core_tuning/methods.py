"""Every fine-tuning method: what commands, sweeps and reports know of it. Imports no torch.

A new method is a class and an entry of METHODS. The class is an `Objective` of objectives.py,
`cls(feature_dim=, num_classes=, **hyperparameters)` (of the sizes those that it has).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import UserError
from .options import Option, Options, declared, option

if TYPE_CHECKING:
    from torch import nn

PAPER_GRID = (0.1, 1.0, 10.0)


@dataclass(kw_only=True)
class CrossEntropy(Options):
    """method"""

    mixing: str = option(
        "none",
        "hard: hardness-directed mixup, Core-tuning's; manifold: manifold mixup for the "
        "classifier alone; none (Table 2)",
        choices=("none", "manifold"),
    )
    alpha: float = option(1.0, "of Beta(alpha, alpha); try 0.1, 1, 10", search=PAPER_GRID)


@dataclass(kw_only=True)
class Contrastive(Options):
    """method"""

    eta: float = option(0.1, "weight of the contrastive loss; try 0.1, 1, 10", search=PAPER_GRID)
    temperature: float = option(0.07, "of the contrastive loss")
    projection_dim: int = option(256, "width of the contrastive features")
    projection_depth: int = option(2, "layers of the projection head, 1 to 5")


@dataclass(kw_only=True)
class Released(Contrastive):
    """method"""

    alpha: float = option(1.0, "of Beta(alpha, alpha); try 0.1, 1, 10", search=PAPER_GRID)
    lambda_n: float = option(0.8, "lower clip for hard negatives (Table 22)")
    lambda_p: float = option(0.0, "lower clip for hard positives (Table 22)")


@dataclass(kw_only=True)
class CoreTuning(Released):
    """method"""

    mixing: str = option(
        "hard",
        "hard: hardness-directed mixup, Core-tuning's; manifold: manifold mixup for the "
        "classifier alone; none (Table 2)",
        choices=("hard", "manifold", "none"),
    )
    focal: bool = option(True, "weigh all pairs alike (Table 2)")
    positives: str = option(
        "all", "which positives are contrasted (Table 23)", choices=("all", "generated")
    )
    smooth_classifier: bool = option(
        True, "do not train the classifier on the mixtures too (Table 24)"
    )


class Method(NamedTuple):
    """A way of fine-tuning.

    Attributes:
        path: of its class, as "module:name".
        title: in tables and figures.
        hyperparameters: dataclass of them; each is a keyword of the class.
        domainbed: name of the DomainBed algorithm.
        weighted: takes weights of the samples, as adversarial training with --adv-weight needs.
    """

    path: str
    title: str
    hyperparameters: type[Options]
    domainbed: str
    weighted: bool = True

    def defaults(self) -> dict[str, Any]:
        """Its hyper-parameters and their defaults."""
        return {each.name: each.default for each in declared(self.hyperparameters)}

    def build(self, feature_dim: int, num_classes: int, values: Mapping[str, Any]) -> nn.Module:
        """Make the objective for features (n, feature_dim).

        Raises:
            UserError: a hyper-parameter is out of its range.
        """
        module, _, name = self.path.partition(":")
        cls: type[nn.Module] = getattr(importlib.import_module(module), name)
        sizes = {"feature_dim": feature_dim, "num_classes": num_classes}
        takes = inspect.signature(cls).parameters
        return cls(**{size: value for size, value in sizes.items() if size in takes}, **values)


METHODS = {
    "ce": Method("core_tuning.objectives:CrossEntropyLoss", "CE", CrossEntropy, "CETuning"),
    "ce_con": Method("core_tuning.objectives:CEContrastiveLoss", "CE-Con", Contrastive, "CECon"),
    "core_tuning": Method(
        "core_tuning.objectives:CoreTuningLoss", "Core-tuning", CoreTuning, "CoreTuning"
    ),
    "released": Method(
        "core_tuning.released:ReleasedCoreTuningLoss",
        "Core-tuning, released",
        Released,
        "ReleasedCoreTuning",
        weighted=False,
    ),
}


def hyperparameters() -> list[Option]:
    """The hyper-parameters of all methods, each once; the method decides on their defaults."""
    found: dict[str, Option] = {}
    for method in reversed(METHODS.values()):
        for each in declared(method.hyperparameters):
            before = found.get(each.name, each)
            choices = (*before.declaration.choices, *each.declaration.choices)
            says = "that of the method" if each.name == "mixing" else before.declaration.says
            declaration = replace(
                before.declaration, choices=tuple(dict.fromkeys(choices)), says=says
            )
            found[each.name] = before._replace(declaration=declaration)
    return list(found.values())


def complete(
    names: list[str], given: Mapping[str, Any], preset: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The hyper-parameters of each method: those given, else the preset's, else its defaults.

    Raises:
        UserError: none of the methods has one that is given, or a value is not one of its choices.
    """
    completed = {}
    for name in names:
        values = METHODS[name].defaults()
        values = {each: {**preset, **given}.get(each, value) for each, value in values.items()}
        completed[name] = values
        for each in declared(METHODS[name].hyperparameters):
            choices, value = each.declaration.choices, values[each.name]
            if choices and value not in choices:
                raise UserError(
                    f"{each.flag} is '{value}' with --method {name}: expected one of "
                    f"{', '.join(choices)}."
                )
    for hyper in given:
        if not any(hyper in values for values in completed.values()):
            have = [name for name, method in METHODS.items() if hyper in method.defaults()]
            raise UserError(
                f"--{hyper.replace('_', '-')} is given with --method {' '.join(names)}, which does "
                f"not have it: leave it out, or choose --method {' or '.join(have)}."
            )
    return completed
