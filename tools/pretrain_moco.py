"""Pre-train the shipped demo encoder by MoCo-v2 on a folder of unlabelled images.

    python tools/build_emoji_domains.py --unlabelled glyphs
    python tools/pretrain_moco.py --images glyphs --output small_resnet_moco_v2.safetensors

He et al. (CVPR 2020) and Chen et al. (2020), on lightly's loss, head, transform and momentum
update. Without a second device there is nobody to shuffle batch norm with, and the encoder is
small enough to learn all the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD, SMALL_ENCODER, build_encoder
from core_tuning.encoders import feature_dim as width_of

EMBEDDING_DIM = 128
KEY_MOMENTUM = 0.99  # for 0.999 the run is too short: the key encoder would stay random


class UnlabelledImages(Dataset):
    """Every image below a folder, decoded once; an item is two augmented views."""

    def __init__(self, folder: Path, transform: MoCoV2Transform) -> None:
        self.images = [
            Image.open(path).convert("RGB")
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in {".webp", ".png", ".jpg", ".jpeg"}
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Any]:
        return self.transform(self.images[index])


class Branch(nn.Module):
    """Encoder and projection head of one side of MoCo."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        dim = width_of(encoder)
        self.encoder = encoder
        self.head = MoCoProjectionHead(dim, dim, EMBEDDING_DIM)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (n, 3, h, w) as (n, 128)."""
        return self.head(self.encoder(images))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of images, any depth")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--encoder", default=SMALL_ENCODER)
    parser.add_argument("--image-size", type=int, default=48, help="pixels (default: 48)")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps (default: 4000)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--queue", type=int, default=2048, help="negatives kept (default: 2048)")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=0.06, help="first rate of the cosine schedule")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from OUTPUT.state.pt")
    return parser.parse_args()


def save_state(path: Path, state: dict[str, object]) -> None:
    """Write a state file that a kill cannot leave half-written."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def export(encoder: nn.Module, args: argparse.Namespace, facts: dict[str, object]) -> None:
    """Write the encoder under its library's names, with what made it as metadata."""
    metadata = {
        "encoder": args.encoder,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "image_size": args.image_size,
        "method": "moco_v2",
        "command": " ".join(["python", *sys.argv]),
        "seed": args.seed,
        "torch": torch.__version__,
        **facts,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    save_file(tensors, args.output, metadata={"core_tuning": json.dumps(metadata)})


def main() -> None:
    """Train, report the instance discrimination accuracy, and export the query encoder."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    images = UnlabelledImages(args.images, MoCoV2Transform(args.image_size, sigmas=(0.1, 1.0)))
    query = Branch(build_encoder(args.encoder)).to(memory_format=torch.channels_last)
    key = copy.deepcopy(query)
    deactivate_requires_grad(key)
    criterion = NTXentLoss(args.temperature, memory_bank_size=(args.queue, EMBEDDING_DIM))
    optimiser = torch.optim.SGD(query.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.steps)
    modules: dict[str, Any] = {
        "query": query,
        "key": key,
        "optimiser": optimiser,
        "schedule": schedule,
    }
    state_path = args.output.with_suffix(".state.pt")
    step, epoch, seconds = 0, 0, 0.0
    if args.resume:
        state = torch.load(state_path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state[name])
        criterion.load_state_dict(state["criterion"], strict=True)
        step, epoch, seconds = state["step"], state["epoch"], state["seconds"]

    started = time.perf_counter() - seconds
    correct: list[float] = []
    with tqdm(total=args.steps, initial=step, unit="step") as progress:
        while step < args.steps:
            loader = DataLoader(
                images,
                args.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=args.workers,
                generator=torch.Generator().manual_seed(args.seed * 1_000_003 + epoch),
            )
            for query_view, key_view in loader:
                if step == args.steps:
                    break
                update_momentum(query, key, m=KEY_MOMENTUM)
                embedded = query(query_view.contiguous(memory_format=torch.channels_last))
                with torch.no_grad():
                    keys = key(key_view.contiguous(memory_format=torch.channels_last))
                correct.append(instance_top1(embedded.detach(), keys, criterion))
                loss = criterion(embedded, keys)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                step += 1
                progress.update()
                recent = sum(correct[-50:]) / len(correct[-50:])
                progress.set_postfix(loss=f"{loss.item():.3f}", top1=f"{recent:.3f}")
            epoch += 1
            seconds = time.perf_counter() - started
            states = {name: module.state_dict() for name, module in modules.items()}
            position = {"step": step, "epoch": epoch, "seconds": seconds}
            save_state(state_path, {**states, "criterion": criterion.state_dict(), **position})
    top1 = sum(correct[-100:]) / max(1, len(correct[-100:]))
    facts: dict[str, object] = {
        "steps": step,
        "images": len(images),
        "seconds": round(seconds),
        "instance_top1": top1,
    }
    export(query.encoder, args, facts)
    print(f"{args.output}: {facts}")


@torch.no_grad()
def instance_top1(query: Tensor, keys: Tensor, criterion: NTXentLoss) -> float:
    """Share of queries (n, 128) whose own key is nearer than every key of the queue."""
    query, keys = nn.functional.normalize(query), nn.functional.normalize(keys)
    own = (query * keys).sum(1)
    others = (query @ criterion.memory_bank.bank.T).max(1).values
    return (own > others).float().mean().item()


if __name__ == "__main__":
    main()
