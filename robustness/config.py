"""The options of adversarial fine-tuning, without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core_tuning.config import Training
from core_tuning.errors import UserError
from core_tuning.methods import METHODS
from core_tuning.options import Options, option

from .budgets import NORMS, Budget, make_budget, parse_eps, refuse_negative_fractions

if TYPE_CHECKING:
    from typing_extensions import Self

# The strengths of the paper's main comparison (Tables 9 and 14).
DEFAULT_EPS = {"l2": "0.5", "linf": "4/255"}
# Fewer steps are of PGD, by what attack libraries call them, and not the length of a training.
FEWEST_STEPS = 100


@dataclass(kw_only=True)
class Attack(Options):
    """attack"""

    norm: str = option("l2", "of the perturbation: l2 or linf")
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
        "share of the adversarial half in the objective; less favours clean accuracy, more robust "
        "accuracy",
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

    @classmethod
    def read(cls, prog: str, argv: Sequence[str]) -> Self:
        """Read a command line."""
        refuse_negative_fractions(list(argv))
        return super().read(prog, argv)

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
            self.eps = DEFAULT_EPS.get(self.norm, "0.5")
        self.budget()
        super().complete()
        self.attack_precision = self.attack_precision or self.precision
        self._check()

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
        eps = parse_eps(self.eps) if self.norm in NORMS else 0.0
        step_size = None
        if self.step_size is not None:
            step_size = parse_eps(self.step_size, "The step size")
        return make_budget(self.norm, eps, steps=self.attack_steps, step_size=step_size)

    def _check(self) -> None:
        if not 0 <= self.adv_weight <= 1:
            raise UserError(f"--adv-weight is {self.adv_weight}: expected a number in [0, 1].")
        if self.adversarial_only and self.adv_weight != 0.5:
            raise UserError(
                f"--adv-weight is {self.adv_weight} with --adversarial-only, which has no clean "
                "half to weigh: leave out one of them."
            )
        if not METHODS[self.method].weighted and self.adv_weight != 0.5:
            raise UserError(
                f"--adv-weight is {self.adv_weight} with --method {self.method}, which has no "
                "weights: leave out one of them."
            )
        self._check_warmup()
        if self.attack_precision == "fp16" and self.precision == "fp32":
            raise UserError(
                "--attack-precision is 'fp16' with --precision fp32: expected fp16 for both, or "
                "bf16, which needs no scaling of the loss."
            )

    def _check_warmup(self) -> None:
        text = " ".join(f"{epochs:g}" for epochs in self.eps_warmup)
        if len(self.eps_warmup) != 2 or not all(epochs >= 0 for epochs in self.eps_warmup):
            raise UserError(
                f"--eps-warmup is {text}: expected two numbers of at least 0, epochs without an "
                "attack and epochs in which eps rises."
            )
        if self.epochs is not None and not sum(self.eps_warmup) < self.epochs:
            raise UserError(
                f"--eps-warmup is {text}: expected two numbers of at least 0 that together "
                f"stay below the {self.epochs} epochs of the run."
            )
