"""What a training step costs with CE, CE-Con and Core-tuning, on a GPU or on the CPU.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --batch 32 --precisions fp32 --repeats 5
    python benchmarks/gpu.py --device cpu --tiny

Whole training steps (encoder, objective with projection head, backward pass, SGD with momentum)
take turns in one process, in channels_last, float32 without TF32. MFU is what the step's counted
floating-point operations would take at the card's dense peak, over what the step took. Then come
adversarial steps, if torchattacks is there, and the objective alone as the batch grows, beside the
encoder's time for as many images (scaled from the measured step). Times on a GPU are its own, by
CUDA events around launches that queue up behind other work; peak memory is that of a step above
weights and optimiser state.
"""

from __future__ import annotations

import argparse
import importlib.util
import math

import torch
from measure import Step, both_ways, compare, peak_mebibytes, print_table
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


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="of a step (default: 256)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--attacked", type=int, default=32, help="of an adversarial step; 0: none")
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
    return args


def training_step(
    encoder: nn.Module,
    classifier: nn.Linear,
    objective: nn.Module,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
) -> Step:
    """Make a whole training step.

    All methods share encoder and classifier: of their own, they would differ in where their
    weights lie in memory, by a few percent.
    """
    parameters = [p for module in (encoder, classifier, objective) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> None:
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            terms = objective(encoder(images), labels, classifier)
        terms.total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def objective_step(
    objective: nn.Module, features: Tensor, labels: Tensor, classifier: nn.Linear
) -> Step:
    """Make a step of an objective alone, forward and backward."""
    leaves = [features, *classifier.parameters(), *objective.parameters()]
    return both_ways(lambda: [objective(features, labels, classifier).total], leaves)


def main() -> None:
    """Print the tables."""
    args = options()
    device, classes, batch = args.device, args.classes, args.batch
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    known = (peaks for name, peaks in PEAKS.items() if name in card)
    peaks = dict(zip(PRECISIONS, args.peak_tflops or next(known, (math.nan,) * 2), strict=True))
    print(f"{card}, {torch.get_num_threads()} threads, torch {torch.__version__}, CUDA "
          f"{torch.version.cuda}; dense peak in TFLOP/s taken as {peaks}")  # fmt: skip

    encoder = build_encoder(args.encoder)
    dim = feature_dim(encoder)
    encoder.to(device).to(memory_format=torch.channels_last)
    classifier = nn.Linear(dim, classes, bias=False).to(device)
    objectives: dict[str, nn.Module] = {
        "CE": CrossEntropyLoss(),
        "CE-Con": CEContrastiveLoss(dim).to(device),
        "Core-tuning": CoreTuningLoss(dim, classes).to(device),
    }
    images = torch.rand(batch, 3, args.image_size, args.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % classes
    encoder_ms = math.nan
    for precision in args.precisions:
        steps = {
            name: training_step(encoder, classifier, each, images, labels, PRECISIONS[precision])
            for name, each in objectives.items()
        }
        rows = []
        for name, timing in compare(steps, repeats=args.repeats, device=device).items():
            with FlopCounterMode(display=False) as counter:
                steps[name]()
            took, flops = timing.milliseconds.median, counter.get_total_flops()
            mfu = 100 * flops / (took * 1e9 * peaks[precision])
            rows.append((name, timing.milliseconds, 1e3 * batch / took, timing.ratios, flops / 1e9,
                         mfu, peak_mebibytes(steps[name], device)))  # fmt: skip
            encoder_ms = took if name == "CE" else encoder_ms
        print_table(
            f"{args.encoder}, {batch} images of {args.image_size} pixels, K = {classes}, "
            f"{precision}",
            ("method", "ms", "images/s", "/ CE", "GFLOP", "MFU %", "peak MiB"),
            rows,
        )

    if args.attacked and importlib.util.find_spec("torchattacks") is not None:
        from adversarial_step import EPS, Loop, build_learner, make_budget, print_steps

        learner, budget = (
            build_learner(args.encoder, classes).to(device),
            make_budget("linf", EPS["linf"]),
        )
        clean = images[: args.attacked].contiguous()
        loops = {
            f"ours, {p}": Loop(learner, clean, labels[: len(clean)], budget, p) for p in PRECISIONS
        }
        loops["plain loop, fp32"] = Loop(learner, clean, labels[: len(clean)], budget)
        print_steps(
            {name: loop.step for name, loop in loops.items()}, len(clean),
            max(2, args.repeats // 3), f"{len(clean)} images, PGD-10, Core-tuning", device,
        )  # fmt: skip

    rows = []
    for size in args.batches:
        features = torch.rand(size, dim, device=device, requires_grad=True)
        labels = torch.arange(size, device=device) % classes
        alone = {
            name: objective_step(objectives[name], features, labels, classifier)
            for name in ("CE", "Core-tuning")
        }
        timings = compare(alone, repeats=max(3, 1024 // size), device=device)
        ce, core = (timing.milliseconds.median for timing in timings.values())
        beside = encoder_ms / batch * size
        memory = [peak_mebibytes(step, device) for step in alone.values()]
        rows.append((size, ce, core, beside, 1 + (core - ce) / beside, *memory))
    print_table(
        "Objective alone (projection head, losses, their backward pass), without the encoder",
        ("B", "CE ms", "Core ms", "encoder ms", "step / CE", "CE MiB", "Core MiB"),
        rows,
    )


if __name__ == "__main__":
    main()
