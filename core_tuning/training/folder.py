"""A run's folder: how it was made, its metrics, its checkpoint and its model.

Every file is written under another name, flushed and renamed, so that a kill at any instant
leaves the last good one. One process at a time holds the folder.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
import shlex
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import core_tuning
from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.checkpoints.recognise import RUN_CHECKPOINT_KEY, RUN_CHECKPOINT_VERSION
from core_tuning.config import MOVABLE, RUN_FILES
from core_tuning.errors import UserError
from core_tuning.files import (
    damaged,
    field,
    held,
    read_json,
    read_lines,
    remove_unfinished,
    require_file,
    write_atomically,
    write_json,
    writing,
)
from core_tuning.report import RUN_FILES as REPORT_FILES

VERSIONED = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
MADE_BY = "core-tuning"
FORMAT_VERSION = 1
MARKER = RUN_FILES[0]
# What every kind of run may write, as patterns below its folder; the marker itself comes last.
FILES = (
    "metrics.jsonl", "checkpoint.pt", "model.safetensors", "last.safetensors", "result.json",
    *REPORT_FILES, "tensorboard/events.out.tfevents.*", MARKER,
)  # fmt: skip
# What every line of the metrics has.
_LINE: dict[str, type | tuple[type, ...]] = {
    "step": int, "epoch": (int, float), "train": dict, "seconds": (int, float),
}  # fmt: skip
# What the marker has besides how the run was made.
_NOT_OF_THE_RUN = ("made_by", "format_version", "environments", "files")
# Known only when images and weights are read, and compared there.
_READ_LATER = frozenset(("data", "initial"))
# Names that stand for weights without a file, which is why they may not change as a path may.
_NO_FILES = {"embedded", "random"}
# What an environment changes in the last bits of a result.
_DECIDING = ("threads", "device", "torch", "core-tuning")


def environment() -> dict[str, Any]:
    """Versions, platform and command line of this process, for run.json."""
    return {
        "command": shlex.join(["core-tuning", *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        # Not that of an installed copy: a checkout may be used where another is installed.
        "core-tuning": core_tuning.__version__,
        **{name: importlib.metadata.version(name) for name in VERSIONED},
    }


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; `start` or `resume` prepares it.
        files: what is written into it besides `FILES`, as patterns. Nothing else in it is ever
            deleted.
        last: the file that is written last.
    """

    def __init__(self, path: Path, files: Sequence[str] = (), last: str = REPORT_FILES[-1]) -> None:
        self.path = path
        self.last = last
        self.files = [*files, *FILES]
        self.marker_path = path / MARKER
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoint_path = path / "checkpoint.pt"
        self.model_path = path / "model.safetensors"
        self.last_path = path / "last.safetensors"
        self.result_path = path / "result.json"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes out; the folder is made if it is missing.

        What a kill has left of unfinished writes is removed.

        Raises:
            UserError: another process holds it, or it cannot be made.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with held(self.path):
            for name in self.files:
                remove_unfinished(self.path / name)
            yield

    def start(self, run: dict[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder and write run.json.

        Args:
            run: how it is made: its "command", "options" and "seed", its "data" and so on.
            overwrite: replace a run that is there.

        Raises:
            UserError: the folder holds something and `overwrite` is not given, or nothing can
                be written there.
        """
        self.check_start(overwrite=overwrite)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.is_free():
                self._replace()
        self._write_marker(run, [])

    def _replace(self) -> None:
        """Move what the marker lists aside, then delete it; what is not listed stays."""
        root = self.path.resolve()
        try:
            patterns = [str(pattern) for pattern in self._read_marker()["files"]]
            listed = [file for pattern in patterns for file in sorted(self.path.glob(pattern))]
        except (ValueError, NotImplementedError) as error:
            raise damaged(self.marker_path, f"its 'files': {error}") from error
        # Nothing outside of the folder, whatever links there are and whatever the marker says.
        inside = [
            file
            for file in listed
            if file.parent.resolve().is_relative_to(root) and (file.is_file() or file.is_symlink())
        ]
        with tempfile.TemporaryDirectory(prefix=".replaced-", dir=self.path) as aside:
            for number, file in enumerate(inside):
                file.replace(Path(aside) / f"{number}")
        for folder in {file.parent for file in inside} - {self.path}:
            if not any(folder.iterdir()):
                folder.rmdir()

    def is_free(self) -> bool:
        """Whether nothing is there; what a kill left of an unfinished write does not count."""
        return not self.path.is_dir() or all(
            entry.name.startswith(".") for entry in self.path.iterdir()
        )

    def is_finished(self) -> bool:
        """Whether the run has written all that it writes."""
        return self.result_path.exists() and (self.path / self.last).exists()

    def check_start(self, *, overwrite: bool = False) -> None:
        """Raise the UserError that `start` would raise about what is there, changing nothing."""
        check_no_file(self.path)
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"The name of the run folder {str(self.path)!a} is not UTF-8, which the libraries "
                "that write into it need: name another with --output."
            ) from None
        if self.is_free():
            return
        # A mistyped --output must not cost somebody a folder that is no run's.
        self._read_marker()
        if not overwrite:
            raise UserError(
                f"The run folder {self.path} is not empty: go on with --resume, "
                "start again with --overwrite, or name another with --output."
            )
        if Path.cwd().is_relative_to(self.path.resolve()):
            raise UserError(
                f"--overwrite does not replace {self.path}, which is the working folder or holds "
                "it: start the command from elsewhere, or name another with --output."
            )

    def resume(self, run: dict[str, Any]) -> None:
        """Check that the folder holds this run, and note this environment.

        Prints a warning where the environment is another in what changes a result's last bits.

        Args:
            run: as in `start`.

        Raises:
            UserError: there is no run, or it is another.
        """
        self.check_resume(run)
        earlier = self._read_marker()["environments"]
        now = environment()
        for name in _DECIDING:
            before = earlier[-1].get(name)
            if before != now[name]:
                print(
                    f"warning: {self.path} goes on with {name} {now[name]} where it had {before}: "
                    "the result will differ in its last bits from that of an uninterrupted run.",
                    file=sys.stderr,
                )
        self._write_marker(run, earlier)

    def check_resume(self, run: dict[str, Any]) -> None:
        """Raise the UserErrors that `resume` would raise, changing nothing."""
        before, now = (
            {**each, **each["options"], "options": None} for each in (self.read_run(), run)
        )
        # An option that both have is more likely to be the one that was changed.
        for key in sorted(before.keys() & now.keys()) + sorted(before.keys() ^ now.keys()):
            then, given = before.get(key), now.get(key)
            moved = key in MOVABLE and not (key == "pretrained" and _NO_FILES & {then, given})
            if then != given and not moved and key not in _READ_LATER:
                raise UserError(
                    f"The run in {self.path} was started with {key} = {then!r}, not {given!r}: "
                    "resume it with the same options, or start another with --output."
                )

    def _write_marker(self, run: dict[str, Any], earlier: list[dict[str, Any]]) -> None:
        now = environment()
        contents = {
            "made_by": MADE_BY,
            "format_version": FORMAT_VERSION,
            **run,
            "environments": earlier if now in earlier[-1:] else [*earlier, now],
            "files": self.files,
        }
        # First of all, so that whatever stops this leaves a folder that is known for a run's.
        write_json(self.marker_path, contents)
        with writing(self.path):
            (self.path / "figures").mkdir(exist_ok=True)

    def _read_marker(self) -> dict[str, Any]:
        if not self.marker_path.exists():
            raise UserError(
                f"{self.path} is not empty and is not a run's folder (it has no {MARKER}): name "
                "another."
            )
        contents = read_json(self.marker_path)
        if contents.get("made_by") != MADE_BY:
            raise UserError(
                f"{self.path} is not a run's folder (its {MARKER} is another program's): name "
                "another."
            )
        version = contents.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{self.marker_path} has the format version {version!r}, and this version of "
                f"core-tuning reads {FORMAT_VERSION}: use the one that wrote it."
            )
        for name, kind in {"options": dict, "environments": list, "files": list}.items():
            field(contents, name, kind, self.marker_path)
        if not all(isinstance(each, dict) for each in contents["environments"] or [None]):
            raise damaged(self.marker_path, "its environments are not objects")
        return contents

    def read_run(self) -> dict[str, Any]:
        """Return how the run was made, as it was given to `start`.

        Raises:
            UserError: there is no run, or run.json is damaged.
        """
        run = self._read_marker()
        return {name: value for name, value in run.items() if name not in _NOT_OF_THE_RUN}

    def command(self) -> str:
        """The command line that the run was started with, to be pasted into a shell."""
        first = self._read_marker()["environments"][0]
        return str(field(first, "command", str, self.marker_path))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a last line cut short by a kill is left out."""
        lines = read_lines(self.metrics_path)
        for line in lines:
            for name, kind in _LINE.items():
                field(line, name, kind, self.metrics_path)
        return lines

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt."""
        buffer = io.BytesIO()
        torch.save({RUN_CHECKPOINT_KEY: RUN_CHECKPOINT_VERSION, **state}, buffer)
        write_atomically(self.checkpoint_path, buffer.getbuffer())

    def load_checkpoint(self, names: Iterable[str] = ()) -> dict[str, Any] | None:
        """Return what was saved last, or None if the run was stopped before that.

        Args:
            names: of what must be in it.

        Raises:
            UserError: the file is damaged, or of another kind of run.
        """
        if not self.checkpoint_path.exists():
            return None
        check_sums(self.checkpoint_path)
        state = read_checkpoint(self.checkpoint_path)
        is_ours = (
            isinstance(state, dict)
            and state.get(RUN_CHECKPOINT_KEY) == RUN_CHECKPOINT_VERSION
            and state.keys() >= set(names)
        )
        if not is_ours:
            raise UserError(
                f"'{self.checkpoint_path}' is not what such a run saves: copy it again from where "
                "it is whole, or start the run again with --overwrite."
            )
        return state


def write_marked(path: Path, contents: dict[str, Any]) -> None:
    """Write a JSON file beside the folders of several runs; `check_marked` was asked before."""
    write_json(path, {"made_by": MADE_BY, **contents})


def check_marked(path: Path) -> None:
    """Raise a UserError where a file that `write_marked` would replace is somebody else's."""
    check_no_file(path.parent)
    if path.exists() and read_json(path).get("made_by") != MADE_BY:
        raise UserError(
            f"{path} is another program's, and would be replaced: move it elsewhere, or name "
            "another folder with --output."
        )


def check_no_file(folder: Path) -> None:
    """Raise a UserError where a folder cannot be, because a file lies on its path."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if nearest.exists() and not nearest.is_dir():
        raise UserError(f"{nearest} is a file, not a folder: name another with --output.")


def check_sums(path: Path) -> None:
    """Check the checksums (CRC-32) of all parts of a file that `torch.save` wrote here.

    torch writes them, and does not look at them when it loads.

    Raises:
        UserError: the file is damaged.
    """
    # A device, of which there is no end, would be read until memory is full.
    require_file(path)
    try:
        with zipfile.ZipFile(path) as packed:
            broken = packed.testzip()
    # A damaged header can raise nearly any exception.
    except Exception as error:
        broken = str(error) or type(error).__name__
    if broken is not None:
        raise damaged(f"'{path}'", broken)
