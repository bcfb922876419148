"""What a Core-tuning step of ResNet-50 costs beside the same step with cross-entropy.

    python benchmarks/step_overhead.py

A step is encoder, objective with projection head, backward, and SGD with momentum. The steps of
the methods are timed in turn. Then the objective alone is measured as the batch grows, beside the
encoder's time for as many images (scaled from the measured step: a batch of 4096 at 224 pixels
fits no CPU's memory), and its share of the floating-point operations is counted.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from measure import compare, measured, peak_mebibytes
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core_tuning.encoders import build_encoder, feature_dim
from core_tuning.objectives import CoreTuningLoss, CrossEntropyLoss


class Setup:
    """An objective and its optimiser, over an encoder and a classifier that all methods share.

    Encoders of their own would differ in where their weights lie in memory, by a few percent.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classifier: nn.Linear,
        objective: nn.Module,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.encoder = encoder
        self.classifier = classifier
        self.objective = objective
        self.parameters = [
            *self.encoder.parameters(),
            *self.classifier.parameters(),
            *objective.parameters(),
        ]
        self.optimizer = torch.optim.SGD(self.parameters, lr=1e-3, momentum=0.9, nesterov=True)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take a whole training step."""
        with torch.autocast(images.device.type, self.dtype, self.dtype != torch.float32):
            terms = self.objective(self.encoder(images), labels, self.classifier)
        terms.total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self, features: Tensor, labels: Tensor) -> list[Tensor]:
        """Compute the objective of given features."""
        return [self.objective(features, labels, self.classifier).total]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32, help="of the whole step (default: 32)")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    encoder = build_encoder(args.encoder).to(memory_format=torch.channels_last)
    dim = feature_dim(encoder)
    classifier = nn.Linear(dim, args.classes, bias=False)
    setups = {
        "CE": Setup(encoder, classifier, CrossEntropyLoss()),
        "Core-tuning": Setup(encoder, classifier, CoreTuningLoss(dim, args.classes)),
    }
    images = torch.rand(args.batch, 3, args.image_size, args.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch) % args.classes
    print(
        f"{args.encoder}, {args.batch} images of {args.image_size} pixels, K = {args.classes}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    encoder_ms = _print_steps(setups, images, labels, args.repeats)
    _print_growth(setups, encoder_ms / args.batch, args.batches, args.classes, dim)


def _print_steps(setups: dict[str, Setup], images: Tensor, labels: Tensor, repeats: int) -> float:
    steps = {n: measured(partial(setup.step, images, labels)) for n, setup in setups.items()}
    timings = compare(steps, [], backward=False, repeats=repeats, warm_up=1)
    print(f"{'method':<12} {'step ms':>9} {'/ CE (quartiles)':>22} {'GFLOP':>9} {'/ CE':>8}")
    reference = 0
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
        reference = reference or flops
        timing = timings[name]
        ratio = f"{timing.ratio:.3f} ({timing.lower:.3f} to {timing.upper:.3f})"
        print(
            f"{name:<12} {timing.milliseconds:>9.0f} {ratio:>22} {flops / 1e9:>9.1f} "
            f"{flops / reference:>8.4f}"
        )
    return timings["CE"].milliseconds


def _print_growth(
    setups: dict[str, Setup],
    encoder_ms_per_image: float,
    batches: list[int],
    classes: int,
    dim: int,
) -> None:
    print("\nobjective alone (projection head, losses, their backward pass), without the encoder")
    print(
        f"{'B':>5} {'CE ms':>8} {'Core ms':>9} {'encoder ms':>11} {'step / CE':>10} "
        f"{'CE MiB':>8} {'Core MiB':>9}"
    )
    for batch in batches:
        features = torch.rand(batch, dim, requires_grad=True)
        labels = torch.arange(batch) % classes
        steps = {name: partial(setup.loss, features, labels) for name, setup in setups.items()}
        leaves = [features, *(p for setup in setups.values() for p in setup.parameters)]
        timings = compare(steps, leaves, backward=True, repeats=max(3, 1024 // batch))
        ce, core = timings["CE"].milliseconds, timings["Core-tuning"].milliseconds
        encoder = encoder_ms_per_image * batch
        memory = [peak_mebibytes(step, leaves) for step in steps.values()]
        print(
            f"{batch:>5} {ce:>8.1f} {core:>9.1f} {encoder:>11.0f} "
            f"{1 + (core - ce) / encoder:>10.3f} {memory[0]:>8.1f} {memory[1]:>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
