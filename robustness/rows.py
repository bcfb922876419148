"""What an evaluation has counted: kept in a file as soon as it is known, and gone on with."""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from scipy import stats
from torch import Tensor

from core_tuning.errors import UserError
from core_tuning.files import append_line, field, read_json, read_lines, write_json, write_lines

T = TypeVar("T")


class Accuracy(NamedTuple):
    """A share of images classified right, and its 95% Wilson interval [low, high], in percent."""

    correct: int
    n: int
    percent: float
    low: float
    high: float


def accuracy(right: Tensor) -> Accuracy:
    """Count the images (n,) bool that are right; n is at least 1."""
    correct, n = int(right.sum()), len(right)
    low, high = stats.binomtest(correct, n).proportion_ci(method="wilson")
    return Accuracy(correct, n, 100 * correct / n, 100 * low, 100 * high)


def bits(right: Tensor) -> str:
    """Write (n,) bool as a text of as many digits, 1 for True."""
    return "".join("1" if each else "0" for each in right.tolist())


@dataclass
class Outcome:
    """What a protocol of several stages does to n images; unfinished, what it goes on from.

    Attributes:
        lost: of each image, what it was lost to: 0 for a wrong class without an attack, k for
            the k-th stage, one more than there are stages while it is classified right.
        stages: number of stages that are done.
        batches: number of batches of the next one that are done.
        counted: number of images that were attacked, once for each stage.
        zeros: share of their gradients that were exactly zero or not finite, in images.
    """

    lost: list[int]
    stages: int = 0
    batches: int = 0
    counted: int = 0
    zeros: float = 0.0

    @classmethod
    def start(cls, right: Tensor, stages: int, *, done: int = 0) -> Outcome:
        """Begin behind `done` of the stages, with the images (n,) bool that are still right."""
        return cls(((stages + 1) * right.int()).tolist(), done)

    def is_right_after(self, stage: int) -> Tensor:
        """Which images (n,) bool are still right after so many stages."""
        return torch.tensor(self.lost) > stage

    @property
    def robust(self) -> Tensor:
        """Which images (n,) bool are right without and under attack."""
        return self.is_right_after(self.stages)

    @property
    def zero_gradients(self) -> float:
        """Share of unusable gradients in [0, 1]; 0 where none was looked at."""
        return self.zeros / max(1, self.counted)

    def fits(self, n: int, stages: int) -> bool:
        """Whether this is what is saved of n images and so many stages."""
        return (
            0 <= self.stages <= stages
            and self.batches >= 0
            and len(self.lost) == n
            and all(type(each) is int for each in self.lost)
            and all(0 <= each <= self.stages + 1 or each == stages + 1 for each in self.lost)
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """An attack at an eps, as a line of rows.jsonl.

    What holds for all rows of a folder (images, seed, batch size, float32) is in report.json.

    Attributes:
        robust: share that stays right, in percent; `low` to `high` is its 95% interval.
        images: a digit for each image, 1 where it stays right, in the order of report.json's
            `indices`.
        after: [stage, images right after it], of a protocol of several.
        zero_gradients: share in [0, 1]; None for attacks that do not follow the cross-entropy's.
        largest_l2_native: of a perturbation at the images' own resolution, the median over images.
    """

    attack: str
    title: str
    norm: str
    eps: float
    eps_text: str
    space: str
    n: int
    correct: int
    robust: float
    low: float
    high: float
    images: str
    after: list[Any]
    zero_gradients: float | None
    largest_l2_native: float
    notes: list[str]
    warnings: list[str]
    versions: dict[str, str]

    @property
    def accuracy(self) -> Accuracy:
        """What was counted."""
        return Accuracy(self.correct, self.n, self.robust, self.low, self.high)


class Rows:
    """The finished rows of an evaluation, rows.jsonl, and beside it what is known of the next.

    Args:
        folder: of the evaluation.

    Raises:
        UserError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.jsonl"
        self.progress_path = folder / ".row.json"
        self.finished = read_whole_lines(self.path, Row)

    def has(self, attack: str, norm: str, eps: float) -> bool:
        """Whether a row is finished."""
        return any((row.attack, row.norm, row.eps) == (attack, norm, eps) for row in self.finished)

    def unfinished(self, key: str, n: int, stages: int) -> Outcome | None:
        """Return what was saved of a row of n images and so many stages; None for another row.

        Raises:
            UserError: it is damaged.
        """
        held = read_json(self.progress_path) if self.progress_path.exists() else {}
        if held.get("key") != key:
            return None
        outcome = from_json(Outcome, held, self.progress_path)
        if not outcome.fits(n, stages):
            raise UserError(
                f"{self.progress_path} is damaged: expected what the row in progress was stopped "
                "at; delete it, and --resume measures that row anew."
            )
        return outcome

    def save(self, key: str, outcome: Outcome) -> None:
        """Replace what is known of the row in progress."""
        write_json(self.progress_path, {"key": key, **asdict(outcome)})

    def append(self, row: Row) -> None:
        """Add a finished row."""
        append_line(self.path, asdict(row))
        self.finished.append(row)
        self.progress_path.unlink(missing_ok=True)


def read_whole_lines(path: Path, kind: type[T]) -> list[T]:
    """Read a dataclass from each line; a last one that a kill cut short is dropped from the file.

    Raises:
        UserError: a line is damaged.
    """
    lines = read_lines(path)
    found = [from_json(kind, line, path) for line in lines]
    if path.exists():
        write_lines(path, lines)
    return found


def from_json(kind: type[T], contents: dict[str, Any], path: Path) -> T:
    """Make a dataclass of a JSON object, whose values are checked against its hints.

    Raises:
        UserError: a value is missing, or of another type.
    """
    values, hints = {}, typing.get_type_hints(kind)
    for name in (each.name for each in fields(kind)):  # type: ignore[arg-type]
        hint = hints[name]
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = tuple(typing.get_origin(part) or part for part in parts)
        if float in kinds:
            kinds = (*kinds, int)
        values[name] = field(contents, name, kinds if len(kinds) > 1 else kinds[0], path)
        [*_, inner] = typing.get_args(hint) or [None]
        if isinstance(inner, type) and is_dataclass(inner):
            values[name] = [
                from_json(inner, field({name: one}, name, dict, path), path) for one in values[name]
            ]
    return kind(**values)
