"""Bad input of `finetune`, as one sentence and exit code 2, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch


class Bad(NamedTuple):
    """Options of `finetune`, made in a place, and what the sentence must match."""

    options: Callable
    sentence: str


def given(options: str, sentence: str) -> Bad:
    return Bad(lambda _: list(options.split()), sentence)


def own(make: Callable, sentence: str, options: str = "") -> Bad:
    """A folder of images of one's own."""
    arguments = ["--dataset", "folder", "--pretrained", "random", "--encoder", "small_resnet"]
    arguments += ["--batch-size", "4", "--transforms", "small"]
    return Bad(lambda place: [*arguments, "--data-dir", make(place), *options.split()], sentence)


def pretrained(make: Callable, sentence: str, options: str = "") -> Bad:
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
    "classes differ": own(
        lambda place: place.different_classes(), "lacks 'bee' and has 'wasp' besides"
    ),
    "empty class folder": own(lambda place: place.empty_class(), "cicada has no images"),
    "one class": own(lambda place: place.folder(classes=["ant"]), "one class only"),
    "no images": own(lambda place: place.full_folder(), "full"),
    "fewer images than a batch": own(
        lambda place: place.folder(), "fewer than a batch of 64", "--batch-size 64 --validation 0"
    ),
    "nothing to download": given("--download", "ships with the package"),
    "fraction 0": given("--fraction 0", "--fraction is 0.0"),
    "fraction nan": given("--fraction nan", "--fraction is nan"),
    "validation 1": given("--validation 1", "--validation is 1.0"),
    "image size 0": given("--image-size 0", "--image-size is 0: expected at least 1"),
    # Encoder and checkpoint.
    "no checkpoint named": Bad(
        lambda place: ["--dataset", "folder", "--data-dir", place.folder(), "--batch-size", 4],
        "--pretrained is missing",
    ),
    "checkpoint missing": pretrained(
        lambda place: place.path / "gone.pth", "gone.pth does not exist"
    ),
    "checkpoint is text": pretrained(lambda place: place.file(), "is not a PyTorch checkpoint"),
    "checkpoint is empty": pretrained(lambda place: place.file(contents=b""), "is empty"),
    "checkpoint is cut": pretrained(lambda place: place.truncated(), "cut.pth"),
    "safetensors is cut": pretrained(
        lambda place: place.truncated_safetensors(), "cut.safetensors"
    ),
    "checkpoint is a folder": pretrained(lambda place: place.folder(), "is a folder"),
    "another architecture": pretrained(
        lambda place: place.checkpoint(),
        "does not fit.*pass `--encoder small_resnet`",
        "--encoder resnet18",
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
    "lambda_n negative": given("--lambda-n -0.1", "--lambda-n is -0.1: expected at least 0"),
    "lambda_n large": given("--lambda-n 1.5", "--lambda-n is 1.5"),
    "lambda_n nan": given("--lambda-n nan", "--lambda-n is nan"),
    "lambda_p large": given("--lambda-p 2", "--lambda-p is 2.0"),
    "projection too deep": given("--projection-depth 6", "6"),
    "projection of no width": given("--projection-dim 0", "0"),
    "ce mixes hard": given("--method ce --mixing hard", "'hard' with --method ce"),
    "ce_con mixes": given(
        "--method ce_con --mixing manifold",
        "--mixing is given with --method ce_con, which does not have it: .* core_tuning",
    ),
    "ce has no eta": given("--method ce --eta 1", "--eta is given with --method ce"),
    "the release has no ablations": given("--method released --no-focal", "--focal is given"),
    "dropout 1": given("--dropout 1", "--dropout is 1.0"),
    "lr decay 0": given("--lr-decay 0", "--lr-decay is 0.0"),
    "memory negative": given("--memory -1", "--memory is -1.0"),
    "two lengths": given("--steps 3 --epochs 2", "--steps is 3 and --epochs is 2"),
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
    # Beyond what float32, int64 or a machine holds.
    "weight decay huge": given("--weight-decay 1e300", r"--weight-decay is 1e\+300"),
    "weight decay inf": given("--weight-decay inf", "--weight-decay is inf"),
    "lr huge": given("--lr 1e300", r"--lr is 1e\+300: expected above 0, at most 1e\+30"),
    "lr huge with adam": given("--optimizer adam --lr 3e38", r"--lr is 3e\+38"),
    "momentum nan": given("--momentum nan", "--momentum is nan: expected at least 0, below 1"),
    "eta huge": given("--eta 1e300", r"--eta is 1e\+300"),
    "temperature tiny": given("--temperature 1e-300", "--temperature is 1e-300: expected at least"),
    "seed of 2^64": given(f"--seeds 0 {2**64}", f"--seeds is {2**64}: expected .* below 2\\^63"),
    "seed of 10^24": given(f"--seeds {10**24}", f"--seeds is {10**24}"),
    "projection huge": given(f"--projection-dim {10**12}", "--projection-dim is 1000000000000"),
    "epochs huge": given(f"--epochs {10**12}", "--epochs is 1000000000000"),
    "batch huge": given(f"--batch-size {10**12}", "--batch-size is 1000000000000"),
    "image huge": given(f"--image-size {10**9}", "--image-size is 1000000000: .* at most 4,096"),
    "workers huge": given(f"--workers {10**6}", "--workers is 1000000: .* at most 256"),
    "steps huge": given(f"--limit-steps {10**30}", "--limit-steps is 1"),
    "minutes infinite": given("--checkpoint-minutes inf", "--checkpoint-minutes is inf"),
    # Machine.
    "fp16 on a CPU": given("--precision fp16 --device cpu", "'fp16' on a CPU"),
    "workers negative": given("--workers -1", "--workers is -1"),
    # Run.
    "seeds empty": given("--seeds", "--seeds: expected at least one"),
    "seeds twice": given("--seeds 1 1", r"--seeds is \[1, 1\]"),
    "seed negative": given("--seeds -1", "--seeds is -1: expected at least 0"),
    "resume and overwrite": given("--resume --overwrite", "--resume and --overwrite"),
    "evaluated never": given("--eval-every 0", "--eval-every is 0"),
}
if NO_GPU:
    BAD_FINETUNE["no GPU"] = given("--device cuda", "'cuda'.*use --device cpu")


@pytest.mark.parametrize("name", BAD_FINETUNE)
def test_bad_input_of_finetune(kit, capsys, place, name):
    """The sentence names what was given, and nothing half-written is left behind."""
    bad = BAD_FINETUNE[name]
    options = ["--workers", 0, "--output", place.output, *bad.options(place)]
    sentence = kit.run_bad(capsys, "finetune", *options)
    assert re.search(bad.sentence, sentence)
    assert not place.output.exists()
