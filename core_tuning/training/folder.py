"""A run's folder: how it was made, its metrics, its checkpoint and its model.

Every file is written under another name, flushed and renamed, so that a kill at any instant
leaves the last good one.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from core_tuning.checkpoint_recognition import RUN_CHECKPOINT_KEY, RUN_CHECKPOINT_VERSION
from core_tuning.checkpoints import read_checkpoint
from core_tuning.errors import UserError
from core_tuning.files import append_line, read_lines, write_atomically, write_lines

VERSIONED = ("core-tuning", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Versions, platform and command line of this process, for config.json."""
    return {
        "command": " ".join(["core-tuning", *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: importlib.metadata.version(name) for name in VERSIONED},
    }


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Name the values inside of dictionaries `outer.inner`, so that a message is about one."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; `start` or `resume` prepares it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoint_path = path / "checkpoint.pt"
        self.model_path = path / "model.safetensors"
        self.result_path = path / "result.json"

    def start(self, config: dict[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder and write config.json.

        Raises:
            UserError: the folder holds something and `overwrite` is not given, or nothing can
                be written there.
        """
        self.check_start(overwrite=overwrite)
        try:
            if not self.is_free():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_config(config)
            (self.path / "figures").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The run folder {self.path} cannot be written ({error.strerror}): "
                "name another with --output."
            ) from error

    def is_free(self) -> bool:
        """Whether nothing is there; what a kill left of an unfinished write does not count."""
        return not self.path.is_dir() or all(
            entry.name.startswith(".") for entry in self.path.iterdir()
        )

    def check_start(self, *, overwrite: bool = False) -> None:
        """Raise the UserError that `start` would raise about what is there, changing nothing."""
        for path in (self.path, *self.path.parents):
            if path.exists():
                if not path.is_dir():
                    raise UserError(f"{path} is a file, not a folder: name another with --output.")
                break
        if self.is_free():
            return
        if not self.config_path.exists():
            # A mistyped --output must not cost somebody a folder that is no run's.
            raise UserError(
                f"The folder {self.path} is not empty and is not a run's (it has no config.json): "
                "name another with --output."
            )
        if not overwrite:
            raise UserError(
                f"The run folder {self.path} is not empty: go on with --resume, "
                "begin anew with --overwrite, or name another with --output."
            )

    def resume(self, config: dict[str, Any], *, may_differ: frozenset[str] = frozenset()) -> None:
        """Check that the folder holds a run of this configuration.

        Args:
            config: of this run.
            may_differ: keys that change nothing in the result.

        Raises:
            UserError: there is no run, or its configuration is another.
        """
        self.check_resume(config, may_differ=may_differ)
        self._write_config(config)

    def check_resume(
        self, config: dict[str, Any], *, may_differ: frozenset[str] = frozenset()
    ) -> None:
        """Raise the UserErrors that `resume` would raise, changing nothing."""
        before, config = _flat(self.read_config()), _flat(config)
        for key in sorted(before.keys() | config.keys()):
            if key not in may_differ and before.get(key) != config.get(key):
                raise UserError(
                    f"The run in {self.path} was started with {key} = {before.get(key)!r}, not "
                    f"{config.get(key)!r}: resume it with the same options, or start another "
                    "with --output."
                )

    def _write_config(self, config: dict[str, Any]) -> None:
        contents = {"config": config, "environment": environment()}
        self.write_json(self.config_path, contents)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration that the run was started with."""
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} is not a run's folder: it has no config.json; "
                "leave out --resume to start one."
            )
        try:
            return json.loads(self.config_path.read_text())["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.config_path} is damaged ({error}): expected the JSON object that a run "
                "writes; begin anew in another folder with --output."
            ) from error

    def write_json(self, path: Path, contents: dict[str, Any]) -> None:
        """Write a JSON file of this folder."""
        write_atomically(path, (json.dumps(contents, indent=2) + "\n").encode())

    def write_csv(self, name: str, rows: list[list[Any]]) -> None:
        """Write a table of this folder."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_atomically(self.path / name, text.getvalue().encode())

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        append_line(self.metrics_path, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a last line cut short by a kill is left out."""
        return read_lines(self.metrics_path)

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines that a resumed run will write again."""
        write_lines(
            self.metrics_path, [line for line in self.read_metrics() if line["step"] <= step]
        )

    def save_model(self, contents: bytes) -> None:
        """Replace model.safetensors."""
        write_atomically(self.model_path, contents)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace checkpoint.pt."""
        buffer = io.BytesIO()
        torch.save({RUN_CHECKPOINT_KEY: RUN_CHECKPOINT_VERSION, **state}, buffer)
        write_atomically(self.checkpoint_path, buffer.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return what was saved last, or None if the run was stopped before that."""
        return read_checkpoint(self.checkpoint_path) if self.checkpoint_path.exists() else None
