"""The rows of an evaluation, each written as soon as it is known, and gone on with after a stop."""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from core_tuning.errors import UserError
from core_tuning.files import append_line, field, read_json, read_lines, write_json, write_lines

from .measure import Accuracy, Outcome

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """An attack at an eps, as a line of rows.jsonl.

    What holds for all rows of a folder (images, seed, batch size, float32) is in report.json.

    Attributes:
        robust: share that stays right, in percent; `low` to `high` is its 95% interval.
        images: a digit for each image, 1 where it stays right, in the order of report.json's
            `indices`.
        after: [stage, images right after it], of a protocol of several.
        zero_gradients: share in [0, 1].
        largest_l2: of a perturbation in the attacked space; `largest_l2_native` at the images'
            own resolution, the median over images.
        seconds: None where an earlier process began.
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
    restarts: int
    steps: int | None
    step_size: float | None
    zero_gradients: float | None
    largest_l2: float
    largest_l2_native: float
    largest_l2_native_range: list[float]
    notes: list[str]
    warnings: list[str]
    seconds: float | None
    device: str
    versions: dict[str, str]

    @property
    def accuracy(self) -> Accuracy:
        """What was counted."""
        return Accuracy(self.correct, self.n, self.robust, self.low, self.high)


class Rows:
    """The finished rows of an evaluation, rows.jsonl, and beside it what is known of the next.

    A last line that a kill cut short is dropped, or it would run into the next.

    Args:
        folder: of the evaluation.

    Raises:
        UserError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.jsonl"
        self.progress_path = folder / ".row.json"
        self.finished = read_whole_lines(self.path, Row)

    def find(self, attack: str, norm: str, eps: float) -> Row | None:
        """Return a finished row, or None."""
        asked = attack, norm, eps
        return next((r for r in self.finished if (r.attack, r.norm, r.eps) == asked), None)

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
    """Read a dataclass from each line that an earlier process finished; others are dropped.

    Raises:
        UserError: a line is damaged.
    """
    lines = read_lines(path)
    found = [from_json(kind, line, path) for line in lines]
    if lines or path.exists():
        write_lines(path, lines)
    return found


def from_json(kind: type[T], contents: dict[str, Any], path: Path) -> T:
    """Make a dataclass of a JSON object, whose values are checked against its hints.

    Raises:
        UserError: a value without a default is missing, or one is of another type.
    """
    values, hints = {}, typing.get_type_hints(kind)
    for name in (each.name for each in fields(kind)):  # type: ignore[arg-type]
        # A field without a default is not an attribute of its class.
        if name not in contents and hasattr(kind, name):
            continue
        kinds = _types(hints[name])
        value = field(contents, name, kinds if len(kinds) > 1 else kinds[0], path)
        inner = (*typing.get_args(hints[name]), None)[0]
        if isinstance(inner, type) and is_dataclass(inner):
            value = [from_json(inner, field({name: one}, name, dict, path), path) for one in value]
        values[name] = value
    return kind(**values)


def _types(hint: Any) -> tuple[type, ...]:
    if isinstance(hint, types.UnionType):
        return tuple(each for part in typing.get_args(hint) for each in _types(part))
    return (int, float) if hint is float else (typing.get_origin(hint) or hint,)
