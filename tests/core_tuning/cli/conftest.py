"""Run a command that must refuse its input, and make bad input for it in a test's folder."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core_tuning.cli import main
from core_tuning.encoders import build_encoder
from core_tuning.training.folder import RunFolder

PREFIX = "core-tuning: error: "
PROGRESS = re.compile(r"^step \d+ of \d+: ")


def only_sentence(stderr: str, *, after_progress: bool = False) -> str:
    """Check that stderr holds one error, and return its sentence."""
    assert "Traceback" not in stderr
    lines = [line for line in re.split(r"[\r\n]", stderr) if line.strip()]
    if after_progress:
        lines = [line for line in lines if not PROGRESS.match(line)]
    assert len(lines) == 1, stderr
    assert lines[0].startswith(PREFIX)
    sentence = lines[0].removeprefix(PREFIX)
    assert sentence.endswith((".", "?"))
    return sentence


def run_bad(capsys, *argv: object, after_progress: bool = False) -> str:
    code = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    assert code == 2
    return only_sentence(captured.err, after_progress=after_progress)


class Place:
    """A test's folder, with what bad input needs in it."""

    def __init__(self, path: Path, write_folder: Callable[..., Path]) -> None:
        self.path = path
        self.output = path / "output"
        self.write_folder = write_folder

    def folder(self, counts: dict[str, int] | None = None, **options: object) -> Path:
        return self.write_folder(self.path / "data", counts or {"train": 8, "val": 4}, **options)

    def different_classes(self) -> Path:
        data = self.folder({"train": 8})
        return self.write_folder(data, {"val": 4}, classes=("ant", "wasp"))

    def empty_class(self) -> Path:
        data = self.folder()
        (data / "train" / "cicada").mkdir()
        return data

    def file(self, name: str = "text.pth", contents: bytes = b"To whom it may concern") -> Path:
        path = self.path / name
        path.write_bytes(contents)
        return path

    def checkpoint(self, name: str = "small_resnet") -> Path:
        path = self.path / "small.pth"
        state = {
            f"module.encoder_q.{key}": v for key, v in build_encoder(name).state_dict().items()
        }
        torch.save({"arch": name, "state_dict": state}, path)
        return path

    def truncated(self) -> Path:
        return self.file("cut.pth", self.checkpoint().read_bytes()[:100_000])

    def truncated_safetensors(self) -> Path:
        path = self.path / "whole.safetensors"
        save_file({"weight": torch.zeros(1000)}, path)
        return self.file("cut.safetensors", path.read_bytes()[:200])

    def full_folder(self) -> Path:
        folder = self.path / "full"
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
        return folder

    def single_run(self) -> Path:
        folder = self.path / "single"
        folder.mkdir()
        RunFolder(folder).start({"command": "finetune", "options": {}})
        return folder


@pytest.fixture
def place(tmp_path, write_folder):
    return Place(tmp_path, write_folder)


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(only_sentence=only_sentence, run_bad=run_bad)
