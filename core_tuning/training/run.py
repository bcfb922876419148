"""A training run in its folder: started or gone on with, trained, recorded, finished once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.checkpoints.sources import EMBEDDED, RANDOM
from core_tuning.config import PLACES, RUN_FILES, Run, TrainingOptions
from core_tuning.data import check_same_images
from core_tuning.errors import UserError
from core_tuning.files import read_json, write_atomically, write_lines, writing
from core_tuning.options import plain_values

from .build import Initial
from .evaluate import Evaluated
from .folder import RunFolder, check_marked, write_marked
from .learner import Learner
from .state import TrainingState


class Built(NamedTuple):
    """A run that can begin: no mistake of the user's is left to be found.

    Attributes:
        data: fingerprint of its images.
        initial: what its weights came from.
        train: trains in a folder that is held, writes the report, and returns the result.
    """

    data: dict[str, Any]
    initial: Initial
    train: Callable[[RunFolder], dict[str, Any]]


class Planned(NamedTuple):
    """A run before anything is read.

    Attributes:
        command: that makes it.
        folder: where it goes.
        seed: of it.
        options: as the command line has them, for this run alone.
        build: reads data and checkpoint.
    """

    command: str
    folder: RunFolder
    seed: int
    options: Run
    build: Callable[[], Built]


def run_all(
    command: str,
    output: Path,
    plans: list[Planned],
    options: Run,
    describe: Callable[[Planned, dict[str, Any]], str] | None = None,
    beside: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Make one run after another, and return their results.

    Args:
        command: that makes them, such as "finetune".
        output: their folder, or that of the one run.
        plans: the runs.
        options: of the command line.
        describe: says what came of a run, from its result.
        beside: names of what `write_marked` will write into `output`.
    """
    for name in beside:
        check_marked(output / name)
    check_output(output, plans, options)

    def begin() -> None:
        # Once no mistake of the user's is left to be found in the first run.
        if len(plans) > 1:
            with writing(output):
                output.mkdir(parents=True, exist_ok=True)
            made_of = {"command": command, "options": stated(options)}
            write_marked(output / RUN_FILES[1], made_of)

    results: list[dict[str, Any]] = []
    images: dict[str, Any] | None = None
    started = time.monotonic()
    for number, plan in enumerate(plans):
        if len(plans) > 1:
            left = (time.monotonic() - started) / max(1, number) * (len(plans) - number) / 60
            eta = f"; about {left:.1f} min left" if number else ""
            print(f"run {number + 1} of {len(plans)}: {plan.folder.path}{eta}", flush=True)
        results.append(run(plan, begin, images))
        images = plan.folder.read_run().get("data")
        if describe is not None:
            print(describe(plan, results[-1]), flush=True)
    return results


def check_output(output: Path, plans: list[Planned], options: Run) -> None:
    """Refuse output folders that are taken, before anything is trained."""
    single, several = (output / name for name in RUN_FILES)
    if (single.exists() and len(plans) > 1) or (several.exists() and len(plans) == 1):
        held = "a single run" if single.exists() else "several runs"
        asked = "one run" if len(plans) == 1 else f"{len(plans)} runs"
        raise UserError(
            f"The folder {output} holds {held}, and {asked} would go there: name another with "
            "--output."
        )
    if len(plans) > 1:
        check_marked(several)
        foreign = [] if several.exists() else _foreign(output)
        if foreign:
            raise UserError(
                f"The folder {output} is not empty and does not hold runs alone (there is "
                f"{foreign[0].name}): name another with --output."
            )
    for plan in plans:
        if not options.resume:
            plan.folder.check_start(overwrite=options.overwrite)
        elif not plan.folder.is_free():
            plan.folder.check_resume({**_described(plan), **_read_before(plan)})


def _foreign(folder: Path) -> list[Path]:
    """What is in a folder besides runs' folders and what a kill left."""
    if not folder.is_dir():
        return []
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and not (entry / RUN_FILES[0]).exists()
    )


def stated(options: Run) -> dict[str, Any]:
    """A run's options as plain values, without where it goes."""
    return {name: value for name, value in plain_values(options).items() if name not in PLACES}


def run(
    plan: Planned, begin: Callable[[], None], images: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make a run, or go on with it; return its result.

    A folder whose run is finished is left as it is when it is resumed.

    Args:
        plan: of the run.
        begin: called before anything is written.
        images: fingerprint of the images of another run, with which this one must agree.
    """
    folder, options = plan.folder, plan.options
    described = _described(plan)
    if options.resume and not folder.is_free():
        read = _read_before(plan)
        folder.check_resume({**described, **read})
        named = getattr(options, "pretrained", None)
        if named in (EMBEDDED, RANDOM):
            _check_same_weights(read["initial"], Initial("", named), folder.path)
        with folder.hold():
            # The last file that a run writes.
            if folder.is_finished():
                return read_json(folder.result_path)
            begin()
            built = plan.build()
            check_same_images(read["data"], built.data, folder.path)
            _check_same_weights(read["initial"], built.initial, folder.path)
            folder.resume({**described, **read})
            return built.train(folder)
    folder.check_start(overwrite=options.overwrite)
    # Built first, so that a mistake leaves no folder behind.
    built = plan.build()
    check_same_images(images or built.data, built.data, folder.path.parent)
    begin()
    with folder.hold():
        read = {"data": built.data, "initial": built.initial._asdict()}
        folder.start({**described, **read}, overwrite=options.overwrite)
        return built.train(folder)


def _described(plan: Planned) -> dict[str, Any]:
    return {"command": plan.command, "options": stated(plan.options), "seed": plan.seed}


def _read_before(plan: Planned) -> dict[str, Any]:
    # Options are compared first, and what is read once it is read.
    before = plan.folder.read_run()
    return {name: before.get(name) for name in ("data", "initial")}


def _check_same_weights(before: Any, now: Initial, path: Path) -> None:
    then = before.get("sha256") if isinstance(before, dict) else None
    if then != now.sha256:
        raise UserError(
            f"The run in {path} was started from another checkpoint (SHA-256 {then}, not "
            f"{now.sha256}): name the same with --pretrained."
        )


class RunRecorder:
    """Keeps a run's checkpoint, metrics and models in its folder.

    Args:
        folder: of the run, held.
        facts: written into every model file.
        options: of the run.
        stack: closes what is open at the end.
    """

    def __init__(
        self,
        folder: RunFolder,
        facts: dict[str, Any],
        options: TrainingOptions,
        stack: ExitStack,
    ) -> None:
        self.folder = folder
        self.facts = facts
        self.options = options
        self.writer: Any = None
        if options.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = stack.enter_context(SummaryWriter(str(folder.path / "tensorboard")))

    def load(self, names: list[str]) -> dict[str, Any] | None:
        """Return what was saved last, or None."""
        return self.folder.load_checkpoint(names)

    def go_on(self, state: TrainingState) -> None:
        """Drop the lines that a resumed run will write again.

        Raises:
            UserError: a line is lost: who reads them would take the run for another one.
        """
        lines = [line for line in self.folder.read_metrics() if line["step"] <= state.recorded]
        check_complete(self.folder.metrics_path, len(lines), state)
        write_lines(self.folder.metrics_path, lines)

    def save(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt."""
        self.folder.save_checkpoint({**state, "config": self.facts})

    def keep_model(self, learner: Learner, step: int, *, best: bool, last: bool) -> None:
        """Write model.safetensors, the best, and last.safetensors."""
        if not (best or last):
            return
        contents = learner.export({**self.facts, "step": step})
        if best:
            write_atomically(self.folder.model_path, contents)
        if last:
            write_atomically(self.folder.last_path, contents)

    def record(self, line: dict[str, Any], measured: Evaluated | None) -> str:
        """Add a line to metrics.jsonl."""
        self.folder.append_metrics(line)
        if self.writer is not None:
            self._write_scalars(line)
        train = line["train"]
        said = f"epoch {line['epoch']:.1f}, loss {train['loss']:.3f}, train {train['top1']:.1f}%"
        return said if measured is None else f"{said}, validation {measured.score:.1f}%"

    def _write_scalars(self, line: dict[str, Any]) -> None:
        self.writer.add_scalar("lr", line["lr"], line["step"])
        for split in ("train", "validation"):
            for name, value in line.get(split, {}).items():
                self.writer.add_scalar(f"{split}/{name}", value, line["step"])
        self.writer.flush()

    def advice(self) -> str:
        """Say what may help where a loss is not finite."""
        kept = "no checkpoint was written before that"
        if self.folder.checkpoint_path.exists():
            kept = f"the last good checkpoint is kept in {self.folder.path}"
        return f"lower --lr (now {self.options.lr}) or --eta and start anew; {kept}."


def check_complete(path: Path, lines: int, state: TrainingState) -> None:
    """Raise a UserError where a file has fewer lines than a run has recorded."""
    if lines != state.evaluations:
        raise UserError(
            f"{path} has {lines} lines up to step {state.recorded}, where the run has written "
            f"{state.evaluations}: restore the file, or start again with --overwrite."
        )


def check_tensorboard(wanted: bool) -> None:
    """Raise a UserError if tensorboard is wanted and not installed."""
    if wanted and find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the tensorboard package: pip install 'core-tuning[tensorboard]'."
        )
