"""The demo's table, figures and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core_tuning.checkpoints.sources import EMBEDDED, default_encoder, load_image_encoder
from core_tuning.data import build_transforms
from core_tuning.methods import METHODS
from core_tuning.report.figures import Mark, save_embeddings, save_points, tsne
from core_tuning.report.page import Block, Figure, Page, Section, write_html
from core_tuning.report.summary import difference, summarise
from core_tuning.report.tables import Table, text
from core_tuning.selection import Cell, Selected, select, training_domain_validation

from .environments import Environments
from .evaluation import Store
from .hyperparameters import method_of
from .saved import load_model
from .tables import accuracies, trial_means

Records = Sequence[Mapping[str, Any]]
# Of accuracies in %: method -> for each target, one a seed.
Accuracies = dict[str, list[list[float]]]
DRAWN_IMAGES = 600


def write_report(output: Path, records: Records, environments: Environments, command: str) -> str:
    """Write figures and report.html; return the table and the finding as text.

    Args:
        output: the demo's folder.
        records: lines of results.jsonl of all its runs.
        environments: of the data set.
        command: that made them.
    """
    chosen = select(records, training_domain_validation)
    by_method = by_target(chosen, len(environments.names))
    means = {
        method: trial_means([dict(enumerate(values)) for values in columns])
        for method, columns in by_method.items()
    }
    findings = describe(means)
    rows = [[method, *map(summarise, columns), summarise(means[method])]
            for method, columns in by_method.items()]  # fmt: skip
    table = Table(
        ["method", *environments.names, "mean"],
        rows,
        "top-1 (%) on the domain left out, mean ± standard error over seeds",
    )
    figures = output / "figures"
    accuracy, features = figures / "accuracy.png", figures / "features.png"
    grouped = {
        name: {method: Mark(columns[number]) for method, columns in by_method.items()}
        for number, name in enumerate(environments.names)
    }
    save_points(
        grouped, accuracy, label="accuracy on the target, top-1 (%)",
        groups_label="target domain, which was not trained on",
    )  # fmt: skip
    target = _hardest(by_method)
    save_embeddings(_feature_maps(chosen, target, environments), environments.classes, features)
    sections = [
        Section("Accuracy", [
            Figure(accuracy, "accuracy of each method on each target domain", ""),
        ]),
        Section(f"Features of the images of {environments.names[target]}", [
            "t-SNE of the encoder's features of the target domain that is hardest for CE, first "
            "seed.",
            Figure(features, "t-SNE before and after fine-tuning", ""),
        ]),
    ]  # fmt: skip
    opening: list[Block] = [_introduction(records, means), table, findings]
    title = "Leave one domain of emoji_domains out"
    write_html(Page(title, command, sections, opening), output / "report.html")
    return "\n".join([text(table), "", *findings])


def by_target(chosen: Mapping[Cell, Selected], environments: int) -> Accuracies:
    """Arrange what was selected as method -> target -> one accuracy (%) a seed, in their order."""
    return {
        method.title: [
            [value for _, value in sorted(accuracies(chosen, method.domainbed, target).items())]
            for target in range(environments)
        ]
        for method in METHODS.values()
        if any(cell.algorithm == method.domainbed for cell in chosen)
    }


def describe(means: Mapping[str, Sequence[float]]) -> list[str]:
    """Say of CE-Con and Core-tuning how they differ from CE, whichever way it falls.

    The runs of a seed share their splits, initial weights and batches, so that the differences
    are taken seed by seed.

    Args:
        means: of each method, its mean accuracy (%) over the targets, one a seed.
    """
    return [
        difference(method, means["CE"], values)
        for method, values in means.items()
        if method != "CE"
    ]


def _hardest(table: Accuracies) -> int:
    return min(range(len(table["CE"])), key=lambda target: np.mean(table["CE"][target]))


def _introduction(records: Records, means: Mapping[str, Sequence[float]]) -> str:
    steps = max(record["step"] for record in records) + 1
    seeds = len(means["CE"])
    return (
        "A small ResNet, pre-trained without labels on other artwork, was fine-tuned on three "
        f"design teams' emoji and tested on the fourth's: {seeds} seeds a method and target, "
        f"{steps} steps each. The step was selected on a validation split of the three source "
        "domains; the target domain selected nothing."
    )


def _feature_maps(
    chosen: Mapping[Cell, Selected], target: int, environments: Environments
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """t-SNE of the target's features by the pre-trained encoder and by each method's model."""
    store = Store(
        environments, build_transforms("domainbed", environments.image_size), memory=2, workers=0
    )
    count = len(store.images[target])
    indices = np.linspace(0, count - 1, min(count, DRAWN_IMAGES)).astype(int).tolist()
    labels = np.asarray(store.images[target].labels)[indices]
    encoders: dict[str, nn.Module] = {
        "before fine-tuning": load_image_encoder(default_encoder(EMBEDDED), EMBEDDED)[0].eval()
    }
    seed = min(cell.trial_seed for cell in chosen)
    for cell, selected in chosen.items():
        if (cell.target, cell.trial_seed) == (target, seed):
            model = load_model(Path(selected.folder) / "best_iid.pkl")
            encoders[method_of(cell.algorithm).title] = model.featurizer.image_encoder
    panels = {}
    for title, encoder in encoders.items():
        with torch.no_grad():
            batches = [encoder(images) for images in store.evaluation_batches(target, indices)]
        features = torch.cat(batches).numpy()
        panels[title] = (tsne(features), labels)
    return panels
