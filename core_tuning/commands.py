"""The table of all commands: where each one's function and options are, by name.

Nothing is imported before a command is known, so that --help answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .options import Options


class Command(NamedTuple):
    """A command: where its function is, where its options are declared, and what it does.

    Attributes:
        main: "module:function", called with the options, and returning an exit code or None.
        options: "module:dataclass"; "" for a function that takes the arguments themselves.
        summary: a line of the list of commands.
    """

    main: str
    options: str
    summary: str

    def options_class(self) -> type[Options]:
        """The dataclass of its options."""
        found: type[Options] = named(self.options)
        return found


def named(path: str) -> Any:
    """Import what "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


# Subpackages may not import each other: here `algorithms` finds who has launchers for DomainBed.
DOMAINBED_LAUNCHERS = "core_tuning.sweeps.domainbed_launchers"
COMMANDS = {
    "demo": Command(
        "core_tuning.algorithms.demo:main", "core_tuning.algorithms.config:Demo",
        "compare CE, CE-Con and Core-tuning on the embedded data, one domain left out",
    ),
    "finetune": Command(
        "core_tuning.classification.finetune:main", "core_tuning.config:Finetune",
        "fine-tune a checkpoint on a standard data set or a folder of images",
    ),
    "evaluate": Command(
        "core_tuning.classification.evaluate:main", "core_tuning.classification.config:Evaluate",
        "measure a finished run again, or on another data set",
    ),
    "robust train": Command(
        "core_tuning.robustness.train:main", "core_tuning.robustness.config:RobustTrain",
        "fine-tune adversarially",
    ),
    "robust evaluate": Command(
        "core_tuning.robustness.evaluate:main", "core_tuning.robustness.config:RobustEvaluate",
        "measure robustness without being misled",
    ),
    "dg": Command(
        "core_tuning.algorithms.dg:main", "core_tuning.algorithms.config:DomainGeneralisation",
        "leave-one-domain-out training by DomainBed's protocol, without DomainBed",
    ),
    "domainbed install": Command(
        "core_tuning.algorithms.checkout:main", "core_tuning.algorithms.config:Install",
        "clone DomainBed into the cache",
    ),
    "domainbed doctor": Command(
        "core_tuning.algorithms.doctor:main", "core_tuning.algorithms.config:Doctor",
        "say what a DomainBed run needs, what is found, and what to do",
    ),
    "domainbed train": Command(
        "core_tuning.algorithms.domainbed:train", "",
        "DomainBed's train, with our names; same arguments and --workers",
    ),
    "domainbed sweep": Command(
        "core_tuning.algorithms.domainbed:sweep", "",
        "DomainBed's sweep, checked before and reported after",
    ),
    "domainbed collect_results": Command(
        "core_tuning.algorithms.domainbed:collect_results", "",
        "DomainBed's tables of a sweep's results",
    ),
    "domainbed list_top_hparams": Command(
        "core_tuning.algorithms.domainbed:list_top_hparams", "",
        "DomainBed's list of the best of a sweep",
    ),
    "domainbed enable": Command(
        "core_tuning.algorithms.hook:enable_command", "core_tuning.algorithms.config:Enable",
        "make plain DomainBed commands of this environment know our names",
    ),
    "domainbed disable": Command(
        "core_tuning.algorithms.hook:disable_command", "core_tuning.algorithms.config:Disable",
        "undo enable",
    ),
    "sweep list": Command(
        "core_tuning.sweeps.run:list_sweeps", "core_tuning.sweeps.config:List",
        "the sweeps that can be run",
    ),
    "sweep run": Command(
        "core_tuning.sweeps.run:main", "core_tuning.sweeps.config:Run",
        "make the runs of a sweep, or go on with them; --dry-run only shows them",
    ),
    "sweep status": Command(
        "core_tuning.sweeps.status:main", "core_tuning.sweeps.config:Status",
        "what is done, running, failed and left",
    ),
    "sweep retry": Command(
        "core_tuning.sweeps.run:retry", "core_tuning.sweeps.config:Retry",
        "make failed runs again",
    ),
    "sweep report": Command(
        "core_tuning.sweeps.reporting.report:main", "core_tuning.sweeps.config:Report",
        "tables and a page of what is finished, beside the paper's",
    ),
    "inspect": Command(
        "core_tuning.checkpoints.inspect:main", "core_tuning.checkpoints.inspect:Inspect",
        "say what a checkpoint file is and how to load it",
    ),
}  # fmt: skip
