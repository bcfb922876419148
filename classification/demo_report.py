"""The demo's table, figures and report.html."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import nn

from core_tuning.data.loading import load_batches
from core_tuning.training.exported import load_model
from core_tuning.training.folder import write_atomically

from .build import build_data, build_image_encoder
from .figures import save_accuracies, save_embeddings
from .options import METHODS, parse
from .summary import Summary, summarise

Results = Mapping[str, Sequence[dict[str, Any]]]
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.3em .8em;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def write_report(output: Path, results: Results, folders: Mapping[str, Path], command: str) -> str:
    """Write figures and report.html; return the table and the finding as text.

    Args:
        output: the demo's folder.
        results: of each method, one a seed, seeds in the same order.
        folders: of each method, the run whose test features are drawn.
        command: that made them.
    """
    table = {
        method: {
            name: summarise([run["test"][name] for run in runs])
            for name in ("top1", "mean_per_class")
        }
        for method, runs in results.items()
    }
    findings = describe(results)
    figures = output / "figures"
    accuracies = {METHODS[m]: [run["test"]["top1"] for run in runs] for m, runs in results.items()}
    save_accuracies(accuracies, figures / "accuracy.png")
    panels, classes = _feature_maps(folders)
    save_embeddings(panels, classes, figures / "features.png")
    page = _page(table, findings, results, command, figures)
    write_atomically(output / "report.html", page.encode())
    return "\n".join([_text_table(table), "", *findings])


def describe(results: Results) -> list[str]:
    """Say of CE-Con and Core-tuning how they differ from CE, whichever way it falls.

    The runs of a seed share their split, initial weights and batches, so that the differences
    are taken seed by seed.
    """
    baseline = [run["test"]["top1"] for run in results["ce"]]
    return [
        _difference(METHODS[method], baseline, [run["test"]["top1"] for run in runs])
        for method, runs in results.items()
        if method != "ce"
    ]


def _difference(title: str, baseline: Sequence[float], values: Sequence[float]) -> str:
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    summary = summarise(differences)
    if summary.interval is None:
        return f"{title} minus CE: {summary.mean:+.2f} points with one seed, too few to judge."
    low, high = summary.mean - summary.interval, summary.mean + summary.interval
    if low > 0:
        verdict = f"{title} is better than CE here"
    elif high < 0:
        verdict = f"{title} is worse than CE here"
    else:
        verdict = f"no difference between {title} and CE is shown here"
    return (
        f"{title} minus CE: {summary.mean:+.2f} points, 95% interval [{low:+.2f}, {high:+.2f}] "
        f"over {summary.runs} seeds: {verdict}."
    )


def _text_table(table: Mapping[str, Mapping[str, Summary]]) -> str:
    lines = [f"{'method':<12} {'top-1 (%)':>16} {'mean per class (%)':>20}"]
    for method, row in table.items():
        cells = f"{row['top1']!s:>16} {row['mean_per_class']!s:>20}"
        lines.append(f"{METHODS[method]:<12} {cells}")
    seeds = next(iter(table.values()))["top1"].runs
    lines.append(f"test set of emoji_domains, mean ± standard error over {seeds} seeds")
    return "\n".join(lines)


def _feature_maps(
    folders: Mapping[str, Path],
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """t-SNE of the test features of the pre-trained encoder and of each method's model."""
    options = parse(["--workers", "0"])
    data = build_data(options, seed=0)
    loader = data.test
    encoders: dict[str, nn.Module] = {"before fine-tuning": build_image_encoder(options)[0].eval()}
    for method, folder in folders.items():
        encoders[METHODS[method]] = load_model(folder)[0][0]
    panels = {}
    for title, encoder in encoders.items():
        features, labels = _encode(encoder, loader)
        points = TSNE(perplexity=30, init="pca", random_state=0).fit_transform(features)
        panels[title] = (points, labels)
    return panels, data.splits.classes


@torch.no_grad()
def _encode(encoder: nn.Module, loader: Any) -> tuple[np.ndarray, np.ndarray]:
    features, labels = [], []
    for images, batch_labels in load_batches(loader):
        features.append(encoder(images))
        labels.append(batch_labels)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def _page(
    table: Mapping[str, Mapping[str, Summary]],
    findings: Sequence[str],
    results: Results,
    command: str,
    figures: Path,
) -> str:
    runs = next(iter(results.values()))
    rows = "".join(
        f"<tr><td>{METHODS[method]}</td><td>{row['top1']}</td><td>{row['mean_per_class']}</td></tr>"
        for method, row in table.items()
    )
    said = "".join(f"<li>{html.escape(text)}</li>" for text in findings)
    seconds = sum(run["seconds"] for method in results.values() for run in method)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>core-tuning demo</title><style>{STYLE}</style>
<h1>Fine-tuning a MoCo-v2 encoder on emoji_domains</h1>
<p>A small ResNet, pre-trained without labels on other artwork, was fine-tuned with {len(runs)}
seeds a method, {runs[0]["steps"]} steps each, in {seconds / 60:.1f} minutes. The model of each run
was selected on a validation split of its training images; the
{runs[0]["test"]["images"]} test images ({html.escape(runs[0]["split"])}) were read
once, at the end.</p>
<table><tr><th>method</th><th>top-1 (%)</th><th>mean per class (%)</th></tr>{rows}</table>
<p>Mean ± standard error over seeds.</p><ul>{said}</ul>
<h2>Accuracy</h2><p>Small markers are runs; large ones their mean, with its standard error.</p>
{_image(figures / "accuracy.png", "test accuracy of each method")}
<h2>Features of the test images</h2><p>t-SNE of the encoder's features, first seed.</p>
{_image(figures / "features.png", "t-SNE of the features before and after fine-tuning")}
<p>Made by <code>{html.escape(command)}</code>.</p></html>
"""


def _image(path: Path, description: str) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{description}" src="data:image/png;base64,{encoded}">'
