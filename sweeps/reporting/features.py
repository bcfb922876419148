"""What fine-tuning makes of the features of test images: t-SNE maps of a part's models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from core_tuning.checkpoints.sources import load_image_encoder
from core_tuning.data import SeededTransform, build_transforms, load_splits
from core_tuning.data.images import LabelledImages
from core_tuning.data.loading import evaluation_loader, load_batches
from core_tuning.errors import UserError
from core_tuning.report.figures import save_embeddings, tsne
from core_tuning.report.page import Figure
from core_tuning.training.build import NORMALISATIONS
from core_tuning.training.exported import load_model
from core_tuning.training.folder import RunFolder
from core_tuning.training.optimisation import choose_device

from .results import PartReport
from .views import listed

# More panels, classes and images than these are neither told apart nor worth their seconds.
MOST_ROWS = 5
MOST_CLASSES = 10
MOST_IMAGES = 500
BEFORE = "before fine-tuning"
BATCH = 100
# Of a run's configuration.
_NEEDED = frozenset(
    {"dataset", "data_dir", "validation", "seed", "pretrained", "encoder", "normalisation"}
)


def draw_features(part: PartReport, runs: Path, path: Path) -> Figure:
    """Draw t-SNE maps of test images: before fine-tuning, and by a model of each row.

    The models are of the first value of the other axes that has finished runs, of the seed that
    most rows are finished for, and of the first rows of the definition. All maps are of the same
    images, evenly spread over those of the first classes.

    Args:
        part: of `finetune`.
        runs: folder of the runs' folders, which are named by id.
        path: of the PNG file.

    Raises:
        UserError: no run is finished, or a model, its configuration or its data set is not there;
            nothing was drawn.
    """
    chosen = choose_runs(part)
    if not len(chosen):
        raise UserError("No run is finished: wait for one.")
    with _reading():
        config = _config(runs / chosen["id"].iloc[0])
        images, classes = _test_images(config)
        models = {
            row: load_model(runs / id) for row, id in zip(chosen["row"], chosen["id"], strict=True)
        }
        encoders = {row: (model[0], facts) for row, (model, facts) in models.items()}
        without = ""
        try:
            encoder, _ = load_image_encoder(
                config["encoder"],
                config["pretrained"],
                normalisation=NORMALISATIONS[config["normalisation"]],
            )
            encoders = {BEFORE: (encoder, next(iter(models.values()))[1]), **encoders}
        except UserError as error:
            without = f" The map before fine-tuning is left out: {error}"
        device = choose_device("auto")
        labels = np.asarray(images.labels)
        panels = {
            title: (_map(encoder, _transformed(images, facts), device), labels)
            for title, (encoder, facts) in encoders.items()
        }
    save_embeddings(panels, classes, path)
    what = f"t-SNE of the features of {len(images)} test images of {config['dataset']}"
    caption = (
        f"{what}, of its first {len(classes)} classes, seed {config['seed']}. Distances between "
        "clusters and their sizes mean nothing in t-SNE, and one seed shows no difference between "
        f"methods.{without}"
    )
    return Figure(path, f"{what}: {listed(list(panels))}", caption)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what cannot be read into a UserError: a report that cannot be written is another."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{error.filename or 'A file'} cannot be read ({reason}).") from error


def _config(run: Path) -> dict[str, Any]:
    stored = RunFolder(run).read_run()
    config = {**stored["options"], "seed": stored.get("seed")}
    lacking = _NEEDED - config.keys()
    if lacking:
        raise UserError(
            f"{run / 'run.json'} is damaged (it lacks {', '.join(sorted(lacking))}): expected "
            "what 'core-tuning finetune' writes."
        )
    return config


def choose_runs(part: PartReport) -> pd.DataFrame:
    """The lines of `part.values` whose models are drawn, in the order of the rows."""
    values = part.values
    for axis in part.axes:
        finished = [
            name for name in dict.fromkeys(part.cells[axis]) if (values[axis] == name).any()
        ]
        values = values[values[axis] == finished[0]] if finished else values[:0]
    counts = values.groupby("seed").size()
    if not len(counts):
        return values
    values = values[values["seed"] == counts[counts == counts.max()].index.min()]
    rows = list(dict.fromkeys(part.cells["row"]))
    return values.sort_values("row", key=lambda names: names.map(rows.index))[:MOST_ROWS]


def _test_images(config: Mapping[str, Any]) -> tuple[LabelledImages, list[str]]:
    """Test images of the first classes, evenly spread, and the names of these classes."""
    folder = config["data_dir"]
    splits = load_splits(
        config["dataset"],
        None if folder is None else Path(folder),
        validation=config["validation"],
        seed=config["seed"],
    )
    among = [i for i, label in enumerate(splits.test.labels) if label < MOST_CLASSES]
    spread = np.linspace(0, len(among) - 1, min(len(among), MOST_IMAGES)).astype(int)
    return splits.test.subset([among[i] for i in spread]), splits.classes[:MOST_CLASSES]


def _transformed(images: LabelledImages, facts: Mapping[str, Any]) -> SeededTransform:
    """Images as the model of these facts takes them."""
    transforms = build_transforms(facts["transforms"], facts["image_size"])
    return SeededTransform(images, transforms.evaluate)


@torch.no_grad()
def _map(encoder: nn.Module, images: SeededTransform, device: torch.device) -> np.ndarray:
    """t-SNE (n, 2) of the features of images (n)."""
    encoder.to(device).eval()
    loader = evaluation_loader(images, BATCH, workers=0)
    features = torch.cat([encoder(batch.to(device)).cpu() for batch, _ in load_batches(loader)])
    return tsne(features.numpy())
