"""Compare frozen encoders by nearest neighbours and a linear classifier on sets of images.

    python tools/evaluate_encoder.py --data folder=cifar10 caltech101=caltech folder=imagenette \
        --weights small_resnet:embedded small_resnet:random small_resnet_2x:FILE.safetensors

Prints a table: top-1 in percent on held-out images of each set, for each encoder. At most --train
and --test images of a set are used, a seeded sample in equal shares of the classes as far as they
go, resized to --image-size and cropped to the middle square.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from image_arrays import fit_square
from pretrain_moco import encode, knn_accuracy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from core_tuning.checkpoints.sources import load_image_encoder
from core_tuning.data.catalogue import load_splits
from core_tuning.data.images import LabelledImages


def sample(images: LabelledImages, limit: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw at most `limit` images, spread over the classes: (n, 3, side, side) uint8, (n,)."""
    random = np.random.default_rng(seed)
    labels = np.asarray(images.labels)
    order = random.permutation(len(labels))
    # How many of its class came before each image: the first of every class, then the second, ...
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    chosen = order[np.argsort(rank[order], kind="stable")][:limit]
    pixels = np.stack([np.asarray(fit_square(images.image(int(i)), side)) for i in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels[chosen])


def linear_accuracy(known: Tensor, classes: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Accuracy of logistic regression (L-BFGS) on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    model.fit(known.numpy(), classes.numpy())
    return model.score(asked.numpy(), truth.numpy())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="SET=FOLDER, SET as in core-tuning finetune")
    add("--weights", nargs="+", required=True, help="ENCODER:FILE, ENCODER:embedded or :random")
    add("--image-size", type=int, default=64, help="pixels (default: 64)")
    add("--train", type=int, default=5000, help="training images of a set (default: 5000)")
    add("--test", type=int, default=2000, help="test images of a set (default: 2000)")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Encode each set with each encoder and print the accuracies."""
    args = parse_arguments()
    print("| set | encoder | weights | training images | kNN | linear |\n|---|---|---|---|---|---|")
    for entry in args.data:
        name, _, root = entry.partition("=")
        splits = load_splits(name, Path(root), validation=0.0, seed=args.seed)
        train, classes = sample(splits.train, args.train, args.image_size, args.seed)
        test, truth = sample(splits.test, args.test, args.image_size, args.seed)
        for weights in args.weights:
            encoder_name, _, pretrained = weights.rpartition(":")
            torch.manual_seed(args.seed)
            encoder, _ = load_image_encoder(encoder_name, pretrained)
            known, asked = (encode(encoder, part, args.image_size) for part in (train, test))
            knn = knn_accuracy(known, classes, asked, truth)
            linear = linear_accuracy(known, classes, asked, truth)
            print(
                f"| {Path(root).name} | {encoder_name} | {Path(pretrained).name} | {len(train)} "
                f"| {100 * knn:.1f} | {100 * linear:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
