"""A learner and a data set so small that a step takes a millisecond."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from core_tuning.config import TrainingOptions
from core_tuning.data.loading import EpochSampler
from core_tuning.encoders import NO_NORMALISATION, ImageEncoder
from core_tuning.objectives import CoreTuningLoss, CrossEntropyLoss
from core_tuning.training.build import EpochBatches
from core_tuning.training.evaluate import evaluate
from core_tuning.training.folder import RunFolder
from core_tuning.training.learner import Learner
from core_tuning.training.loop import BatchChange, Evaluator, fit
from core_tuning.training.recorder import RunRecorder

CLASSES = 3
WIDTH = 5


class TinyEncoder(nn.Module):
    """Images (n, 3, 4, 4) to features (n, WIDTH), with the layer name that an export needs."""

    def __init__(self, *, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, WIDTH))
        if batch_norm:
            self.layers.append(nn.BatchNorm1d(WIDTH))
        self.layers.append(nn.Tanh())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.layers(images)))


class TinyImages(Dataset):
    """Images (3, 4, 4) of three classes; a training key's seed adds noise, as augmentation does."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(count)
        self.images = torch.rand(count, 3, 4, 4, generator=generator)
        self.labels = [index % CLASSES for index in range(count)]
        for image, label in zip(self.images, self.labels, strict=True):
            image[label] += 0.5

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image = self.images[index]
        if seed is not None:
            noise = torch.Generator().manual_seed(seed % 2**62)
            image = image + 0.1 * torch.rand(image.shape, generator=noise)
        return image, self.labels[index]


def build_learner(
    method: str = "ce", *, dropout: float = 0.0, batch_norm: bool = True, seed: int = 0
) -> Learner:
    torch.manual_seed(seed)
    encoder = ImageEncoder(
        TinyEncoder(dropout=dropout, batch_norm=batch_norm), normalisation=NO_NORMALISATION
    )
    objective = (
        CrossEntropyLoss(CLASSES)
        if method == "ce"
        else CoreTuningLoss(WIDTH, CLASSES, projection_dim=4)
    )
    return Learner(encoder, nn.Linear(WIDTH, CLASSES, bias=False), objective)


def options(**given: Any) -> TrainingOptions:
    """Three epochs of batches of six, by SGD, without a preset."""
    defaults = {
        "epochs": 3, "batch_size": 6, "lr": 0.1, "momentum": 0.9, "nesterov": True,
        "weight_decay": 1e-4, "schedule": "cosine", "workers": 0,
    }  # fmt: skip
    return TrainingOptions(**{**defaults, **given})


@pytest.fixture
def tiny() -> types.SimpleNamespace:
    """Return the learner's and the data's constructors, and `train`, which calls `fit`."""

    def train(
        path: Path,
        learner: Learner | None = None,
        *,
        images: int = 26,
        validate: Callable[[Learner], Any] | str | None = "on 9 images",
        seed: int = 0,
        change: BatchChange | None = None,
        **given: Any,
    ) -> types.SimpleNamespace:
        learner = build_learner() if learner is None else learner
        folder = RunFolder(path)
        if not folder.marker_path.exists():
            folder.start({"options": {}})
        if validate == "on 9 images":
            loader = DataLoader(TinyImages(9), batch_size=4)
            validate = partial(evaluate, loader=loader, num_classes=CLASSES)
        chosen = options(**given)
        sampler = EpochSampler(images, chosen.batch_size, seed)
        steps = chosen.total_steps(len(sampler))
        measure = None if validate is None else lambda model, step: validate(model)
        state = fit(
            learner,
            EpochBatches(TinyImages(images), sampler, steps, chosen.workers),
            Evaluator(measure, chosen.eval_every or len(sampler)),
            chosen,
            RunRecorder(folder, {}, chosen),
            seed=seed,
            change=change,
        )
        return types.SimpleNamespace(learner=learner, folder=folder, state=state)

    return types.SimpleNamespace(
        train=train,
        build_learner=build_learner,
        Images=TinyImages,
        classes=CLASSES,
        options=options,
    )
