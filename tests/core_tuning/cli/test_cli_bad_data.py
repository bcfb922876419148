"""Images that cannot be read, met in the middle of a run: one sentence, which names the file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image(kit, capsys, place, workers):
    """Reading fails in the middle of training, in a process of its own if there are workers."""
    data = place.folder()
    broken = data / "train" / "bee" / "0003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    sentence = kit.run_bad(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        "--batch-size", 16, "--validation", 0, "--transforms", "small", "--image-size", 16,
        "--workers", workers, "--output", place.output, after_progress=True,
    )  # fmt: skip
    assert re.search(r"The image .*bee/0003\.png cannot be read \(.*\): replace it", sentence)
    assert not (place.output / "result.json").exists()


def test_a_truncated_image_of_the_validation_set(kit, capsys, place):
    data = place.folder({"train": 8, "val": 2, "test": 2})
    broken = data / "val" / "ant" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:300])
    sentence = kit.run_bad(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        "--batch-size", 16, "--transforms", "small", "--image-size", 16, "--limit-steps", 1,
        "--workers", 0, "--output", place.output, after_progress=True,
    )  # fmt: skip
    assert "val/ant/0001.png cannot be read" in sentence


def test_a_process_whose_worker_meets_a_truncated_image(kit, tmp_path, write_folder):
    """Whatever the worker's process prints itself is seen here, too."""
    data = write_folder(tmp_path / "data", {"train": 8, "val": 4})
    broken = data / "train" / "ant" / "0002.png"
    broken.write_bytes(broken.read_bytes()[:300])
    run = subprocess.run(
        [
            sys.executable, "-m", "core_tuning", "finetune", "--dataset", "folder", "--data-dir",
            data, "--pretrained", "embedded", "--batch-size", "16", "--validation", "0",
            "--transforms", "small", "--image-size", "16", "--workers", "2", "--output",
            tmp_path / "run",
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert "ant/0002.png cannot be read" in kit.only_sentence(run.stderr, after_progress=True)
