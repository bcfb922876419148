"""The options of `core-tuning dg` and `demo`, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_tuning.config import Machine, Model, Optimisation, Run, TrainingOptions, check_length
from core_tuning.errors import UserError
from core_tuning.methods import METHODS, complete, hyperparameters
from core_tuning.options import Options, option, redeclare, spread

from .names import ALGORITHMS, DATASETS, DOMAINBED_STEPS, EMOJI, nearest

ALL, PAIRS = "all", "pairs"
OF_HPARAMS = "a data set's, of --hparams or drawn"
# Options that are hyper-parameters of DomainBed's under other names or the same.
HPARAM_OF = {
    "encoder": "encoder", "pretrained": "checkpoint", "dropout": "resnet_dropout",
    "freeze_bn": "freeze_bn", "lr": "lr", "lr_decay": "lr_decay", "weight_decay": "weight_decay",
    "batch_size": "batch_size",
}  # fmt: skip


@dataclass(kw_only=True)
class Protocol(Options):
    """protocol"""

    dataset: str = option(
        EMOJI,
        f"{', '.join(DATASETS)} (the first is embedded), or the name of a folder in --data-dir "
        "with domain/class/* in it",
    )
    data_dir: Path | None = option(
        None,
        "holds PACS/, VLCS/, office_home/, terra_incognita/, domain_net/ or that folder",
        metavar="DIR",
    )
    scan: bool = option(True, "do not look at the header of every image before training")
    method: list[str] = option(
        ["core_tuning"],
        f"of {', '.join(METHODS)}, or DomainBed's names of them, {', '.join(ALGORITHMS)}",
        also=("--algorithm",),
        at_least=1,
    )
    hyperparameters: dict[str, Any] = spread(hyperparameters)
    test_envs: list[str] = option(
        ["0"],
        "numbers of the target domains of one run; 'all' for a run of each domain; 'pairs' for "
        "these and each pair, which leave-one-domain-out selection needs",
        metavar="I",
        at_least=1,
    )
    hparams: dict[str, Any] = option(
        {}, 'hyper-parameters by DomainBed\'s names, such as \'{"eta": 1.0, "batch_size": 16}\''
    )
    hparams_seed: list[int] = option(
        [0], "0 for the default hyper-parameters, others for random ones", metavar="S", at_least=1
    )
    holdout_fraction: float = option(0.2, "share of each domain that validates")
    image_size: int | None = option(
        None, "side of the network's input in pixels", says=f"224, {EMOJI} 32"
    )
    augmented_validation: bool = option(
        False, "augment the source domains' images in evaluations too, as DomainBed"
    )
    skip_training_splits: bool = option(
        False, "do not evaluate the images that are trained on: fewer forward passes"
    )
    skip_model_save: bool = option(False, "write no models")
    save_model_every_checkpoint: bool = option(False, "write the model of each evaluation")
    task: str = option(
        "domain_generalization", "the only one there is", choices=("domain_generalization",)
    )


@dataclass(kw_only=True)
class DomainGeneralisation(Protocol, TrainingOptions):
    """Domain generalisation by DomainBed's protocol, without DomainBed.

    Trains on all domains but the targets, and evaluates on every split of every domain. DomainBed's
    spellings of its options are taken too (--algorithm, --trial_seed, --checkpoint_freq,
    --output_dir); its folders are read by DomainBed's collect_results. Several methods, targets,
    seeds or hyper-parameter seeds make one run each, in folders of their own, and one table of all.

    Example: core-tuning dg --method ce core_tuning --test-envs all --seeds 0 1 2 --steps 1000
    """

    encoder: str | None = redeclare(Model, "encoder", None, says=OF_HPARAMS)
    pretrained: str | None = redeclare(
        Model, "pretrained", None, says=f"embedded for {EMOJI}; {OF_HPARAMS}"
    )
    dropout: float = redeclare(Model, "dropout", None, says=OF_HPARAMS)
    freeze_bn: bool = redeclare(Model, "freeze_bn", None, says="yes")
    steps: int | None = redeclare(
        Optimisation, "steps", None, says=f"{DOMAINBED_STEPS}, as DomainBed; the paper: 20000",
        help="optimiser steps",
    )  # fmt: skip
    epochs: int | None = redeclare(
        Optimisation, "epochs", None, help="passes over the smallest domain, in place of --steps"
    )
    batch_size: int = redeclare(
        Optimisation, "batch_size", None, help="images of each source a step", says=OF_HPARAMS
    )
    lr: float = redeclare(Optimisation, "lr", None, help="first learning rate", says=OF_HPARAMS)
    optimizer: str = redeclare(Optimisation, "optimizer", "adam")
    momentum: float = redeclare(Optimisation, "momentum", 0.9)
    nesterov: bool = redeclare(Optimisation, "nesterov", True, help="plain momentum")
    weight_decay: float = redeclare(Optimisation, "weight_decay", None, says=OF_HPARAMS)
    schedule: str = redeclare(Optimisation, "schedule", "exponential")
    lr_decay: float = redeclare(Optimisation, "lr_decay", None, says=OF_HPARAMS)
    # Images are kept decoded in memory, where one process keeps up with two cores.
    workers: int = redeclare(Machine, "workers", 1)
    seeds: list[int] = redeclare(
        Run, "seeds", None, says="0", also=("--trial_seed",),
        help="of the splits and of all else that is random, one run each",
    )  # fmt: skip
    output: Path | None = redeclare(Run, "output", Path("runs/dg"), also=("--output_dir",))
    eval_every: int | None = redeclare(
        Run, "eval_every", None, also=("--checkpoint_freq",), says="300, DomainNet 1000"
    )

    def complete(self) -> None:
        """Fill in the defaults, and check what concerns several options.

        Raises:
            UserError: options contradict each other.
        """
        if self.seeds is None:
            self.seeds = [0]
        super().complete()
        self.method = [_method(name) for name in self.method]
        for name in ("method", "hparams_seed"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(
                    f"--{name.replace('_', '-')} names {values}, one twice: name each once."
                )
        self.targets()
        if self.eval_every is None:
            layout = DATASETS.get(self.dataset)
            self.eval_every = layout.evaluate_every if layout else 300
        check_length(self.steps, self.epochs)
        if self.steps is None and self.epochs is None:
            self.steps = DOMAINBED_STEPS
        if "total_steps" in self.hparams:
            raise UserError(
                f"--hparams has total_steps = {self.hparams['total_steps']}: give the length of "
                "the run by --steps."
            )
        self._check_given_once()
        # Refuses what none of the methods has.
        complete(self.method, self.hyperparameters, {})

    def targets(self) -> str | list[int]:
        """Read --test-envs: "all", "pairs", or the numbers of one run."""
        given = self.test_envs
        if len(given) == 1 and given[0] in (ALL, PAIRS):
            return given[0]
        if not all(text.isdecimal() for text in given):
            raise UserError(
                f"--test-envs is '{' '.join(given)}': expected numbers of domains, '{ALL}' or "
                f"'{PAIRS}'."
            )
        return [int(text) for text in given]

    def given_hparams(self) -> dict[str, Any]:
        """The hyper-parameters that are given, by --hparams or by options of their own."""
        flags = {hparam: getattr(self, name) for name, hparam in HPARAM_OF.items()}
        flags |= self.hyperparameters
        return {
            **self.hparams, **{name: value for name, value in flags.items() if value is not None}
        }  # fmt: skip

    def _check_given_once(self) -> None:
        for name, value in self.given_hparams().items():
            if name in self.hparams and self.hparams[name] != value:
                raise UserError(
                    f"The hyper-parameter {name} is {value} and in --hparams "
                    f"{self.hparams[name]}: give it once."
                )


@dataclass(kw_only=True)
class Install(Options):
    """Clone DomainBed into the cache, where the other commands find it.

    A checkout that is the working folder comes before it, and then that of $DOMAINBED_ROOT.
    """

    source: str = option(
        "https://github.com/facebookresearch/DomainBed",
        "git repository to clone",
        metavar="URL|PATH",
    )
    commit: str | None = option(
        None,
        "commit, tag or branch",
        metavar="SHA",
        says="b93c22a of DomainBed's own repository, the HEAD of any other",
    )
    overwrite: bool = option(False, "replace the one that is there")


@dataclass(kw_only=True)
class Doctor(Options):
    """Say what a DomainBed run needs, what of it is found, and what to do.

    The exit code is 1 where something is wrong that training needs.
    """

    data_dir: Path | None = option(None, "folder of data sets, as DomainBed's", metavar="DIR")


@dataclass(kw_only=True)
class Enable(Options):
    """Make plain 'python -m domainbed.scripts.train' and sweep of this environment know our names.

    They are CoreTuning, CECon, CETuning, ReleasedCoreTuning and EmojiDomains.
    """


@dataclass(kw_only=True)
class Disable(Options):
    """Undo 'core-tuning domainbed enable'."""


def _method(name: str) -> str:
    """Return a method's name for that or DomainBed's name of it."""
    by_name = {method.domainbed: each for each, method in METHODS.items()}
    if name in by_name:
        return by_name[name]
    if name not in METHODS:
        known = [*METHODS, *by_name]
        close = nearest(name, known)
        others = "DomainBed's own run by 'core-tuning domainbed train'."
        raise UserError(
            f"--method is '{name}': expected one of {', '.join(known)}; "
            + (f"did you mean '{close}'?" if close else others)
        )
    return name


@dataclass(kw_only=True)
class Demo(Run):
    """Compare CE, CE-Con and Core-tuning on the embedded data, one domain left out.

    The embedded MoCo-v2 encoder is fine-tuned on three of the four domains of emoji_domains and
    tested on the fourth, each in turn: a table, figures and a report.html. 5 to 10 minutes on
    2 cores; nothing is downloaded.
    """

    steps: int = option(200, "optimiser steps of each run")
    seeds: list[int] = redeclare(Run, "seeds", None, says="0 1 2")
    output: Path | None = redeclare(Run, "output", Path("runs/demo"))
    eval_every: int | None = redeclare(Run, "eval_every", None, says="half of the steps")

    def complete(self) -> None:
        """Fill in the defaults, and check them."""
        if self.seeds is None:
            self.seeds = [0, 1, 2]
        super().complete()
