"""Event files for TensorBoard, when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError


def check_tensorboard(wanted: bool) -> None:
    """Raise a UserError if tensorboard is wanted and not installed."""
    if wanted and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the tensorboard package: pip install 'core-tuning[tensorboard]'."
        )


@contextmanager
def tensorboard_writer(
    path: Path, wanted: bool
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Yield a function that writes a metrics line as scalars, or None if not wanted."""
    if not wanted:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(path / "tensorboard")) as writer:

        def write(line: dict[str, Any]) -> None:
            writer.add_scalar("lr", line["lr"], line["step"])
            for split in ("train", "validation"):
                for name, value in line.get(split, {}).items():
                    writer.add_scalar(f"{split}/{name}", value, line["step"])

        yield write
