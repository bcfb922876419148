"""Pre-train an encoder by MoCo-v2 on unlabelled images that fit into memory.

    python tools/build_emoji_domains.py --unlabelled glyphs
    python tools/pretrain_moco.py --images glyphs --output small_resnet_moco_v2.safetensors

He et al. (CVPR 2020) and Chen et al. (2020), made for one device:

- The images are decoded once and kept on the device, which also augments them.
- The loss is symmetric (Chen et al., 2021): both views are queries and keys.
- MoCo shuffles batches between devices, so that no key carries the statistics of its own batch, by
  which a query could recognise it. `--key-statistics average` serves that end on one device: the
  key encoder normalises by moving averages of the query encoder's statistics (EMAN, Cai et al.,
  CVPR 2021). From random weights it did not begin to learn in 650 steps, so it is not the default.

The loss is lightly's NTXentLoss with a memory bank (a test compares them). It is written out here
because lightly reads the bank's position from the device at every step, which makes a GPU wait.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from batch_augment import random_views
from image_arrays import ImageArray, read_images
from safetensors.torch import save
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from core_tuning.encoders import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALL_ENCODER,
    ImageEncoder,
    build_encoder,
    feature_dim,
)
from core_tuning.files import write_atomically

Facts = dict[str, float]
Pair = tuple[Tensor, Tensor]

EMBEDDING_DIM = 128
HIDDEN_DIM = 1024
# The key encoder follows the query encoder ever more slowly, from the first to the second.
KEY_MOMENTUM = (0.99, 0.999)
WARM_UP = 0.08  # of the training, in which the learning rate rises
KNN_NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1
# Enough to tell a percent apart, in a second or two on a GPU.
KNN_KNOWN, KNN_ASKED = 25_000, 5_000


class Branch(nn.Module):
    """Encoder and projection head of one side of MoCo."""

    def __init__(self, name: str) -> None:
        super().__init__()
        encoder = build_encoder(name)
        dim = feature_dim(encoder)
        self.encoder = ImageEncoder(encoder)
        self.head = nn.Sequential(
            nn.Linear(dim, HIDDEN_DIM), nn.ReLU(), nn.Linear(HIDDEN_DIM, EMBEDDING_DIM)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (n, 3, h, w) in [0, 1] on the unit sphere, (n, 128) float32."""
        return F.normalize(self.head(self.encoder(images)).float())


def moco_logits(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Similarities of queries (n, d) to their keys (n, d), then to a queue (k, d): (n, 1 + k)."""
    own = (queries * keys).sum(1, keepdim=True)
    return torch.cat([own, queries @ queue.T], 1) / temperature


class Moco:
    """What training changes; all of it but the settings goes into the state file."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.query = Branch(args.encoder).to(device).to(memory_format=torch.channels_last)
        # It averages the buffers too, which in evaluation mode makes it EMAN.
        self.key = ModelEmaV3(self.query)
        self.key.module.train(args.key_statistics == "batch")
        self.queue = F.normalize(torch.randn(args.queue, EMBEDDING_DIM)).to(device)
        self.generator = torch.Generator(device)
        self.optimiser = torch.optim.SGD(
            self.query.parameters(), args.lr, momentum=0.9, weight_decay=args.weight_decay
        )
        self.step = 0
        self.seconds = 0.0
        self.history: list[Facts] = []

    def share(self, started: float) -> float:
        """Read the clock, and return which share of the training is done."""
        self.seconds = time.perf_counter() - started
        minutes, steps = self.args.minutes, self.args.steps
        return min(1.0, self.seconds / (60 * minutes) if minutes else self.step / steps)

    def train_step(self, images: Tensor, done: float) -> Pair:
        """Train on images (b, 3, h, w) uint8, at a share `done` of the whole training.

        Returns:
            The loss, and the share of queries nearer to their own key than to the queue's.
        """
        args, b = self.args, len(images)
        fall = (1 + math.cos(math.pi * done)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = args.lr * fall * min(1.0, (done + 1e-4) / WARM_UP)
        self.key.decay = KEY_MOMENTUM[1] - (KEY_MOMENTUM[1] - KEY_MOMENTUM[0]) * fall
        self.generator.manual_seed(args.seed * 1_000_000_007 + self.step)
        views = random_views(torch.cat([images, images]), args.image_size, self.generator)
        views = views.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            queries = self.query(views)
            with torch.no_grad():
                keys = self.key.module(views)
        logits = moco_logits(queries, keys.roll(b, 0), self.queue, args.temperature)
        loss = F.cross_entropy(logits, torch.zeros(2 * b, dtype=torch.long, device=logits.device))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.key.update(self.query)
        start = self.step * 2 * b % args.queue
        self.queue[start : start + 2 * b] = keys
        self.step += 1
        return loss.detach(), (logits.detach().argmax(1) == 0).float().mean()

    def state(self) -> dict[str, object]:
        """Everything that training from here on depends on, but for the settings."""
        return {
            "query": self.query.state_dict(),
            "key": self.key.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "queue": self.queue,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }

    def load(self, path: Path) -> None:
        """Go on from a state file."""
        state = torch.load(path, map_location=self.queue.device, weights_only=True)
        self.query.load_state_dict(state["query"])
        self.key.module.load_state_dict(state["key"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.queue.copy_(state["queue"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = state["history"]


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, size: int) -> Tensor:
    """Normalised features (n, d) of images (n, 3, h, w) uint8, float32, in evaluation mode."""
    was_training = encoder.training
    encoder.eval()
    features = []
    for part in images.split(1000):
        pixels = part.float() / 255
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        features.append(encoder(pixels.contiguous(memory_format=torch.channels_last)))
    encoder.train(was_training)
    return F.normalize(torch.cat(features))


@torch.no_grad()
def knn_accuracy(known: Tensor, classes: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Accuracy of weighted nearest neighbours (Wu et al., CVPR 2018) on normalised features.

    Args:
        known: features (n, d) with classes (n,).
        asked: features (m, d) to classify, whose true classes are `truth` (m,).
    """
    number = int(classes.max()) + 1
    correct = 0
    for features, expected in zip(asked.split(1000), truth.split(1000), strict=True):
        near, index = (features @ known.T).topk(min(KNN_NEIGHBOURS, len(known)))
        votes = near.new_zeros(len(near), number)
        votes.scatter_add_(1, classes[index], (near / KNN_TEMPERATURE).exp())
        correct += int((votes.argmax(1) == expected).sum())
    return correct / len(asked)


def on_device(array: ImageArray, names: list[str], limit: int, device: torch.device) -> Pair:
    """Put at most `limit` images of the named classes, evenly spaced, on the device.

    Returns:
        Images (n, 3, h, w) uint8, and their classes (n,).
    """
    labelled = np.flatnonzero(array.labels != "")
    chosen = labelled[:: math.ceil(len(labelled) / limit)]
    classes = torch.tensor([names.index(label) for label in array.labels[chosen]])
    images = torch.from_numpy(array.pixels[chosen]).permute(0, 3, 1, 2)
    return images.contiguous().to(device), classes.to(device)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images, or of packed files")
    add("--validation", type=Path, help="the same with classes, for the nearest neighbours")
    add("--output", type=Path, required=True, help="safetensors file to write")
    add("--encoder", default=SMALL_ENCODER)
    add("--image-size", type=int, default=48, help="pixels of the views (default: 48)")
    add("--stored-size", type=int, default=64, help="pixels of the images kept (default: 64)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=4000, help="optimiser steps (default: 4000)")
    length.add_argument("--minutes", type=float, help="train this long, all told, instead")
    add("--batch-size", type=int, default=128, help="images of a step; each gives two views")
    add("--queue", type=int, default=4096, help="negatives kept (default: 4096)")
    add("--temperature", type=float, default=0.2)
    add("--key-statistics", choices=("average", "batch"), default="batch", help="of batch norm")
    add("--lr", type=float, default=0.06, help="highest rate of the cosine schedule")
    add("--weight-decay", type=float, default=1e-4)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--reports", type=int, default=10, help="lines to print on the way (default: 10)")
    add("--milestones", type=float, nargs="*", default=[], help="also export at these shares")
    add("--save-every", type=float, default=600, help="seconds between states (default: 600)")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on from OUTPUT.state.pt, where it is there")
    args = parser.parse_args()
    if args.queue % (2 * args.batch_size):
        parser.error(f"--queue {args.queue} is not a multiple of {2 * args.batch_size} keys a step")
    return args


def export(path: Path, moco: Moco) -> None:
    """Write the query encoder under its library's names, with what made it as metadata."""
    args = moco.args
    metadata = {
        "encoder": args.encoder,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "image_size": args.image_size,
        "method": "moco_v2",
        "command": " ".join(["python", *sys.argv]),
        "seed": args.seed,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if moco.queue.is_cuda else "cpu",
        "steps": moco.step,
        "seconds": round(moco.seconds),
        **(moco.history[-1] if moco.history else {}),
    }
    tensors = moco.query.encoder.encoder.state_dict().items()
    contiguous = {name: value.contiguous().cpu() for name, value in tensors}
    write_atomically(path, save(contiguous, metadata={"core_tuning": json.dumps(metadata)}))


def report(moco: Moco, validation: list[Pair], recent: Iterable[Pair], rate: float) -> None:
    """Print the recent steps' means and the nearest neighbours' accuracy; keep them as history."""
    loss, top1 = torch.tensor([torch.stack(pair).tolist() for pair in recent]).mean(0).tolist()
    facts: Facts = {"step": moco.step, "seconds": round(moco.seconds)}
    facts |= {"images_per_second": round(rate)}
    facts |= {"loss": round(loss, 4), "instance_top1": round(top1, 4)}
    if validation:
        size = moco.args.image_size
        (known, classes), (asked, truth) = (
            (encode(moco.query.encoder, images, size), labels) for images, labels in validation
        )
        facts["knn"] = round(knn_accuracy(known, classes, asked, truth), 4)
    moco.history.append(facts)
    print("  ".join(f"{name} {value}" for name, value in facts.items()), flush=True)


def train(moco: Moco, images: Tensor, validation: list[Pair], started: float) -> None:
    """Train to the end of the schedule, reporting, saving and exporting on the way.

    Args:
        moco: as new or as loaded.
        images: (n, 3, h, w) uint8 on the device.
        validation: known and asked images with their classes, or nothing.
        started: when the training began by `time.perf_counter`, less what earlier processes took.
    """
    args, output = moco.args, moco.args.output
    per_epoch = len(images) // args.batch_size
    recent: deque[Pair] = deque(maxlen=100)
    epoch_of_order, order = -1, torch.empty(0)
    share = moco.share(started)
    saved, reported, reported_step = moco.seconds, moco.seconds, moco.step
    while share < 1:
        epoch, batch = divmod(moco.step, per_epoch)
        if epoch != epoch_of_order:
            generator = torch.Generator().manual_seed(args.seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=generator).to(images.device)
            epoch_of_order = epoch
        rows = order[batch * args.batch_size :][: args.batch_size]
        recent.append(moco.train_step(images[rows], share))
        before, share = share, moco.share(started)
        if int(share * args.reports) > int(before * args.reports):
            rate = (moco.step - reported_step) * args.batch_size / (moco.seconds - reported)
            report(moco, validation, recent, rate)
            moco.share(started)
            reported, reported_step = moco.seconds, moco.step
        for milestone in args.milestones:
            if before < milestone <= share:
                name = f"{output.stem}_{milestone:.2f}{output.suffix}"
                export(output.with_name(name), moco)
        if share == 1 or moco.seconds - saved > args.save_every:
            state = io.BytesIO()
            torch.save(moco.state(), state)
            write_atomically(output.with_suffix(".state.pt"), state.getbuffer())
            saved = moco.seconds


def main() -> None:
    """Train and export the query encoder."""
    started = time.perf_counter()
    args = parse_arguments()
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    args.output.parent.mkdir(parents=True, exist_ok=True)
    moco = Moco(args, device)
    state_path = args.output.with_suffix(".state.pt")
    if args.resume and state_path.exists():
        moco.load(state_path)
    started -= moco.seconds

    array = read_images(args.images, args.stored_size)
    if len(array.pixels) < args.batch_size:
        sys.exit(f"{args.images} holds {len(array.pixels)} images: expected at least one batch.")
    images = torch.from_numpy(array.pixels).permute(0, 3, 1, 2).contiguous().to(device)
    validation = []
    if args.validation:
        held_out = read_images(args.validation, args.stored_size)
        names = sorted(set(held_out.labels))
        validation = [
            on_device(array, names, KNN_KNOWN, device),
            on_device(held_out, names, KNN_ASKED, device),
        ]
    del array
    moco.share(started)
    print(f"{len(images)} images on {device}, at {moco.seconds:.0f} s", flush=True)
    train(moco, images, validation, started)
    export(args.output, moco)
    args.output.with_suffix(".json").write_text(json.dumps(moco.history, indent=1) + "\n")
    print(f"{args.output}: {moco.step} steps in {moco.seconds:.0f} s")


if __name__ == "__main__":
    main()
