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

import torch
import torchattacks
from measure import Step, compare, peak_mebibytes, print_table
from torch import Tensor, nn

from core_tuning.encoders import ImageEncoder, build_encoder, feature_dim
from core_tuning.objectives import CoreTuningLoss
from core_tuning.robustness.attack.pgd import perturb
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.budgets import NORMS, Budget, make_budget
from core_tuning.training.learner import Learner

EPS = {"linf": 8 / 255, "l2": 0.5}


class Loop:
    """A learner, its optimiser and a batch to train on over and over.

    Args:
        learner: is copied.
        images: clean ones (n, 3, h, w).
        labels: of them, (n,).
        budget: of the attack.
        precision: of our loop; None: the plain loop.
    """

    def __init__(
        self,
        learner: Learner,
        images: Tensor,
        labels: Tensor,
        budget: Budget,
        precision: str | None = None,
    ) -> None:
        self.learner = copy.deepcopy(learner).train()
        self.images, self.labels, self.budget = images, labels, budget
        self.precision = precision
        if precision is not None:
            self.learner.to(memory_format=torch.channels_last)
            self.view = AttackView(self.learner, precision=precision)
        self.optimizer = torch.optim.SGD(
            self.learner.parameters(), lr=1e-3, momentum=0.9, nesterov=True
        )

    def attack(self) -> Tensor:
        """Make adversarial images."""
        if self.precision is not None:
            self.view.refresh()
            return perturb(self.view, self.images, self.labels, self.budget, seed=0)
        norm, eps, steps, step_size = self.budget
        attack = {"l2": torchattacks.PGDL2, "linf": torchattacks.PGD}[norm]
        return attack(self.learner, eps, step_size, steps)(self.images, self.labels)

    def train(self, adversarial: Tensor) -> Tensor:
        """Take a training step on the joined halves; return their logits (2n, K)."""
        learner, images = self.learner, torch.cat([self.images, adversarial])
        if self.precision is not None:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, self.precision == "bf16"):
            features = learner.image_encoder(images)
            terms = learner.objective(features, self.labels.repeat(2), learner.classifier)
        terms.total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return terms.logits

    def step(self) -> Tensor:
        """Take a whole step; return the clean accuracy."""
        logits = self.train(self.attack())[: len(self.labels)]
        if self.precision is None:
            with torch.no_grad():
                logits = self.learner(self.images)
        return (logits.argmax(1) == self.labels).float().mean()


def build_learner(encoder_name: str, classes: int) -> Learner:
    """Build what is attacked and trained."""
    encoder = build_encoder(encoder_name)
    dim = feature_dim(encoder)
    classifier = nn.Linear(dim, classes, bias=False)
    return Learner(ImageEncoder(encoder), classifier, CoreTuningLoss(dim, classes))


def print_steps(
    steps: dict[str, Step], batch: int, repeats: int, title: str, device: str = "cpu"
) -> None:
    """Print what steps on `batch` clean images cost."""
    timings = compare(steps, repeats=repeats, device=device, warm_up=1)
    rows = [
        (name, t.milliseconds, 1e3 * batch / t.milliseconds.median, t.ratios)
        for name, t in timings.items()
    ]
    print_table(title, ("", "ms", "images/s", "/ first"), rows)


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
    data = torch.rand(args.batch, 3, args.image_size, args.image_size)
    labels = torch.arange(args.batch) % args.classes
    learner, budget = (
        build_learner(args.encoder, args.classes),
        make_budget(args.norm, EPS[args.norm]),
    )
    ours = Loop(learner, data, labels, budget, args.precision)
    plain = Loop(learner, data, labels, budget)
    title = (
        f"{args.encoder}, {args.batch} images of {args.image_size} pixels, PGD-{budget.steps}, "
        f"{args.norm}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    whole: dict[str, Step] = {
        f"ours, {args.precision}": ours.step,
        "plain loop": plain.step,
        "without accuracy": lambda: plain.train(plain.attack()),
    }
    print_steps(whole, args.batch, args.repeats, title)
    adversarial = ours.attack()
    parts: dict[str, Step] = {
        "attack, ours": ours.attack,
        "attack, plain": plain.attack,
        "training step, ours": lambda: ours.train(adversarial),
        "training step, plain": lambda: plain.train(adversarial),
        "refresh, ours": ours.view.refresh,
    }
    print_steps(parts, args.batch, max(5, args.repeats // 3), "Where the time goes")
    copied = sum(p.numel() * p.element_size() for p in ours.view.parameters()) / 2**20
    memory = [
        (name, held + peak_mebibytes(loop.attack), held + peak_mebibytes(loop.step))
        for name, loop, held in (("ours", ours, copied), ("plain", plain, 0.0))
    ]
    title = "Peak memory above learner and optimiser in MiB, with the view's copy of the weights"
    print_table(title, ("", "attack", "step"), memory)


if __name__ == "__main__":
    main()
