"""What an adversarial training step costs beside a plain loop on torchattacks.

    python benchmarks/adversarial_step.py
    python benchmarks/adversarial_step.py --encoder resnet50 --image-size 224 --batch 8

The plain loop is what torchattacks' documentation leads to: the attack on the training model
itself (float32, NCHW; torchattacks puts it into evaluation mode and asks for the input's gradient
alone), a training step on the clean and adversarial images joined, and a forward pass without
gradient for the clean accuracy. Its second row leaves that forward pass out. Ours attacks an
`AttackView`, trains in channels_last, and reads the accuracy off the training step. The loops take
turns, objective, budget and optimiser are the same, and `--precision bf16` concerns ours alone.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
import torchattacks
from measure import compare, measured, peak_mebibytes
from torch import Tensor, nn

from core_tuning.encoders import ImageEncoder, build_encoder, feature_dim
from core_tuning.objectives import CoreTuningLoss
from core_tuning.robustness.attack.pgd import perturb
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.budgets import NORMS, Budget, describe_eps, make_budget
from core_tuning.training.learner import Learner

EPS = {"linf": 8 / 255, "l2": 0.5}


class Loop:
    """A learner, its optimiser, and a batch to train on over and over."""

    def __init__(self, learner: Learner, images: Tensor, labels: Tensor, budget: Budget) -> None:
        self.learner = learner.train()
        self.images = images
        self.labels = labels
        self.budget = budget
        self.bf16 = False
        self.optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def train(self, adversarial: Tensor) -> Tensor:
        """Take a training step on the joined halves; return their logits (2n, K)."""
        learner = self.learner
        images = torch.cat([self.images, adversarial])
        if isinstance(self, Ours):
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, self.bf16):
            features = learner.image_encoder(images)
            terms = learner.objective(features, self.labels.repeat(2), learner.classifier)
        terms.total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return terms.logits


class Plain(Loop):
    """torchattacks on the training model."""

    def attack(self) -> Tensor:
        """Attack the learner itself."""
        attack = {"l2": torchattacks.PGDL2, "linf": torchattacks.PGD}[self.budget.norm]
        _, eps, steps, step_size = self.budget
        return attack(self.learner, eps, step_size, steps)(self.images, self.labels)

    def clean_accuracy(self) -> Tensor:
        """Classify the clean images once more."""
        with torch.no_grad():
            return (self.learner(self.images).argmax(1) == self.labels).float().mean()

    def step(self) -> None:
        """Take a whole step."""
        self.train(self.attack())
        self.clean_accuracy()

    def step_without_accuracy(self) -> None:
        """Take a whole step whose clean accuracy nobody logs."""
        self.train(self.attack())


class Ours(Loop):
    """perturb on an AttackView."""

    def see(self, precision: str) -> Ours:
        """Make the view."""
        self.learner.to(memory_format=torch.channels_last)
        self.view = AttackView(self.learner, precision=precision)
        self.bf16 = precision == "bf16"
        return self

    def attack(self) -> Tensor:
        """Attack the view."""
        return perturb(self.view, self.images, self.labels, self.budget, seed=0)

    def step(self) -> None:
        """Take a whole step."""
        self.view.refresh()
        logits = self.train(self.attack())[: len(self.labels)]
        (logits.argmax(1) == self.labels).float().mean()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="small_resnet")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64, help="clean images (default: 64)")
    parser.add_argument("--norm", choices=NORMS, default="linf")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    budget = make_budget(args.norm, EPS[args.norm])
    images = torch.rand(args.batch, 3, args.image_size, args.image_size)
    labels = torch.arange(args.batch) % args.classes
    learner = build_learner(args.encoder, args.classes)
    plain = Plain(copy.deepcopy(learner), images, labels, budget)
    ours = Ours(learner, images, labels, budget).see(args.precision)
    print(
        f"{args.encoder}, {args.batch} images of {args.image_size} pixels, PGD-{budget.steps}, "
        f"{args.norm} {describe_eps(args.norm, budget.eps)}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    steps = {
        f"ours, {args.precision}": ours.step,
        "plain loop": plain.step,
        "without accuracy": plain.step_without_accuracy,
    }
    _print_steps(steps, args.batch, args.repeats)
    _print_parts(plain, ours, args.repeats)
    _print_memory(plain, ours)


def build_learner(encoder_name: str, classes: int) -> Learner:
    """Build what is attacked and trained."""
    encoder = build_encoder(encoder_name)
    dim = feature_dim(encoder)
    classifier = nn.Linear(dim, classes, bias=False)
    return Learner(ImageEncoder(encoder), classifier, CoreTuningLoss(dim, classes))


def _print_steps(steps: dict[str, Callable[[], None]], batch: int, repeats: int) -> None:
    whole = {name: measured(step) for name, step in steps.items()}
    timings = compare(whole, [], backward=False, repeats=repeats, warm_up=1)
    print(f"{'loop':<18} {'step ms':>9} {'images/s':>9} {'ours is faster (quartiles)':>28}")
    for name, timing in timings.items():
        ratio = f"{timing.ratio:.2f} ({timing.lower:.2f} to {timing.upper:.2f})"
        rate = 1e3 * batch / timing.milliseconds
        print(f"{name:<18} {timing.milliseconds:>9.0f} {rate:>9.1f} {ratio:>28}", flush=True)


def _print_parts(plain: Plain, ours: Ours, repeats: int) -> None:
    adversarial = ours.attack()
    parts: dict[str, Callable[[], object]] = {
        "attack, ours": ours.attack,
        "attack, plain": plain.attack,
        "training step, ours": lambda: ours.train(adversarial),
        "training step, plain": lambda: plain.train(adversarial),
        "refresh, ours": ours.view.refresh,
        "clean forward, plain": plain.clean_accuracy,
    }
    whole = {name: measured(part) for name, part in parts.items()}
    print("\nwhere the time goes (ms)")
    timings = compare(whole, [], backward=False, repeats=max(5, repeats // 3), warm_up=1)
    for name, timing in timings.items():
        print(f"{name:<22} {timing.milliseconds:>9.1f}")


def _print_memory(plain: Plain, ours: Ours) -> None:
    copied = sum(p.numel() * p.element_size() for p in ours.view.parameters()) / 2**20
    print("\npeak memory on top of the learner and its optimiser (MiB)")
    print(f"{'':<8} {'attack':>9} {'step':>9}   the view's copy of the weights included")
    for name, loop, held in (("ours", ours, copied), ("plain", plain, 0.0)):
        attack = held + peak_mebibytes(measured(loop.attack), [])
        step = held + peak_mebibytes(measured(loop.step), [])
        print(f"{name:<8} {attack:>9.1f} {step:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
