"""What a training step costs on a GPU: ResNet-50 with CE, CE-Con and Core-tuning.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --tiny

Whole training steps (encoder, objective, backward pass, SGD with momentum) of the three methods
take turns in one process, in bfloat16 and in float32 without TF32, both in channels_last. MFU is
what the step's counted floating-point operations would take at the card's dense peak, over what
the step took. Then come adversarial steps, if torchattacks is there, and the loss core alone
beside a plain version of it. Times are the GPU's own, by CUDA events around launches that queue
up behind other work; peak memory is that of a step above weights and optimiser state.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
from functools import partial

import torch
import torch.nn.functional as F
from loss_core import Problem, ours
from measure import compare, measured, peak_mebibytes
from step_overhead import Setup
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core_tuning.encoders import build_encoder, feature_dim
from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss

# Dense peak TFLOP/s of bfloat16 with tensor cores, and of float32 without, from the data sheets.
PEAKS = {
    "H100 PCIe": (756, 51),
    "H100": (989, 67),
    "H200": (989, 67),
    "A100": (312, 19.5),
    "L40S": (362, 91.6),
    "RTX 4090": (165, 82.6),
}
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
TAU = 0.07


def plain(problem: Problem) -> list[Tensor]:
    """Mining, mixing and losses as one would first write them, with the same result as `ours`."""
    z, labels, n = problem.features, problem.labels, len(problem.labels)
    unit = F.normalize(z.detach())
    cosine = unit @ unit.T
    same = labels[:, None] == labels
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    hard_positive = cosine.masked_fill(~same | itself, math.inf).argmin(1)
    hard_negative = cosine.masked_fill(same, -math.inf).argmax(1)
    random_negative = torch.multinomial((~same).float(), 1).squeeze(1)
    shares = torch.distributions.Beta(torch.ones((), device=z.device), 1.0).sample((2, n, 1))
    towards, lam = shares[0], shares[1].clamp(min=0.8)

    def mix(values: Tensor) -> Tensor:
        positive = towards * values[hard_positive] + (1 - towards) * values[hard_negative]
        return torch.cat([positive, (1 - lam) * values + lam * values[random_negative]])

    everything, mixed_targets = torch.cat([z, mix(z)]), mix(problem.targets)
    similarity = problem.embeddings[:n] @ problem.embeddings.T / TAU  # (n, 3n)
    outside = torch.cat([itself, ~itself, ~itself], dim=1)
    log_p = F.log_softmax(similarity.masked_fill(outside, -1e9), dim=1)
    is_positive = torch.cat([same & ~itself, itself, torch.zeros_like(itself)], dim=1)
    terms = -(1 - log_p.exp()) * log_p * is_positive
    contrastive = (terms.sum(1) / is_positive.sum(1)).mean()
    mixed = -(mixed_targets * F.log_softmax(problem.logits[n:], dim=1)).sum(1).mean()
    return [contrastive + F.cross_entropy(problem.logits[:n], labels) + mixed, everything]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="of a step (default: 256)")
    parser.add_argument("--attacked", type=int, default=32, help="of an adversarial step")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peak-tflops", type=float, nargs=2, metavar=("BF16", "FP32"),
                        help="dense peak of a card that the script does not know")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script out")
    args = parser.parse_args()
    if args.tiny:
        args.encoder, args.image_size, args.batch, args.attacked = "small_resnet", 32, 8, 4
        args.batches, args.repeats = [16, 32], 2
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    card = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    known = (peaks for name, peaks in PEAKS.items() if name in card)
    peaks = args.peak_tflops or next(known, (math.nan, math.nan))
    print(f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}; dense peak taken as "
          f"{peaks[0]:g} (bf16) and {peaks[1]:g} (fp32) TFLOP/s")  # fmt: skip
    for (precision, dtype), peak in zip(PRECISIONS.items(), peaks, strict=True):
        _print_steps(args, precision, dtype, peak)
    _print_adversarial(args)
    _print_core(args)


def _images(args: argparse.Namespace, batch: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(batch, 3, args.image_size, args.image_size, device=args.device)
    labels = torch.arange(batch, device=args.device) % args.classes
    return images.contiguous(memory_format=torch.channels_last), labels


def _print_steps(args: argparse.Namespace, precision: str, dtype: torch.dtype, peak: float) -> None:
    encoder = build_encoder(args.encoder)
    dim = feature_dim(encoder)
    encoder.to(args.device).to(memory_format=torch.channels_last)
    classifier = nn.Linear(dim, args.classes, bias=False).to(args.device)
    objectives = {
        "CE": CrossEntropyLoss(),
        "CE-Con": CEContrastiveLoss(dim),
        "Core-tuning": CoreTuningLoss(dim, args.classes),
    }
    images, labels = _images(args, args.batch)
    steps = {}
    for name, objective in objectives.items():
        setup = Setup(encoder, classifier, objective.to(args.device), dtype)
        steps[name] = measured(partial(setup.step, images, labels), args.device)
    timings = compare(steps, [], backward=False, repeats=args.repeats)
    print(f"\n{args.encoder}, {args.batch} images of {args.image_size} pixels, K = {args.classes}, "
          f"{precision}, channels_last")  # fmt: skip
    print(f"{'method':<12} {'step ms (quartiles)':>26} {'images/s':>9} {'/ CE (quartiles)':>22} "
          f"{'GFLOP':>9} {'MFU %':>6} {'peak MiB':>9}")  # fmt: skip
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        flops, t = counter.get_total_flops(), timings[name]
        took = f"{t.milliseconds:.2f} ({t.lower_milliseconds:.2f} to {t.upper_milliseconds:.2f})"
        ratio = f"{t.ratio:.3f} ({t.lower:.3f} to {t.upper:.3f})"
        mfu = 100 * flops / (t.milliseconds * 1e9 * peak)
        print(f"{name:<12} {took:>26} {1e3 * args.batch / t.milliseconds:>9.0f} {ratio:>22} "
              f"{flops / 1e9:>9.1f} {mfu:>6.1f} {peak_mebibytes(step, []):>9.0f}",
              flush=True)  # fmt: skip


def _print_adversarial(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("torchattacks") is None:
        print("\nadversarial steps are left out: torchattacks is not installed")
        return
    from adversarial_step import EPS, Ours, Plain, build_learner

    from core_tuning.robustness.budgets import make_budget

    budget = make_budget("linf", EPS["linf"])
    images, labels = _images(args, args.attacked)
    images = images.contiguous()
    learner = build_learner(args.encoder, args.classes).to(args.device)
    plain_loop = Plain(copy.deepcopy(learner), images, labels, budget)
    loops: dict[str, Plain | Ours] = {
        f"ours, {precision}": Ours(copy.deepcopy(learner), images, labels, budget).see(precision)
        for precision in ("fp32", "bf16")
    }
    loops["plain loop, fp32"] = plain_loop
    steps = {name: measured(loop.step, args.device) for name, loop in loops.items()}
    timings = compare(steps, [], backward=False, repeats=max(2, args.repeats // 3), warm_up=2)
    print(f"\nadversarial steps, {args.attacked} clean images, PGD-{budget.steps}, Core-tuning")
    print(f"{'loop':<18} {'step ms':>9} {'clean images/s':>15} {'/ first (quartiles)':>22}")
    for name, t in timings.items():
        ratio = f"{t.ratio:.2f} ({t.lower:.2f} to {t.upper:.2f})"
        rate = 1e3 * args.attacked / t.milliseconds
        print(f"{name:<18} {t.milliseconds:>9.1f} {rate:>15.1f} {ratio:>22}", flush=True)


def _print_core(args: argparse.Namespace) -> None:
    print("\nloss core alone, without head and classifier, d = 2048, forward and backward pass")
    print(f"{'B':>5} {'ours ms':>9} {'plain ms':>9} {'plain / ours (quartiles)':>26} "
          f"{'ours MiB':>9} {'plain MiB':>10}")  # fmt: skip
    for batch in args.batches:
        problem = Problem(batch, 2048, args.classes, args.device)
        steps = {"ours": partial(ours, problem), "plain": partial(plain, problem)}
        leaves = problem.leaves()
        timings = compare(steps, leaves, backward=True, repeats=2 * args.repeats)
        memory = [peak_mebibytes(step, leaves) for step in steps.values()]
        t = timings["plain"]
        ratio = f"{t.ratio:.2f} ({t.lower:.2f} to {t.upper:.2f})"
        print(f"{batch:>5} {timings['ours'].milliseconds:>9.3f} {t.milliseconds:>9.3f} "
              f"{ratio:>26} {memory[0]:>9.1f} {memory[1]:>10.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
