"""Run `core-tuning finetune` on data of a toy's size, and read what it leaves behind."""

from __future__ import annotations

import json
import types

import pytest

from core_tuning.cli import main

SMALL = ("--transforms", "small", "--image-size", 16, "--batch-size", 8, "--workers", 0)


@pytest.fixture
def data(tmp_path, write_folder):
    return write_folder(tmp_path / "data", {"train": 12, "val": 6, "test": 9})


@pytest.fixture
def finetune(tmp_path, data):
    """Run it on a folder of images for two epochs, into `run`."""

    def call(*options, method="core_tuning", epochs=2, output="run"):
        arguments = [
            "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
            *SMALL, "--method", method, "--output", tmp_path / output, *options,
            *(() if epochs is None else ("--epochs", epochs)),
        ]  # fmt: skip
        assert main([str(argument) for argument in arguments]) == 0
        return tmp_path / output

    return call


def read(path):
    return json.loads(path.read_text())


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(SMALL=SMALL, read=read, files=files, refused=refused)
