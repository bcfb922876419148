"""What a run writes into its folder while it goes on: checkpoint, metrics and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core_tuning.config import TrainingOptions
from core_tuning.errors import UserError
from core_tuning.files import append_line, write_atomically, write_lines

from .evaluate import Evaluated
from .folder import RunFolder
from .learner import Learner
from .state import TrainingState


class RunRecorder:
    """Keeps a run's checkpoint, metrics and models in its folder.

    Args:
        folder: of the run, held.
        facts: written into every model file.
        options: of the run.
    """

    def __init__(self, folder: RunFolder, facts: dict[str, Any], options: TrainingOptions) -> None:
        self.folder = folder
        self.facts = facts
        self.writer: Any = None
        if options.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder.path / "tensorboard"))

    def restore(self, state: TrainingState) -> None:
        """Go back to what was saved last, if anything was, and drop the lines recorded later.

        Raises:
            UserError: the checkpoint is damaged, or a line of metrics is lost: who reads them
                would take the run for another one.
        """
        saved = self.folder.load_checkpoint(state.state_dict())
        if saved is not None:
            state.load_state_dict(saved)
        lines = [line for line in self.folder.read_metrics() if line["step"] <= state.recorded]
        keep_lines(self.folder.metrics_path, lines, state)

    def save(self, state: TrainingState) -> None:
        """Replace checkpoint.pt."""
        self.folder.save_checkpoint({**state.state_dict(), "config": self.facts})

    def keep_model(self, learner: Learner, step: int, *, best: bool, last: bool) -> None:
        """Write the model of an evaluation, as the best so far, the last one, both or neither."""
        for path, wanted in ((self.folder.model_path, best), (self.folder.last_path, last)):
            if wanted:
                write_atomically(path, learner.export({**self.facts, "step": step}))

    def record(self, line: dict[str, Any], measured: Evaluated | None) -> str:
        """Write down an evaluation; return what is to be said of it in a line."""
        append_line(self.folder.metrics_path, line)
        train = line["train"]
        if self.writer is not None:
            self.writer.add_scalar("lr", line["lr"], line["step"])
            for split in ("train", "validation"):
                for name, value in line.get(split, {}).items():
                    self.writer.add_scalar(f"{split}/{name}", value, line["step"])
            self.writer.flush()
        said = f"epoch {line['epoch']:.1f}, loss {train['loss']:.3f}, train {train['top1']:.1f}%"
        return said if measured is None else f"{said}, validation {measured.score:.1f}%"

    def close(self) -> None:
        """Close what is open at the end."""
        if self.writer is not None:
            self.writer.close()


def keep_lines(path: Path, lines: list[dict[str, Any]], state: TrainingState) -> None:
    """Replace a file of lines by those up to the step that a run goes on from.

    Raises:
        UserError: they are fewer than the run has recorded.
    """
    if len(lines) != state.evaluations:
        raise UserError(
            f"{path} has {len(lines)} lines up to step {state.recorded}, where the run has written "
            f"{state.evaluations}: restore the file, or start again with --overwrite."
        )
    write_lines(path, lines)
