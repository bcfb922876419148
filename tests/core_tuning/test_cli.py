"""The command line: help without torch, and bad input as one sentence and exit code 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from core_tuning import __version__
from core_tuning.cli import COMMANDS, main
from core_tuning.encoders import build_encoder

PREFIX = "core-tuning: error: "
PROGRESS = re.compile(r"^(core_tuning|ce|ce_con) seed \d+: +\d+%")


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


def python(program: str, *argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, argv)], capture_output=True, text=True
    )


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"core-tuning {__version__}\n"
    for argv in ([], ["-h"], ["--help"], ["help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_does_not_wait_for_torch(command):
    program = (
        "import sys\n"
        "from core_tuning.cli import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "assert code == 0, code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'accelerate', 'matplotlib', 'numpy'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))\n"
    )
    run = python(program, *([] if command is None else [command]), "--help")
    assert run.returncode == 0, run.stderr
    assert "usage: core-tuning" in run.stdout
    assert run.stdout.splitlines()[-1] == "loaded:"


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
        (folder / "config.json").write_text('{"config": {}}')
        return folder


@pytest.fixture
def place(tmp_path, write_folder):
    return Place(tmp_path, write_folder)


class Bad(NamedTuple):
    """Options of `finetune`, made in a place, and what the sentence must match."""

    options: Callable[[Place], list[object]]
    sentence: str


def given(options: str, sentence: str) -> Bad:
    return Bad(lambda _: list(options.split()), sentence)


def own(make: Callable[[Place], Path], sentence: str, options: str = "") -> Bad:
    """A folder of images of one's own."""
    arguments = ["--dataset", "folder", "--pretrained", "random", "--encoder", "small_resnet"]
    arguments += ["--batch-size", "4", "--transforms", "small"]
    return Bad(lambda place: [*arguments, "--data-dir", make(place), *options.split()], sentence)


def pretrained(make: Callable[[Place], Path], sentence: str, options: str = "") -> Bad:
    return Bad(lambda place: ["--pretrained", make(place), *options.split()], sentence)


NO_GPU = not torch.cuda.is_available()
BAD_FINETUNE = {
    "unknown option": given("--frobnicate 1", "--frobnicate"),
    "abbreviated option": given("--epoch 1", "--epoch"),
    "no number": given("--epochs many", "many"),
    "unknown method": given("--method magic", "magic"),
    # Data.
    "unknown data set": given("--dataset cifar11", "'cifar11'.*did you mean 'cifar10'"),
    "data folder not named": given("--dataset folder --pretrained random", "--data-dir"),
    "data folder missing": own(lambda place: place.path / "gone", "gone does not exist"),
    "downloadable data missing": Bad(
        lambda place: ["--dataset", "cifar10", "--pretrained", "random", "--data-dir", place.path],
        "cifar",
    ),
    "data folder is a file": own(lambda place: place.file(), "is a file"),
    "classes differ": own(Place.different_classes, "lacks 'bee' and has 'wasp' besides"),
    "empty class folder": own(Place.empty_class, "cicada has no images"),
    "one class": own(lambda place: place.folder(classes=["ant"]), "one class only"),
    "no images": own(lambda place: place.full_folder(), "full"),
    "fewer images than a batch": own(
        Place.folder, "fewer than a batch of 64", "--batch-size 64 --validation 0"
    ),
    "nothing to download": given("--download", "ships with the package"),
    "fraction 0": given("--fraction 0", "--fraction is 0.0"),
    "fraction nan": given("--fraction nan", "--fraction is nan"),
    "validation 1": given("--validation 1", "--validation is 1.0"),
    "image size 0": given("--image-size 0", "--image-size 0"),
    # Encoder and checkpoint.
    "no checkpoint named": Bad(
        lambda place: ["--dataset", "folder", "--data-dir", place.folder(), "--batch-size", 4],
        "--pretrained is missing for folder",
    ),
    "checkpoint missing": pretrained(lambda place: place.path / "gone.pth", "gone.pth.*No such"),
    "checkpoint is text": pretrained(Place.file, "is not a PyTorch checkpoint"),
    "checkpoint is empty": pretrained(lambda place: place.file(contents=b""), "is empty"),
    "checkpoint is cut": pretrained(Place.truncated, "cut.pth"),
    "safetensors is cut": pretrained(Place.truncated_safetensors, "cut.safetensors"),
    "checkpoint is a folder": pretrained(lambda place: place.folder(), "is a directory"),
    "another architecture": pretrained(
        Place.checkpoint, "does not fit.*pass `--encoder small_resnet`", "--encoder resnet18"
    ),
    "embedded in a large encoder": given("--encoder resnet18", "--encoder small_resnet"),
    "unknown encoder": given("--encoder resnet19", "'resnet19'.*did you mean 'resnet18'"),
    "unknown timm encoder": given("--encoder timm:vit_tinny", "no model 'vit_tinny'"),
    # Method.
    "eta negative": given("--eta -1", "eta is -1.0"),
    "eta nan": given("--eta nan", "eta is nan"),
    "eta infinite": given("--eta inf", "eta is inf"),
    "alpha 0": given("--alpha 0", "alpha is 0.0"),
    "alpha negative": given("--alpha -0.5", "alpha is -0.5"),
    "alpha nan": given("--alpha nan", "alpha is nan"),
    "temperature 0": given("--temperature 0", "temperature is 0.0"),
    "temperature negative": given("--temperature -0.07", "temperature is -0.07"),
    "lambda_n negative": given("--lambda-n -0.1", "lambda_n is -0.1"),
    "lambda_n large": given("--lambda-n 1.5", "lambda_n is 1.5"),
    "lambda_n nan": given("--lambda-n nan", "lambda_n is nan"),
    "lambda_p large": given("--lambda-p 2", "lambda_p is 2.0"),
    "projection too deep": given("--projection-depth 6", "6"),
    "projection of no width": given("--projection-dim 0", "0"),
    "released with ce": given("--variant released --method ce", "'released' with --method ce"),
    "released with ce_con": given("--variant released --method ce_con", "--method ce_con"),
    "ce mixes hard": given("--method ce --mixing hard", "'hard'"),
    "ce_con mixes": given("--method ce_con --mixing manifold", "'manifold'"),
    # Optimisation.
    "batch of 0": given("--batch-size 0", "--batch-size is 0"),
    "batch negative": given("--batch-size -4", "--batch-size is -4"),
    "no epoch": given("--epochs 0", "--epochs is 0"),
    "lr 0": given("--lr 0", "lr is 0.0"),
    "lr nan": given("--lr nan", "lr is nan"),
    "momentum 1": given("--momentum 1", "--momentum is 1.0"),
    "weight decay negative": given("--weight-decay -1", "--weight-decay is -1.0"),
    "accumulate 0": given("--accumulate 0", "--accumulate is 0"),
    "accumulate not dividing": given(
        "--batch-size 10 --accumulate 3", "--accumulate is 3, which does not divide.*10"
    ),
    "no step": given("--limit-steps 0", "--limit-steps is 0"),
    # Machine.
    "fp16 on a CPU": given("--precision fp16 --device cpu", "'fp16' on a CPU"),
    "workers negative": given("--workers -1", "--workers is -1"),
    # Run.
    "seeds empty": given("--seeds", "--seeds is empty"),
    "seeds twice": given("--seeds 1 1", r"--seeds is \[1, 1\]"),
    "seed negative": given("--seeds -1", r"--seeds is \[-1\]"),
    "resume and overwrite": given("--resume --overwrite", "--resume and --overwrite"),
    "evaluated never": given("--eval-every 0", "--eval-every is 0"),
}
if NO_GPU:
    BAD_FINETUNE["no GPU"] = given("--device cuda", "'cuda'.*use --device cpu")


@pytest.mark.parametrize("name", BAD_FINETUNE)
def test_bad_input_of_finetune(capsys, place, name):
    """The sentence names what was given, and nothing half-written is left behind."""
    bad = BAD_FINETUNE[name]
    options = ["--workers", 0, "--output", place.output, *bad.options(place)]
    sentence = run_bad(capsys, "finetune", *options)
    assert re.search(bad.sentence, sentence)
    assert not place.output.exists()


BAD_OUTPUT = {
    "not empty": (lambda place: ["--output", place.full_folder()], "is not empty"),
    "no run to overwrite": (
        lambda place: ["--output", place.full_folder(), "--overwrite"],
        "is not a run's",
    ),
    "no run to resume": (
        lambda place: ["--output", place.full_folder(), "--resume"],
        "config.json",
    ),
    "a file": (lambda place: ["--output", place.file("file")], "is a file"),
    "below a file": (lambda place: ["--output", place.file("file") / "run"], "file"),
    "further below a file": (lambda place: ["--output", place.file("file") / "a" / "b"], "file"),
    "below a file, several seeds": (
        lambda place: ["--output", place.file("file"), "--seeds", 0, 1],
        "file",
    ),
    "several seeds where one is": (
        lambda place: ["--output", place.single_run(), "--seeds", 0, 1],
        "holds a single run",
    ),
}


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
        if "core-tuning-cache" not in file.parts
    }


@pytest.mark.parametrize("name", BAD_OUTPUT)
def test_bad_output(capsys, place, name):
    """What was there is left as it was, and the sentence says where to go on."""
    make, pattern = BAD_OUTPUT[name]
    options = make(place)
    before = contents(place.path)
    sentence = run_bad(capsys, "finetune", "--workers", 0, *options)
    assert re.search(pattern, sentence)
    assert contents(place.path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_no_write_permission(capsys, place):
    locked = place.path / "locked"
    locked.mkdir(mode=0o500)
    sentence = run_bad(capsys, "finetune", "--workers", 0, "--output", locked / "run")
    assert "cannot be written (Permission denied)" in sentence


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["finetun"], "'finetun' is no command.*did you mean 'finetune'"),
        (["xyz"], "'xyz' is no command: expected one of demo, finetune"),
        (["--frobnicate"], "--frobnicate"),
        (["evaluate"], "run"),
        (["evaluate", "gone"], "gone.* does not exist"),
        (["inspect", "gone.pth"], "'gone.pth' cannot be read"),
        (["inspect"], "FILE"),
        (["inspect", "--frobnicate", "x"], "--frobnicate"),
        (["demo", "--seeds"], "--seeds"),
        (["demo", "--frobnicate"], "--frobnicate"),
        (["demo", "--epochs", "0"], "--epochs is 0"),
        (["demo", "--seeds", "-1"], "--seeds"),
        (["demo", "--seeds", "0", "0"], "--seeds"),
        (["demo", "--resume", "--overwrite"], "--resume and --overwrite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_of_other_commands(capsys, tmp_path, monkeypatch, argv, pattern):
    monkeypatch.chdir(tmp_path)
    # A demo whose mistake goes unnoticed must not train for minutes.
    monkeypatch.setattr("core_tuning.classification.run.run", lambda *_: pytest.fail("no error"))
    try:
        sentence = run_bad(capsys, *argv)
    except SystemExit as stop:
        # argparse left to itself prints its usage and exits.
        pytest.fail(f"exit {stop.code} with {capsys.readouterr().err!r}")
    assert re.search(pattern, sentence)
    assert list(tmp_path.iterdir()) == []


def test_inspect_of_a_text_file(capsys, place):
    assert "is not a PyTorch checkpoint" in run_bad(capsys, "inspect", place.file())


def test_demo_refuses_a_folder_with_something_in_it(capsys, place):
    folder = place.full_folder()
    assert "is not empty" in run_bad(capsys, "demo", "--output", folder)


def test_demo_into_a_file(capsys, place):
    assert "file" in run_bad(capsys, "demo", "--output", place.file("file"))


def test_demo_overwrites_demos_alone(capsys, place, monkeypatch):
    """Somebody's own folder of the name of a method, such as this package's, is kept."""
    theirs = place.path / "core_tuning" / "cli.py"
    theirs.parent.mkdir()
    theirs.write_text("mine")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("core_tuning.classification.run.run", stop)
    code = main(["demo", "--output", str(place.path), "--overwrite"])
    assert theirs.exists()
    assert code == 2


def test_demo_checks_its_options_before_it_deletes(capsys, place):
    kept = place.path / "ce" / "config.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    run_bad(capsys, "demo", "--output", place.path, "--overwrite", "--epochs", 0)
    assert kept.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image(capsys, place, workers):
    """Reading fails in the middle of training, in a process of its own if there are workers."""
    data = place.folder()
    broken = data / "train" / "bee" / "0003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    sentence = run_bad(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        "--batch-size", 16, "--validation", 0, "--transforms", "small", "--image-size", 16,
        "--workers", workers, "--output", place.output, after_progress=True,
    )  # fmt: skip
    assert re.search(r"The image .*bee/0003\.png cannot be read \(.*\): replace it", sentence)
    assert not (place.output / "result.json").exists()


def test_a_truncated_image_of_the_validation_set(capsys, place):
    data = place.folder({"train": 8, "val": 2, "test": 2})
    broken = data / "val" / "ant" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:300])
    sentence = run_bad(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        "--batch-size", 16, "--transforms", "small", "--image-size", 16, "--limit-steps", 1,
        "--workers", 0, "--output", place.output, after_progress=True,
    )  # fmt: skip
    assert "val/ant/0001.png cannot be read" in sentence


NAN = (
    "--fraction", 0.1, "--image-size", 16, "--batch-size", 16, "--epochs", 3, "--workers", 0,
)  # fmt: skip


@pytest.mark.parametrize("method", ["ce", "core_tuning"])
def test_a_loss_that_becomes_nan(capsys, place, method):
    """Provoked for real; whatever checkpoint is left can be read, and holds no NaN."""
    sentence = run_bad(
        capsys, "finetune", *NAN, "--method", method, "--lr", 1e30, "--checkpoint-minutes", 0,
        "--output", place.output, after_progress=True,
    )  # fmt: skip
    step = int(re.search(r"not finite at step (\d+)", sentence).group(1))
    assert "1e+30" in sentence
    assert step > 1
    state = torch.load(place.output / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < step
    for tensor in (*state["image_encoder"].values(), *state["classifier"].values()):
        assert torch.isfinite(tensor).all()
    assert not (place.output / "result.json").exists()


def test_a_learning_rate_beyond_float32(capsys, place):
    """Nothing but a larger number than the other one, and torch refuses it by an exception."""
    sentence = run_bad(
        capsys, "finetune", *NAN, "--method", "ce", "--lr", 1e39, "--output", place.output,
        after_progress=True,
    )  # fmt: skip
    assert "lr" in sentence


def test_ctrl_c(capsys, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("core_tuning.classification.finetune.main", stop)
    assert main(["finetune"]) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["finetun"], "did you mean 'finetune'"),
        (["finetune", "--eta", "nan"], "eta is nan"),
        (["finetune", "--pretrained", "gone.pth"], "gone.pth"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_the_exit_code_of_a_process(tmp_path, argv, pattern):
    run = subprocess.run(
        [sys.executable, "-m", "core_tuning", *argv], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert re.search(pattern, only_sentence(run.stderr))
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_worker_meets_a_truncated_image(tmp_path, write_folder):
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
    assert "ant/0002.png cannot be read" in only_sentence(run.stderr, after_progress=True)
