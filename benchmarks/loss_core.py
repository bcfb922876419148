"""How much the loss core costs, beside the authors' release, and how it grows with the batch.

    git clone https://github.com/Vanint/Core-tuning release
    python benchmarks/loss_core.py --release release/Core-tuning.py

The core is mining, mixing, the focal contrastive loss and the mixed cross-entropy, without
projection head and classifier: the embeddings and logits are given, and the same for both. Its
bound is one (B x B x d) product, timed beside it. The release's functions are taken from its own
file, with the transfers to a GPU made no-ops, and timed in turn with ours.
"""

from __future__ import annotations

import argparse
import ast
import random
import statistics
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import preprocessing
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from core_tuning.losses import focal_contrastive, mixed_cross_entropy
from core_tuning.mining import mine_pairs, mix_pairs, sample_lambda

EMBEDDING_DIM = 256
RELEASED = ("to_one_hot", "feature_mixup", "focal_SupConLoss")
# A step returns the tensors that the rest of the training step would send gradient into.
Step = Callable[[], list[Tensor]]


class Problem:
    """Features, labels, and the outputs that head and classifier would have given."""

    def __init__(self, batch: int, dim: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(batch)
        self.features = torch.rand(batch, dim, generator=generator, requires_grad=True)
        self.labels = torch.randint(classes, (batch,), generator=generator)
        self.targets = F.one_hot(self.labels, classes).float()
        embeddings = torch.randn(3 * batch, EMBEDDING_DIM, generator=generator)
        self.embeddings = F.normalize(embeddings).requires_grad_()
        self.logits = torch.randn(3 * batch, classes, generator=generator, requires_grad=True)

    def leaves(self) -> list[Tensor]:
        """Tensors that receive gradient."""
        return [self.features, self.embeddings, self.logits]


def ours(problem: Problem) -> list[Tensor]:
    """Core-tuning's mining, mixing and losses, as the objective calls them."""
    n = len(problem.labels)
    pairs = mine_pairs(problem.features, problem.labels)
    mixtures = mix_pairs(
        problem.features,
        problem.targets,
        pairs,
        sample_lambda(n, 1.0),
        sample_lambda(n, 1.0, minimum=0.8),
    )
    originals, hard_positives, hard_negatives = problem.embeddings.split(n)
    contrastive = focal_contrastive(
        originals,
        problem.labels,
        hard_positives,
        hard_negatives,
        has_negative=pairs.has_negative,
    )
    logits, mixed_logits = problem.logits.split([n, 2 * n])
    cross_entropy = mixed_cross_entropy(
        logits,
        problem.labels,
        mixed_logits,
        torch.cat([mixtures.positive_targets, mixtures.negative_targets]),
        weights=pairs.has_negative.repeat(2),
    )
    return [contrastive + cross_entropy, mixtures.positive, mixtures.negative]


def load_release(path: Path, classes: int) -> dict[str, Any]:
    """Take the release's functions from its script, which cannot be imported."""
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in RELEASED]
    namespace: dict[str, Any] = {
        "torch": torch,
        "F": F,
        "np": np,
        "random": random,
        "preprocessing": preprocessing,
        "args": types.SimpleNamespace(mixup_alpha=1.0, num_classes=classes),
    }
    exec(compile(tree, str(path), "exec"), namespace)
    return namespace


def released(problem: Problem, release: dict[str, Any]) -> list[Tensor]:
    """The release's mining, mixing and losses."""
    mixed, targets, _, _ = release["feature_mixup"](
        problem.features, problem.labels, len(problem.labels)
    )
    contrastive = release["focal_SupConLoss"](problem.embeddings, targets, mixup=True)
    log_p = F.log_softmax(problem.logits, dim=1)
    cross_entropy = -torch.sum(log_p * targets, dim=1).mean()
    return [contrastive + cross_entropy, mixed]


def without_gpu() -> Any:
    """Make `.cuda()` and `.to("cuda")` return the tensor itself."""
    original = Tensor.to

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor if args[:1] == ("cuda",) else original(tensor, *args, **kwargs)

    return mock.patch.multiple(Tensor, cuda=lambda tensor: tensor, to=to)


def product(problem: Problem) -> list[Tensor]:
    """The bound: one (B x B x d) product."""
    with torch.no_grad():
        return [problem.features @ problem.features.T]


def milliseconds(
    step: Step, leaves: list[Tensor], backward: bool, gradients: list[Tensor]
) -> float:
    """Time one step; the gradients of its outputs are made beforehand."""
    started = time.perf_counter()
    outputs = step()
    if backward:
        torch.autograd.backward(outputs, gradients)
    elapsed = time.perf_counter() - started
    for leaf in leaves:
        leaf.grad = None
    return 1e3 * elapsed


def compare(steps: dict[str, Step], leaves: list[Tensor], backward: bool, repeats: int) -> Any:
    """Median milliseconds of steps run in turn, and the medians of their ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    gradients = {name: [torch.ones_like(out) for out in step()] for name, step in steps.items()}
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            elapsed = milliseconds(step, leaves, backward, gradients[name])
            if repeat >= 3:
                times[name].append(elapsed)
    first = next(iter(times.values()))
    return {
        name: (
            statistics.median(values),
            statistics.median(v / f for v, f in zip(values, first, strict=True)),
        )
        for name, values in times.items()
    }


def peak_mebibytes(step: Step, leaves: list[Tensor]) -> float:
    """Most memory that forward and backward hold at once, in MiB."""
    gradients = [torch.ones_like(output) for output in step()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        torch.autograd.backward(step(), gradients)
    for leaf in leaves:
        leaf.grad = None
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", type=Path, help="Core-tuning.py of the authors' release")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)

    header = f"{'B':>5} {'pass':<8} {'core ms':>9} {'product ms':>11} {'core/product':>13}"
    print(f"d = {args.dim}, K = {args.classes}, one thread, torch {torch.__version__}")
    print(header + f" {'release ms':>11} {'release/core':>13} {'core MiB':>9} {'release MiB':>12}")
    release = load_release(args.release, args.classes) if args.release else None
    for batch in args.batches:
        problem = Problem(batch, args.dim, args.classes)
        steps: dict[str, Step] = {"core": lambda p=problem: ours(p)}  # type: ignore[misc]
        if release is not None:
            steps["release"] = lambda p=problem: released(p, release)  # type: ignore[misc]
        repeats = max(3, args.repeats * 256 // max(batch, 256))
        with without_gpu():
            bound, _ = compare(
                {"p": lambda p=problem: product(p)},
                [],
                False,
                repeats,  # type: ignore[misc]
            )["p"]
            for backward in (False, True):
                figures = compare(steps, problem.leaves(), backward, repeats)
                core = figures["core"][0]
                name = "fwd+bwd" if backward else "forward"
                row = f"{batch:>5} {name:<8} {core:>9.2f} {bound:>11.2f} {core / bound:>13.2f}"
                if release is not None:
                    row += f" {figures['release'][0]:>11.1f} {figures['release'][1]:>12.1f}x"
                if backward:
                    row += "" if release else " " * 26
                    for step in steps.values():
                        row += f" {peak_mebibytes(step, problem.leaves()):>10.1f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
