"""How much the loss core costs, beside the authors' release, and how it grows with the batch.

    git clone https://github.com/Vanint/Core-tuning release
    python benchmarks/loss_core.py --release release/Core-tuning.py

The core is mining, mixing, the focal contrastive loss and the mixed cross-entropy, without
projection head and classifier: the embeddings and logits are given, and the same for both. Its
bound is one (B x B x d) product, timed beside it. The release's functions are taken from its own
file, with the transfers to a GPU made no-ops.

Each is timed in processes of its own, in turn, because both cost more or less by how the C library
hands out memory, which whatever else a process allocates decides: the release takes 13 ms or 24 ms
for the same forward pass at B = 256. `--warm` times them where a large tensor has been freed
before, as the activations of an encoder are: the library keeps its memory then.
"""

from __future__ import annotations

import argparse
import ast
import random
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from measure import Spread, both_ways, compare, peak_mebibytes, print_table
from sklearn import preprocessing
from torch import Tensor

from core_tuning.losses import focal_contrastive, mixed_cross_entropy
from core_tuning.mining import mine_pairs, mix_pairs, sample_lambda

EMBEDDING_DIM = 256
# Elements of a tensor of 30 MiB; the GNU C library maps larger ones apart from its own memory.
FREED_FIRST = 30 * 2**18
RELEASED = ("to_one_hot", "feature_mixup", "focal_SupConLoss")


class Problem:
    """Features, labels, and the outputs that head and classifier would have given."""

    def __init__(self, batch: int, dim: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(batch)
        self.features = torch.rand(batch, dim, generator=generator).requires_grad_()
        self.labels = torch.randint(classes, (batch,), generator=generator)
        self.targets = F.one_hot(self.labels, classes).float()
        embeddings = torch.randn(3 * batch, EMBEDDING_DIM, generator=generator)
        self.embeddings = F.normalize(embeddings).requires_grad_()
        self.logits = torch.randn(3 * batch, classes, generator=generator).requires_grad_()
        self.leaves = [self.features, self.embeddings, self.logits]

    def core(self) -> list[Tensor]:
        """Core-tuning's mining, mixing and losses."""
        n, z, labels = len(self.labels), self.features, self.labels
        pairs = mine_pairs(z, labels)
        lam = sample_lambda(n, 1.0), sample_lambda(n, 1.0, minimum=0.8)
        mixed = mix_pairs(z, self.targets, pairs, *lam)
        contrastive = focal_contrastive(
            self.embeddings[:n], labels, self.embeddings[n : 2 * n], self.embeddings[2 * n :],
            has_negative=pairs.has_negative,
        )  # fmt: skip
        cross_entropy = mixed_cross_entropy(
            self.logits[:n],
            labels,
            self.logits[n:],
            torch.cat([mixed.positive_targets, mixed.negative_targets]),
            weights=pairs.has_negative.repeat(2),
        )
        return [contrastive + cross_entropy, torch.cat([z, mixed.positive, mixed.negative])]

    def product(self) -> list[Tensor]:
        """The bound: one (B x B x d) product."""
        with torch.no_grad():
            return [self.features @ self.features.T]

    def release(self, functions: dict[str, Any]) -> list[Tensor]:
        """The release's mining, mixing and losses."""
        mixed, targets, _, _ = functions["feature_mixup"](
            self.features, self.labels, len(self.labels)
        )
        contrastive = functions["focal_SupConLoss"](self.embeddings, targets, mixup=True)
        log_p = F.log_softmax(self.logits, dim=1)
        return [contrastive - torch.sum(log_p * targets, dim=1).mean(), mixed]


def load_release(path: Path, classes: int) -> dict[str, Any]:
    """Take the release's functions from its script, which cannot be imported."""
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in RELEASED]
    names = types.SimpleNamespace(mixup_alpha=1.0, num_classes=classes)
    functions: dict[str, Any] = {"torch": torch, "F": F, "np": np, "random": random,
                                 "preprocessing": preprocessing, "args": names}  # fmt: skip
    exec(compile(tree, str(path), "exec"), functions)
    return functions


def without_gpu() -> Any:
    """Make `.cuda()` and `.to("cuda")` return the tensor itself."""
    original = Tensor.to

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor if args[:1] == ("cuda",) else original(tensor, *args, **kwargs)

    return mock.patch.multiple(Tensor, cuda=lambda tensor: tensor, to=to)


def measure(
    name: str, batch: int, backward: bool, options: argparse.Namespace
) -> tuple[float, float]:
    """Median milliseconds and peak MiB of one of the three in this process."""
    torch.set_num_threads(1)
    if options.warm:
        torch.zeros(FREED_FIRST)
    random.seed(0)
    np.random.seed(0)
    problem = Problem(batch, options.dim, options.classes)
    forward: Callable[[], list[Tensor]] = problem.core if name == "core" else problem.product
    if name == "release":
        functions = load_release(options.release, options.classes)
        forward = partial(problem.release, functions)
    with without_gpu():
        step = both_ways(forward, problem.leaves) if backward else forward
        repeats = max(3, options.repeats * 256 // max(batch, 256))
        timing = compare({name: step}, repeats=repeats)[name]
        return timing.milliseconds.median, peak_mebibytes(step)


def main() -> None:
    """Print the table."""
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
    names = ["product", "core", *(["release"] if options.release else [])]
    rows = []
    for batch in options.batches:
        for backward in (False, True):
            rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for _ in range(options.rounds):
                for name in names:
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                        # The bound has no way back.
                        job = name, batch, backward and name != "product", options
                        rounds[name].append(process.submit(measure, *job).result())
            for name, found in rounds.items():
                times = [ms for ms, _ in found]
                core = [ms for ms, _ in rounds["core"]]
                ratios = [ms / own for ms, own in zip(times, core, strict=True)]
                rows.append((batch, "both ways" if backward else "forward", name, median(times),
                             Spread.of(ratios) if len(ratios) > 1 else ratios[0],
                             median(peak for _, peak in found)))  # fmt: skip
    title = f"d = {options.dim}, K = {options.classes}, one thread, torch {torch.__version__}"
    print_table(title, ("B", "pass", "", "ms", "/ core", "peak MiB"), rows)


if __name__ == "__main__":
    main()
