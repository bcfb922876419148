"""The options of the training commands, each declared once, without importing torch.

A command of a subpackage declares what it has beyond these groups in that subpackage's config.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .files import field, read_json, require_file
from .methods import METHODS, complete, hyperparameters
from .options import Options, given_options, option, parse, spread, to_argv
from .presets import preset

if TYPE_CHECKING:
    from typing_extensions import Self

ENCODERS = (
    "a torchvision ResNet or ResNeXt, timm:NAME (timm:NAME,num_heads=N for other attention heads "
    "than the checkpoint's format or timm has), small_resnet or small_resnet_2x"
)
# What may differ when a run goes on: it changes nothing in the finished weights, or says where
# things lie now.
MOVABLE = frozenset(
    ("data_dir", "download", "scan", "workers", "memory", "checkpoint_minutes", "tensorboard",
     "allow_large_eps", "pretrained", "device")
)  # fmt: skip
# What says where a run goes, and not what it is.
PLACES = frozenset(("output", "resume", "overwrite"))
# How a run was made, and how several were that lie in folders beside the second.
RUN_FILES = ("run.json", "runs.json")


@dataclass(kw_only=True)
class Data(Options):
    """data"""

    dataset: str = option(
        "emoji_domains",
        "emoji_domains (embedded), cifar10, cifar100, dtd, aircraft, pets, flowers, "
        "flowers_kaggle, cars, caltech101, imagenet20, inat18, or 'folder' for "
        "DIR/{train,val}/CLASS/*, where val is the test set, or DIR/{train,val,test}/CLASS/*, "
        "where val selects the model; val may be called valid, validation or dev, and the others "
        "training, testing",
    )
    data_dir: Path | None = option(None, "where the data set lies", metavar="DIR")
    download: bool = option(False, "fetch it first, where torchvision can")
    scan: bool = option(
        True, "do not look at the header of every image of a folder before training"
    )
    fraction: float = option(1.0, "train on a stratified share of the training data (Table 5)")
    validation: float = option(
        0.1,
        "share of the training data that selects the model; 0 keeps the last model; a folder with "
        "val and test uses its val",
    )
    transforms: str | None = option(
        None,
        "resizing, cropping and flipping",
        choices=("imagenet", "cifar", "small"),
        says="what the paper uses for the data set",
    )
    image_size: int | None = option(
        None, "side of the network's input in pixels", says="that of the transforms"
    )


@dataclass(kw_only=True)
class Model(Options):
    """model"""

    pretrained: str | None = option(
        None,
        "self-supervised checkpoint of any known format ('core-tuning inspect FILE' recognises "
        "it), 'embedded' for the shipped one, or 'random'",
        metavar="FILE",
        says="embedded for emoji_domains; other data sets need one",
    )
    encoder: str | None = option(
        None, ENCODERS, says="resnet50, or small_resnet with the embedded checkpoint"
    )
    normalisation: str = option(
        "checkpoint",
        "of the input; checkpoint: that of its format",
        choices=("checkpoint", "imagenet", "none"),
    )
    dropout: float = option(0.0, "share of features that are dropped in training")
    freeze_bn: bool = option(False, "batch norm keeps its running statistics in training")


@dataclass(kw_only=True)
class OneMethod(Options):
    """method"""

    method: str = option("core_tuning", "", choices=tuple(METHODS))
    hyperparameters: dict[str, Any] = spread(hyperparameters)


@dataclass(kw_only=True)
class Optimisation(Options):
    """optimisation"""

    # A preset fills in what is None.
    steps: int | None = option(None, "optimiser steps, in place of --epochs")
    epochs: int | None = option(None, "passes over the training data", says="Table 11's")
    batch_size: int = option(None, "images an optimiser step", says="Table 11's")
    accumulate: int = option(
        1,
        "cut a batch into N micro-batches to save memory; hard pairs are then mined within a "
        "micro-batch, so prefer a smaller N",
    )
    lr: float = option(None, "first learning rate; try 0.01 and 0.1 with SGD", says="Table 11's")
    optimizer: str = option("sgd", "", choices=("sgd", "adam"))
    momentum: float = option(None, "of SGD", says="Table 11's")
    nesterov: bool = option(None, "Nesterov momentum", says="Table 11's")
    weight_decay: float = option(None, "factor of the L2 penalty", says="Table 11's")
    schedule: str = option(
        None,
        "of the learning rate",
        choices=("cosine", "linear", "constant", "exponential"),
        says="Table 11's",
    )
    lr_decay: float = option(0.01, "of the exponential schedule: last rate over the first")
    ema: float = option(
        0.0,
        "evaluate and keep a moving average of the weights and batch-norm statistics, such as "
        "0.995; after t steps its decay is at most (1 + t)/(10 + t); it should span a few epochs "
        "at most; 0: no average",
        metavar="DECAY",
    )
    limit_steps: int | None = option(
        None, "stop after N steps and evaluate on N batches, to try out a command"
    )

    def total_steps(self, epoch_steps: int) -> int:
        """Optimiser steps of the whole run, where an epoch has so many."""
        steps = self.steps if self.steps is not None else (self.epochs or 0) * epoch_steps
        return steps if self.limit_steps is None else min(steps, self.limit_steps)


@dataclass(kw_only=True)
class Machine(Options):
    """machine"""

    device: str = option("auto", "", choices=("auto", "cpu", "cuda"))
    precision: str = option(
        "fp32",
        "of the forward pass; losses and evaluation stay float32",
        choices=("fp32", "bf16", "fp16"),
    )
    channels_last: bool = option(True, "keep images in the memory format NCHW")
    compile: bool = option(False, "pass the encoder to torch.compile")
    workers: int = option(2, "processes that load images")
    memory: float = option(
        2.0,
        "images kept decoded in memory, where all of them take at most so much; 0 reads the files "
        "each time",
        metavar="GIB",
    )


@dataclass(kw_only=True)
class Run(Options):
    """run"""

    seeds: list[int] = option(
        [0], "one run each; reports mean and standard error", metavar="S", at_least=1
    )
    output: Path | None = option(None, "run folder", metavar="DIR", says="runs/DATASET-METHOD")
    resume: Path | bool = option(
        False,
        "go on with a stopped run, which needs no other option; --data-dir, --pretrained, "
        "--workers and --device may say where things lie now",
        metavar="RUN",
        bare=True,
    )
    overwrite: bool = option(False, "delete an older run there first")
    eval_every: int | None = option(None, "optimiser steps between evaluations", says="an epoch's")
    checkpoint_minutes: float = option(
        10.0,
        "save at least so often; 0: after every step; every evaluation saves anyway",
        metavar="MINUTES",
    )
    tensorboard: bool = option(False, "write event files too")

    @classmethod
    def read(cls, prog: str, argv: Sequence[str]) -> Self:
        """Read a command line; with --resume RUN, behind the options of that run."""
        resume = given_options(prog, cls, argv).get("resume")
        if isinstance(resume, Path):
            before = stored_options(resume, prog.removeprefix("core-tuning "))
            argv = [*to_argv(cls, before), *argv, "--output", str(resume), "--resume"]
        return parse(prog, cls, argv)

    def complete(self) -> None:
        """Check the seeds and the folder."""
        super().complete()
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds is {self.seeds}: expected different numbers.")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other: give one of them.")
        if self.tensorboard and find_spec("tensorboard") is None:
            raise UserError(
                "--tensorboard needs the tensorboard package: pip install "
                "'core-tuning[tensorboard]'."
            )


@dataclass(kw_only=True)
class TrainingOptions(Model, Optimisation, Machine, Run):
    """What all training commands share."""


@dataclass(kw_only=True)
class Training(Data, OneMethod, TrainingOptions):
    """What `finetune` and `robust train` share."""

    def complete(self) -> None:
        """Fill in the data set's preset, and check what concerns several options.

        Raises:
            UserError: options contradict each other.
        """
        super().complete()
        values = preset(self.dataset)
        self.hyperparameters = complete([self.method], self.hyperparameters, values)[self.method]
        check_length(self.steps, self.epochs)
        for name, value in values.items():
            if name in _PRESET and getattr(self, name) is None:
                setattr(self, name, value)
        if self.steps is not None:
            self.epochs = None
        if self.batch_size % self.accumulate:
            raise UserError(
                f"--accumulate is {self.accumulate}, which does not divide the batch size "
                f"{self.batch_size}: choose a divisor."
            )
        if self.pretrained is None and self.dataset == "emoji_domains":
            self.pretrained = "embedded"
        if self.encoder is None:
            self.encoder = "small_resnet" if self.pretrained == "embedded" else "resnet50"
        if self.output is None:
            self.output = Path("runs") / self.default_folder()

    def default_folder(self) -> str:
        """Name of the run's folder where --output does not say it."""
        return f"{self.dataset}-{self.method}"


def stored_options(folder: Path, command: str) -> dict[str, Any]:
    """The options of the run, or of the several runs, in a folder.

    Raises:
        UserError: the folder is not one of that command's.
    """
    for name in RUN_FILES:
        if (folder / name).exists():
            contents = read_json(folder / name)
            options = field(contents, "options", dict, folder / name)
            made_by = field(contents, "command", str, folder / name)
            if made_by != command:
                raise UserError(
                    f"The run in {folder} is one of 'core-tuning {made_by}', not of "
                    f"'core-tuning {command}': go on with it by that command."
                )
            return {name: value for name, value in options.items() if name not in PLACES}
    raise UserError(
        f"{folder} is not a run's folder (it has no {RUN_FILES[0]}): name one that a run was "
        "started in."
    )


_PRESET = ("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay", "schedule")


def check_length(steps: int | None, epochs: int | None) -> None:
    """Raise a UserError where a run's length is given in two ways."""
    if steps is not None and epochs is not None:
        raise UserError(
            f"--steps is {steps} and --epochs is {epochs}: give one of them, the length of the run."
        )


def check_places(data_dir: Path | None, pretrained: str | None, *, download: bool = False) -> None:
    """Check that what a command line names is there, before torch is waited for.

    Raises:
        UserError: the folder of images or the checkpoint does not exist.
    """
    if data_dir is not None and not download and not os.path.lexists(data_dir):
        raise UserError(f"The folder {data_dir} does not exist: check --data-dir.")
    # The names of the shipped encoder and of none.
    if pretrained not in (None, "embedded", "random"):
        require_file(Path(pretrained))


@dataclass(kw_only=True)
class Finetune(Training):
    """Fine-tune a self-supervised encoder.

    Hyper-parameters default to Table 11 of the paper for its data sets; without any option the
    embedded encoder is fine-tuned on the embedded data set by Core-tuning.
    """
