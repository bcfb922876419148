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
import types
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from measure import Step, compare, peak_mebibytes
from sklearn import preprocessing
from torch import Tensor

from core_tuning.losses import focal_contrastive, mixed_cross_entropy
from core_tuning.mining import mine_pairs, mix_pairs, sample_lambda

EMBEDDING_DIM = 256
RELEASED = ("to_one_hot", "feature_mixup", "focal_SupConLoss")


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
    everything = torch.cat([problem.features, mixtures.positive, mixtures.negative])
    return [contrastive + cross_entropy, everything]


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

    print(f"d = {args.dim}, K = {args.classes}, one thread, torch {torch.__version__}")
    header = f"{'B':>5} {'pass':<8} {'core ms':>9} {'product ms':>11} {'core/product':>13}"
    print(header + f" {'release ms':>11} {'release/core':>13} {'core MiB':>9} {'release MiB':>12}")
    release = load_release(args.release, args.classes) if args.release else None
    with without_gpu():
        for batch in args.batches:
            print_batch(Problem(batch, args.dim, args.classes), release, args.repeats)


def print_batch(problem: Problem, release: dict[str, Any] | None, repeats: int) -> None:
    """Print two rows: the forward pass, and forward and backward with the memory they hold."""
    batch = len(problem.labels)
    repeats = max(3, repeats * 256 // max(batch, 256))
    steps: dict[str, Step] = {"core": partial(ours, problem)}
    if release is not None:
        steps["release"] = partial(released, problem, release)
    product_step: dict[str, Step] = {"product": partial(product, problem)}
    bound = compare(product_step, [], backward=False, repeats=repeats)["product"].milliseconds
    for backward in (False, True):
        timings = compare(steps, problem.leaves(), backward=backward, repeats=repeats)
        core = timings["core"].milliseconds
        name = "fwd+bwd" if backward else "forward"
        row = f"{batch:>5} {name:<8} {core:>9.2f} {bound:>11.2f} {core / bound:>13.2f}"
        if "release" in timings:
            row += f" {timings['release'].milliseconds:>11.1f} {timings['release'].ratio:>12.1f}x"
        else:
            row += " " * 26
        if backward:
            row += f" {peak_mebibytes(steps['core'], problem.leaves()):>9.1f}"
            if "release" in steps:
                row += f" {peak_mebibytes(steps['release'], problem.leaves()):>12.1f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
