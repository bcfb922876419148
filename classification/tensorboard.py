"""Event files for TensorBoard, when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError


@contextmanager
def tensorboard_writer(
    path: Path, wanted: bool
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Yield a function that writes a metrics line as scalars, or None if not wanted.

    Raises:
        UserError: tensorboard is not installed.
    """
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs the tensorboard package: pip install 'core-tuning[tensorboard]'."
        ) from error
    with SummaryWriter(str(path / "tensorboard")) as writer:

        def write(line: dict[str, Any]) -> None:
            writer.add_scalar("lr", line["lr"], line["step"])
            for split in ("train", "validation"):
                for name, value in line.get(split, {}).items():
                    writer.add_scalar(f"{split}/{name}", value, line["step"])

        yield write
