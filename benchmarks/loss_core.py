"""How much the loss core costs, beside the authors' release, and how it grows with the batch.

    git clone https://github.com/Vanint/Core-tuning release
    python benchmarks/loss_core.py --release release/Core-tuning.py

The core is mining, mixing, the focal contrastive loss and the mixed cross-entropy, without
projection head and classifier: the embeddings and logits are given, and the same for both. Its
bound is one (B x B x d) product, timed beside it. The release's functions are taken from its own
file, with the transfers to a GPU made no-ops.

Ours and the release's are timed in processes of their own, in turn, because both cost more or less
by how the C library hands out memory, which whatever else a process allocates decides: the release
takes 13 ms or 24 ms for the same forward pass at B = 256. `--warm` times them where a large tensor
has been freed before, as the activations of an encoder are: the library keeps its memory then.
"""

from __future__ import annotations

import argparse
import ast
import random
import statistics
import types
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
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
from core_tuning.mining import mine_pairs, mix_with_originals, sample_lambda

EMBEDDING_DIM = 256
# Elements of a tensor of 30 MiB; the GNU C library maps larger ones apart from its own memory.
FREED_FIRST = 30 * 2**18
RELEASED = ("to_one_hot", "feature_mixup", "focal_SupConLoss")


class Problem:
    """Features, labels, and the outputs that head and classifier would have given."""

    def __init__(
        self, batch: int, dim: int, classes: int, device: torch.device | str = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(batch)
        self.features = torch.rand(batch, dim, generator=generator).to(device).requires_grad_()
        self.labels = torch.randint(classes, (batch,), generator=generator).to(device)
        self.targets = F.one_hot(self.labels, classes).float()
        embeddings = torch.randn(3 * batch, EMBEDDING_DIM, generator=generator)
        self.embeddings = F.normalize(embeddings).to(device).requires_grad_()
        logits = torch.randn(3 * batch, classes, generator=generator)
        self.logits = logits.to(device).requires_grad_()

    def leaves(self) -> list[Tensor]:
        """Tensors that receive gradient."""
        return [self.features, self.embeddings, self.logits]


def ours(problem: Problem) -> list[Tensor]:
    """Core-tuning's mining, mixing and losses, as the objective calls them."""
    n, device = len(problem.labels), problem.labels.device
    pairs = mine_pairs(problem.features, problem.labels)
    everything, mixed_targets = mix_with_originals(
        problem.features,
        problem.targets,
        pairs,
        sample_lambda(n, 1.0, device=device),
        sample_lambda(n, 1.0, minimum=0.8, device=device),
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
        mixed_targets,
        weights=pairs.has_negative.repeat(2),
    )
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


Steps = dict[str, Step]


def prepare(
    names: Sequence[str], batch: int, options: argparse.Namespace
) -> tuple[Steps, list[Tensor]]:
    """Make the data of a batch size; return the named steps on it and what receives gradient."""
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    problem = Problem(batch, options.dim, options.classes)
    steps: Steps = {"core": partial(ours, problem), "product": partial(product, problem)}
    if options.release:
        release = load_release(options.release, options.classes)
        steps["release"] = partial(released, problem, release)
    return {name: steps[name] for name in names}, problem.leaves()


def times(
    names: Sequence[str], batch: int, backward: bool, options: argparse.Namespace
) -> dict[str, float]:
    """Median milliseconds of each step, each timed in a process of its own."""
    timings: dict[str, float] = {}
    for name in names:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            timings[name] = process.submit(time_here, name, batch, backward, options).result()
    return timings


def time_here(name: str, batch: int, backward: bool, options: argparse.Namespace) -> float:
    """Median milliseconds of a step in this process."""
    if options.warm:
        torch.zeros(FREED_FIRST)
    steps, leaves = prepare([name], batch, options)
    repeats = max(3, options.repeats * 256 // max(batch, 256))
    with without_gpu():
        return compare(steps, leaves, backward=backward, repeats=repeats)[name].milliseconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", type=Path, help="Core-tuning.py of the authors' release")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30, help="of a step in a process")
    parser.add_argument("--rounds", type=int, default=3, help="of processes")
    parser.add_argument("--warm", action="store_true",
                        help="free a large tensor first, after which memory is kept")  # fmt: skip
    options = parser.parse_args()
    print(f"d = {options.dim}, K = {options.classes}, one thread, torch {torch.__version__}")
    print(
        f"{'B':>5} {'pass':<8} {'core ms':>8} {'product ms':>11} {'release ms':>11} "
        f"{'release/core (range)':>24} {'core MiB':>9} {'release MiB':>12}"
    )
    for batch in options.batches:
        for backward in (False, True):
            print_row(batch, backward, options)


def print_row(batch: int, backward: bool, options: argparse.Namespace) -> None:
    """Print medians over the rounds, and the peak memory of a forward and backward pass."""
    names = ["core", "release"] if options.release else ["core"]
    rounds = [times(names, batch, backward, options) for _ in range(options.rounds)]
    core = statistics.median(timings["core"] for timings in rounds)
    bound = time_here("product", batch, False, options)
    row = f"{batch:>5} {'fwd+bwd' if backward else 'forward':<8} {core:>8.2f} {bound:>11.2f}"
    if options.release:
        ratios = [timings["release"] / timings["core"] for timings in rounds]
        released_ms = statistics.median(timings["release"] for timings in rounds)
        row += f" {released_ms:>11.1f} {statistics.median(ratios):>9.1f}x"
        row += f" ({min(ratios):>5.1f} to {max(ratios):>4.1f})"
    if backward:
        steps, leaves = prepare(names, batch, options)
        with without_gpu():
            memory = [peak_mebibytes(step, leaves) for step in steps.values()]
        row += f" {memory[0]:>{9 if options.release else 45}.1f}"
        row += "".join(f" {peak:>12.1f}" for peak in memory[1:])
    print(row, flush=True)


if __name__ == "__main__":
    main()
