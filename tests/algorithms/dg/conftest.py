"""A data set of three small domains, and `core-tuning dg` on it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core_tuning.cli import main

PREFIX = "core-tuning: error: "
# Images a class; the first domain has the fewest, so that a batch may be too large for it alone.
DOMAINS = {"brush": 10, "cut": 12, "dots": 14}
CLASSES = ("ant", "bee", "cicada")
HPARAMS = {"checkpoint": "embedded", "batch_size": 4}


def write_domains(root: Path, counts: dict[str, int], size: int = 16) -> Path:
    """Write ROOT/DOMAIN/CLASS/*.png: noise around a colour of each class."""
    generator = np.random.default_rng(0)
    for domain, count in counts.items():
        for label, name in enumerate(CLASSES):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
                noise[..., label] += 100
                Image.fromarray(noise).save(folder / f"{index:03d}.png")
    return root


class Kit:
    """Runs the command on the three domains.

    Attributes:
        data: the --data_dir; `toys` is the data set in it.
    """

    HPARAMS = HPARAMS
    DOMAINS = DOMAINS
    CLASSES = CLASSES
    write_domains = staticmethod(write_domains)

    def __init__(self, data: Path) -> None:
        self.data = data

    def argv(self, output: Path, *options: object, **hparams: object) -> list[str]:
        """Arguments of a run of five steps; later options win."""
        text = json.dumps({**HPARAMS, **hparams})
        options = ("--dataset", "toys", "--data_dir", self.data, "--hparams", text, "--steps", 5,
                   "--eval-every", 2, "--image-size", 16, "--workers", 0, "--output_dir", output,
                   *options)  # fmt: skip
        return ["dg", *map(str, options)]

    def run(self, output: Path, *options: object, **hparams: object) -> Path:
        assert main(self.argv(output, *options, **hparams)) == 0
        return output

    @staticmethod
    def records(folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]

    @classmethod
    def outcome(cls, folder: Path) -> list[dict[str, Any]]:
        """The records without what differs from one machine or folder to the next."""
        lines = cls.records(folder)
        for line in lines:
            del line["step_time"], line["args"]["output_dir"]
        return lines

    @staticmethod
    def weights(folder: Path, name: str = "model.pkl") -> dict[str, torch.Tensor]:
        return torch.load(folder / name, weights_only=True)["model_dict"]

    @classmethod
    def assert_same_run(cls, first: Path, second: Path) -> None:
        """Check that results and weights are equal bit for bit."""
        assert cls.outcome(first) == cls.outcome(second)
        for name in ("model.pkl", "best_iid.pkl"):
            one, two = cls.weights(first, name), cls.weights(second, name)
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one), name

    @staticmethod
    def stamps(folder: Path) -> dict[Path, tuple[int, bytes]]:
        """Modification time and contents of each file."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    @staticmethod
    def sentence(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
        """Run a command line that is refused; return the only sentence that it says."""
        capsys.readouterr()
        assert main(argv) == 2
        error = capsys.readouterr().err
        lines = [line for line in re.split(r"[\r\n]", error) if line.strip()]
        assert len(lines) == 1, error
        assert lines[0].startswith(PREFIX)
        assert lines[0].endswith((".", "?"))
        return lines[0].removeprefix(PREFIX)

    @staticmethod
    def domainbed(root: Path, program: str, given: object) -> Any:
        """Run a program beside a DomainBed; it reads JSON from stdin and prints JSON."""
        command = [sys.executable, "-c", program]
        run = subprocess.run(
            command, cwd=root, input=json.dumps(given), capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    data = tmp_path_factory.mktemp("data")
    write_domains(data / "toys", DOMAINS)
    return Kit(data)


@pytest.fixture(scope="session")
def finished(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of CoreTuning with `cut` as its target; not to be changed."""
    return kit.run(tmp_path_factory.mktemp("finished") / "run", "--test_envs", 1)
