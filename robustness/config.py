"""The options of adversarial fine-tuning and of the evaluation of robustness, without torch."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from core_tuning.config import RUN_FILES, Training
from core_tuning.errors import UserError
from core_tuning.methods import METHODS
from core_tuning.options import Options, option

from .budgets import NORMS, Budget, make_budget, parse_eps

# The strengths of the paper's main comparison (Tables 9 and 14).
DEFAULT_EPS = {"l2": "0.5", "linf": "4/255"}
# Fewer steps are of PGD, by what attack libraries call them, and not the length of a training.
FEWEST_STEPS = 100


@dataclass(kw_only=True)
class Attack(Options):
    """attack"""

    norm: str = option("l2", "of the perturbation", choices=NORMS)
    eps: str | None = option(
        None,
        "largest norm of a perturbation of images in [0, 1] at the network's resolution",
        metavar="E",
        says=" or ".join(DEFAULT_EPS.values()),
    )
    attack_steps: int | None = option(None, "of PGD", says="10")
    step_size: str | None = option(None, "of PGD", metavar="E", says="2.5 eps / steps")
    allow_large_eps: bool = option(
        False,
        "accept an eps above 32/255 (linf) or 2% of sqrt(3hw) (l2), the largest distance of two "
        "images of h x w pixels",
    )
    adv_weight: float = option(
        0.5,
        "share of the adversarial half in the objective; less favours clean accuracy",
        metavar="W",
    )
    adversarial_only: bool = option(False, "train on adversarial images alone, Madry's form")
    eps_warmup: list[float] = option(
        [0.0, 0.0],
        "epochs without an attack, then epochs in which eps rises to its value; try it if "
        "training from weights that are not robust stays at chance",
        metavar="EPOCHS",
        at_least=1,
    )
    attack_precision: str | None = option(
        None,
        "of the attack's passes, 77% of the work; fp16 scales the loss",
        choices=("fp32", "bf16", "fp16"),
        says="that of --precision",
    )


@dataclass(kw_only=True)
class RobustTrain(Attack, Training):
    """Fine-tune adversarially.

    Each batch's clean images and those that PGD makes of them are joined, and the objective sees
    both (AT-CE, AT-CE-Con, AT-Core). The model is selected by robust accuracy on the validation
    split. Everything else is as in 'core-tuning finetune'. A step with PGD-10 costs 26 forward
    passes where a plain one costs 3.
    """

    def complete(self) -> None:
        """Fill in the attack's defaults, and check what concerns several options.

        Raises:
            UserError: options contradict each other.
        """
        if self.steps is not None and self.attack_steps is None and self.steps < FEWEST_STEPS:
            raise UserError(
                f"--steps is {self.steps}, the length of training: give the steps of PGD by "
                "--attack-steps, or both if it is meant."
            )
        if self.attack_steps is None:
            self.attack_steps = 10
        if self.eps is None:
            self.eps = DEFAULT_EPS[self.norm]
        self.budget()
        super().complete()
        self.attack_precision = self.attack_precision or self.precision
        if self.adv_weight != 0.5 and (self.adversarial_only or not METHODS[self.method].weighted):
            why = "--adversarial-only, which has no clean half to weigh"
            if not self.adversarial_only:
                why = f"--method {self.method}, which has no weights"
            raise UserError(f"--adv-weight is {self.adv_weight} with {why}: leave out one of them.")
        total = self.epochs if self.epochs is not None else math.inf
        if len(self.eps_warmup) != 2 or not sum(self.eps_warmup) < total:
            raise UserError(
                f"--eps-warmup is {' '.join(map(str, self.eps_warmup))}: expected two numbers, "
                "epochs without an attack and epochs in which eps rises, that together stay below "
                f"the {self.epochs} epochs of the run."
            )
        if self.attack_precision == "fp16" and self.precision == "fp32":
            raise UserError(
                "--attack-precision is 'fp16' with --precision fp32: expected fp16 for both, or "
                "bf16, which needs no scaling of the loss."
            )

    def default_folder(self) -> str:
        """Name of the run's folder where --output does not say it."""
        assert self.eps is not None
        return f"{self.dataset}-at_{self.method}-{self.norm}-{self.eps.replace('/', '_')}"

    def budget(self) -> Budget:
        """Build the budget that the options describe.

        Raises:
            UserError: an unknown norm, or a number out of range.
        """
        assert self.eps is not None and self.attack_steps is not None
        step_size = None
        if self.step_size is not None:
            step_size = parse_eps(self.step_size, "The step size")
        eps = parse_eps(self.eps)
        return make_budget(self.norm, eps, steps=self.attack_steps, step_size=step_size)


ATTACKS = ("fgsm", "pgd10", "pgd50x10", "square", "autoattack")
# Table 9 of the paper.
PAPER_EPS = {"l2": ("0.5", "1.5", "2.5"), "linf": ("2/255", "4/255", "8/255")}
DEFAULT_N = 1000


@dataclass(kw_only=True)
class Subject(Options):
    """model, one of these"""

    model: Path | None = option(
        None,
        "a run's folder or model.safetensors; or a fine-tuned torchvision or timm classifier "
        "(.pth, .safetensors), with --encoder, --dataset and --normalisation",
        metavar="RUN|CHECKPOINT",
        positional=True,
    )
    module: str | None = option(
        None,
        "a function without arguments that returns a torch.nn.Module from images in [0, 1] to "
        "logits; the file is run; with --dataset and --image-size",
        metavar="FILE.py:FUNCTION",
    )


@dataclass(kw_only=True)
class Unstated(Options):
    """what a checkpoint or a module does not state"""

    encoder: str | None = option(
        None,
        "of a checkpoint: a torchvision ResNet or ResNeXt, timm:NAME (timm:NAME,num_heads=N for "
        "other attention heads than timm's), small_resnet or small_resnet_2x",
    )
    normalisation: str | None = option(
        None, "what a checkpoint needs of images in [0, 1]", choices=("imagenet", "none")
    )
    image_size: int | None = option(None, "side of the network's input in pixels", metavar="PX")
    transforms: str | None = option(
        None,
        "resizing and cropping",
        choices=("imagenet", "cifar", "small", "domainbed"),
        says="what the paper uses for the data set",
    )


@dataclass(kw_only=True)
class Images(Options):
    """images"""

    dataset: str | None = option(
        None,
        "one with the model's classes, as 'core-tuning finetune --help' lists them",
        says="the run's",
    )
    data_dir: Path | None = option(None, "where the data set lies", metavar="DIR")
    download: bool = option(False, "fetch it first, where torchvision can")
    split: str = option("test", "", choices=("test", "validation"))
    n: str | None = option(
        None,
        "images, drawn by --seed, the same for every attack",
        metavar="N|all",
        says=f"{DEFAULT_N}, or all where there are fewer",
    )
    seed: int = option(0, "of images and attacks")


@dataclass(kw_only=True)
class Attacks(Options):
    """attacks"""

    attacks: list[str] = option(list(ATTACKS[1:]), choices=ATTACKS, at_least=1)
    norm: list[str] = option([], says="both", choices=NORMS, at_least=1)
    l2: list[str] | None = option(
        None,
        "eps of images in [0, 1]; --l2 alone leaves the norm out",
        metavar="EPS",
        says=f"{' '.join(PAPER_EPS['l2'])}, Table 9",
    )
    linf: list[str] | None = option(
        None,
        "the same; --linf alone leaves the norm out",
        metavar="EPS",
        says=f"{' '.join(PAPER_EPS['linf'])}, Table 9",
    )
    attack_space: str = option(
        "input",
        "attack the network's input, as the paper does, or the images at their own resolution "
        "with the resizing inside the model, comparable with RobustBench; images of many sizes "
        "are then attacked size by size, slowly",
        choices=("input", "native"),
    )
    square_queries: int = option(
        5000, "of square, for each image; AutoAttack keeps its own", metavar="Q"
    )
    masking_checks: bool = option(True, "do not look for masked gradients")

    def budgets(self) -> list[tuple[str, float]]:
        """Norm and eps of the rows, in their order.

        Raises:
            UserError: one is not a budget, or none is left.
        """
        asked = self.norm or NORMS
        found = []
        for norm, given in (("l2", self.l2), ("linf", self.linf)):
            if norm in asked:
                for text in PAPER_EPS[norm] if given is None else given:
                    found.append((norm, make_budget(norm, parse_eps(text)).eps))
            elif given:
                raise UserError(
                    f"--{norm} is given and --norm {' '.join(asked)} leaves that norm out: "
                    "leave out one of them."
                )
        if not found or not all(eps for _, eps in found):
            raise UserError(
                "No eps is left to attack with, or one is 0, which is clean accuracy and measured "
                "anyway: give others by --l2 EPS or --linf EPS."
            )
        return list(dict.fromkeys(found))


@dataclass(kw_only=True)
class Place(Options):
    """run"""

    batch_size: int = option(128, "images attacked at once; another one gives other random starts")
    device: str = option("auto", "", choices=("auto", "cpu", "cuda"))
    workers: int = option(2, "processes that read images")
    output: Path | None = option(
        None, "", metavar="DIR", says="RUN/robustness, or runs/robustness-NAME"
    )
    resume: bool = option(False, "go on with a stopped evaluation, or add attacks and eps to one")
    overwrite: bool = option(False, "delete an older evaluation there first")


@dataclass(kw_only=True)
class RobustEvaluate(Subject, Unstated, Images, Attacks, Place):
    """Measure clean and robust accuracy in float32, and look for masked gradients.

    Without options: PGD-10 (the paper's protocol), PGD-50 with 10 restarts, Square and AutoAttack
    standard, at every eps of the paper's Table 9, on up to 1000 test images.
    """

    def complete(self) -> None:
        """Check what concerns several options, or the text of one.

        Raises:
            UserError: options contradict each other, or one cannot be read.
        """
        if (self.model is None) == (self.module is None):
            raise UserError(
                f"{'Two models are' if self.model else 'No model is'} given: name a run's folder, "
                "a checkpoint, or --module FILE.py:FUNCTION."
            )
        if self.module is not None:
            if not all(self.module.rpartition(":")):
                raise UserError(
                    f"--module is '{self.module}': expected FILE.py:FUNCTION, such as "
                    "my.py:build_model."
                )
            is_stated = self.dataset is not None and self.image_size is not None
            if not is_stated or self.encoder is not None or self.normalisation is not None:
                raise UserError(
                    "--module names a function that builds the whole model, from images in "
                    "[0, 1]: give --dataset NAME and --image-size PX, and neither --encoder nor "
                    "--normalisation."
                )
        # Not Path's, which raises for names that no file can have.
        elif not os.path.exists(str(self.model)):  # noqa: PTH110
            raise UserError(
                f"'{str(self.model)[:200]}' does not exist: name a run's folder, its "
                "model.safetensors, or a checkpoint."
            )
        self.attacks = list(dict.fromkeys(self.attacks))
        if self.n not in (None, "all") and not re.fullmatch(r"0*[1-9]\d{0,17}", self.n or ""):
            raise UserError(f"--n is '{self.n}': expected a number of at least 1, or all.")
        self.budgets()
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite are both given: choose one of them.")

    def wanted(self, total: int) -> int:
        """How many of so many images are measured."""
        if self.n is None:
            return min(DEFAULT_N, total)
        return total if self.n == "all" else int(self.n)

    def largest(self) -> dict[str, float]:
        """The largest eps of each norm."""
        return dict(sorted(self.budgets()))

    def default_output(self) -> Path:
        """Where an evaluation is written if --output does not say it."""
        if self.module is not None:
            file, _, function = self.module.rpartition(":")
            return Path("runs") / f"robustness-{Path(file).stem}-{function}"
        assert self.model is not None
        if self.model.is_dir():
            return self.model / "robustness"
        if (self.model.parent / RUN_FILES[0]).is_file():
            return self.model.parent / "robustness"
        return Path("runs") / f"robustness-{self.model.stem}"
