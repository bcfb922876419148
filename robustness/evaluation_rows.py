"""The rows of an evaluation: each attack at each eps, written as soon as it is known."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core_tuning.files import (
    append_line,
    field,
    read_json,
    read_lines,
    write_atomically,
    write_lines,
)

from .attack.autoattack import collect_warnings
from .attack.view import AttackView
from .budgets import beyond_usual, describe_eps, make_budget
from .measure import SavedState, accuracy, measure
from .protocols import Protocol, Stage
from .spaces import Group, Pixels

# Gradient steps of those attacks that are budgets of projected gradient descent.
_STEPS = {"pgd10": 10, "pgd50x10": 50}
# What is read of a line that an earlier process wrote, and of a masking check.
_NUMBER = (int, float)
_ROW = {
    **dict.fromkeys(("attack", "title", "norm", "eps_text", "space"), str),
    **dict.fromkeys(("eps", "robust", "low", "high", "largest_l2_native"), _NUMBER),
    **dict.fromkeys(("n", "correct"), int),
    **dict.fromkeys(("after", "notes", "warnings"), list),
    "zero_gradients": (*_NUMBER, NoneType),
}
_MASKING = {"norm": str, "eps": _NUMBER, "images": int, "checks": list}
_CHECK = {
    **dict.fromkeys(("name", "title", "value", "expected"), str), "flagged": bool, "points": list
}  # fmt: skip


class Job(NamedTuple):
    """A row that is asked for."""

    protocol: Protocol
    norm: str
    eps: float

    @property
    def key(self) -> list[Any]:
        """What tells it from other rows of the same evaluation."""
        return [self.protocol.name, self.norm, self.eps]

    def __str__(self) -> str:
        return f"{self.protocol.name} {self.norm} {describe_eps(self.norm, self.eps)}"


class RowFile:
    """rows.jsonl, and beside it what is known of the row in progress.

    Args:
        folder: of the evaluation.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.jsonl"
        self.progress_path = folder / ".row.json"
        self.rows = _read_whole_lines(self.path, _ROW)

    def find(self, job: Job) -> dict[str, Any] | None:
        """Return a finished row, or None."""
        for row in self.rows:
            if [row["attack"], row["norm"], row["eps"]] == job.key:
                return row
        return None

    def append(self, row: dict[str, Any]) -> None:
        """Add a finished row."""
        append_line(self.path, row)
        self.rows.append(row)
        self.progress_path.unlink(missing_ok=True)


def _read_whole_lines(path: Path, kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read what an earlier process wrote, and drop a last line that a kill cut short.

    Raises:
        UserError: a line is damaged, or has not the values that are read of it.
    """
    lines = read_lines(path)
    for line in lines:
        for name, kind in kinds.items():
            field(line, name, kind, path)
    if lines or path.exists():
        # It would run into the next.
        write_lines(path, lines)
    return lines


def read_masking(path: Path) -> list[dict[str, Any]]:
    """Read the masking checks of an earlier process; raises a UserError if they are damaged."""
    lines = _read_whole_lines(path, _MASKING)
    for check in [check for line in lines for check in line["checks"]]:
        field({"check": check}, "check", dict, path)
        for name, kind in _CHECK.items():
            field(check, name, kind, path)
    return lines


class _RowProgress:
    """The states of a row's groups of images, in one file."""

    def __init__(self, path: Path, key: list[Any]) -> None:
        self.path = path
        held = read_json(path) if path.exists() else {}
        self.groups: dict[str, Any] = {}
        if held.get("key") == key:
            self.groups = field(held, "groups", dict, path)
        self.key = key

    def write(self) -> None:
        contents = {"key": self.key, "groups": self.groups}
        write_atomically(self.path, json.dumps(contents).encode())


class _GroupState(SavedState):
    """One group's part of that file."""

    def __init__(self, row: _RowProgress, index: int) -> None:
        super().__init__(row.path)
        self.row = row
        self.index = str(index)

    def read(self) -> dict[str, Any]:
        groups = {self.index: {}, **self.row.groups}
        return field(groups, self.index, dict, self.row.path)

    def write(self, contents: dict[str, Any]) -> None:
        self.row.groups[self.index] = contents
        self.row.write()


class Bar:
    """Share of the work that is done, and the time left, on stderr.

    Work is counted in forward passes of an image, of which fooled images need fewer: the time
    left is at most what is shown.

    Args:
        jobs: rows still to be measured.
        images: number of images of each.
        view: whose forward passes move the bar.
    """

    def __init__(self, jobs: list[Job], images: int, view: nn.Module) -> None:
        work = sum(stage.cost for job in jobs for stage in job.protocol.parts())
        self.bar = tqdm(
            total=images * work,
            file=sys.stderr,
            mininterval=0.5,
            smoothing=0.1,
            disable=not jobs,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed} passed, {remaining} left",
        )
        self.settled = 0
        self.hook = view.register_forward_hook(self._tick)

    def _tick(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.bar.update(len(inputs[0]) * (2 if inputs[0].requires_grad else 1))

    def settle(self, images: int, stage: Stage) -> None:
        """Count images as done with a stage, whatever it took."""
        self.settled += images * stage.cost
        self.bar.n = self.settled
        self.bar.refresh()

    def begin(self, job: Job) -> None:
        """Name the row in progress."""
        self.bar.set_description_str(str(job))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.hook.remove()
        self.bar.close()


def measure_rows(
    jobs: list[Job],
    model: nn.Module,
    view: AttackView,
    pixels: Pixels,
    file: RowFile,
    common: dict[str, Any],
    describe: Any,
    *,
    seed: int,
    batch_size: int,
) -> None:
    """Measure the rows that the file lacks, and write each of them.

    Args:
        jobs: in order.
        model: judges; on the device.
        view: of the model, is attacked.
        pixels: the images.
        file: takes the rows.
        common: what every row states alike.
        describe: (norm, eps) -> what a row states of its budget.
        seed: of the attacks.
        batch_size: images attacked at once.
    """
    missing = [job for job in jobs if file.find(job) is None]
    bar = Bar(missing, len(pixels.sizes), view)
    try:
        for job in missing:
            bar.begin(job)
            row = _measure_row(job, model, view, pixels.attacked, file, bar, seed, batch_size)
            row |= {**describe(job.norm, job.eps), **common}
            file.append(row)
            bar.say(f"{job}: {row['robust']:.2f}% [{row['low']:.2f}, {row['high']:.2f}]")
    finally:
        bar.close()


def _measure_row(
    job: Job,
    model: nn.Module,
    view: AttackView,
    groups: list[Group],
    file: RowFile,
    bar: Bar,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    started = time.monotonic()
    progress = _RowProgress(file.progress_path, job.key)
    resumed = bool(progress.groups)
    found = []
    with collect_warnings() as warnings:
        for index, (images, labels) in enumerate(groups):
            found.append(
                measure(
                    model,
                    view,
                    images,
                    labels,
                    *(job.protocol, job.norm, job.eps),
                    seed=seed,
                    batch_size=batch_size,
                    saved=_GroupState(progress, index),
                    on_batch=bar.settle,
                )
            )
    robust = torch.cat([each.robust for each in found])
    counted = accuracy(int(robust.sum()), len(robust))
    after = [
        [name, sum(each.after[number][1] for each in found)]
        for number, (name, _) in enumerate(found[0].after)
    ]
    row: dict[str, Any] = {"attack": job.protocol.name, "title": job.protocol.title}
    row |= {"norm": job.norm, "eps": job.eps, "eps_text": describe_eps(job.norm, job.eps)}
    row |= {**counted._asdict(), "robust": counted.percent}
    if job.protocol.name in _STEPS:
        budget = make_budget(job.norm, job.eps, steps=_STEPS[job.protocol.name])
        row |= {"steps": budget.steps, "step_size": budget.step_size}
    row["restarts"] = len(job.protocol.parts()) if job.protocol.name == "pgd50x10" else 1
    row["after"] = after if len(after) > 1 else []
    row["zero_gradients"] = _weighted([(each.zero_gradients, len(each.robust)) for each in found])
    notes = (job.protocol.note, _square_note(job, groups), eps_note(job.norm, job.eps, groups))
    row["notes"] = [note for note in notes if note]
    row["warnings"] = warnings
    # What an earlier process took is not known.
    row["seconds"] = None if resumed else round(time.monotonic() - started, 1)
    return row


def _weighted(shares: list[tuple[float | None, int]]) -> float | None:
    known = [(share, images) for share, images in shares if share is not None]
    total = sum(images for _, images in known)
    return sum(share * images for share, images in known) / total if total else None


def eps_note(norm: str, eps: float, groups: list[Group]) -> str:
    """Say that an eps is larger than the literature's for some of the images; "" if it is not."""
    sizes = [images.shape[-2:] for images, _ in groups]
    height, width = min(sizes, key=math.prod)
    found = beyond_usual(norm, eps, (height, width))
    return f"{found}: such a change can be seen, and may change what the image shows." * bool(found)


def _square_note(job: Job, groups: list[Group]) -> str:
    stages = {stage.name for stage in job.protocol.parts()}
    oblong = any(images.shape[-1] != images.shape[-2] for images, _ in groups)
    if "square" not in stages or not oblong:
        return ""
    return "Square was made for square images; some here are not."
