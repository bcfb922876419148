"""Modules of a user's own that do what they should not: handled, or one sentence and no folder."""

from __future__ import annotations

import os

import pytest
import torch

from core_tuning.cli import main

SOURCE = '''
import sys
import torch
from torch import nn
import torch.nn.functional as F

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def before(self, images):
        return images

    def after(self, logits):
        return logits

    def forward(self, images):
        features = self.bn(self.conv(self.before(images))).relu().mean((2, 3))
        return self.after(self.fc(self.drop(features)))

def plain(): return Plain()
def talks():
    print("loading my weights")
    return Plain()
def scripted(): return torch.jit.script(Plain())
def traced(): return torch.jit.trace(Plain().eval(), torch.rand(2, 3, 8, 8))
def frozen(): return torch.jit.freeze(torch.jit.script(Plain().eval()))
def inside(): return nn.Sequential(nn.Identity(), torch.jit.script(Plain()))

class InPlace(Plain):
    def before(self, images): return images.sub_(0.5).div_(0.25)
def in_place(): return InPlace()
class OutOfPlace(Plain):
    def before(self, images): return (images - 0.5) / 0.25
def out_of_place(): return OutOfPlace()
class Views(Plain):
    def before(self, images): return images.view(len(images), -1).view(images.shape)
def views(): return Views()
class Half(Plain):
    def after(self, logits): return logits.half()
def half(): return Half()
class Double(Plain):
    def after(self, logits): return logits.double()
def double(): return Double()
class Detached(Plain):
    def after(self, logits): return logits.detach()
def detached(): return Detached()
class WithoutGrad(Plain):
    def forward(self, images):
        with torch.no_grad(): return super().forward(images)
def without_grad(): return WithoutGrad()
class Inference(Plain):
    def forward(self, images):
        with torch.inference_mode(): return super().forward(images)
def inference(): return Inference()
class NoParameters(nn.Module):
    def forward(self, images): return 9 * images.mean((2, 3))[:, :2]
def no_parameters(): return NoParameters()
class Uncopied(Plain):
    def __deepcopy__(self, memo): raise RuntimeError("there is one of me")
def uncopied(): return Uncopied()
class Toggling(Plain):
    """Its own flag alone: what the mode changes is left alone."""
    def forward(self, images):
        self.training = True
        return super().forward(images)
def toggling(): return Toggling()
class Extra(Plain):
    def get_extra_state(self): return {"version": 3}
    def set_extra_state(self, state): pass
def extra(): return Extra()

class Switching(Plain):
    def forward(self, images):
        self.train()
        return super().forward(images)
def switching(): return Switching()
class Stubborn(Plain):
    def train(self, mode=True): return super().train(True)
def stubborn(): return Stubborn()
class NoEval(Plain):
    def train(self, mode=True): raise NotImplementedError("Calling train() is not supported yet.")
def no_eval(): return NoEval()
class NoTo(Plain):
    def _apply(self, function, recurse=True):
        if getattr(self, "built", False): raise RuntimeError("stay where I am")
        self.built = True
        return super()._apply(function, recurse)
def no_to(): return NoTo()
class Returns(Plain):
    def __init__(self, change):
        super().__init__()
        self.change = change
    def after(self, logits): return self.change(logits)
def a_tuple(): return Returns(lambda logits: (logits, None))
def a_dict(): return Returns(lambda logits: {"logits": logits})
def nothing(): return Returns(lambda logits: None)
def integers(): return Returns(lambda logits: F.one_hot(logits.argmax(1), 2))
def classes(): return Returns(lambda logits: logits.argmax(1))
def complex_numbers(): return Returns(lambda logits: logits.to(torch.complex64))
def squeezed(): return Returns(lambda logits: logits.squeeze())
def elsewhere(): return Returns(lambda logits: torch.zeros(len(logits), 2, device="meta"))
def nan(): return Returns(lambda logits: logits * float("nan"))
def leaves(): return Returns(lambda logits: sys.exit(3))
def fails(): return Returns(lambda logits: 1 / 0)
class DarkNan(Plain):
    def after(self, logits): return logits
    def forward(self, images):
        logits = super().forward(images)
        return torch.where((images.mean((1, 2, 3)) != 0.5)[:, None], float("nan"), logits)
def nan_on_real_images(): return DarkNan()
class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits): return logits.clone()
    @staticmethod
    def backward(ctx, gradient): raise RuntimeError("there is no way back")
def no_way_back(): return Returns(Backward.apply)

def on_meta(): return Plain().to("meta")
def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
def exits(): sys.exit("no weights")
def raises(): raise KeyError("weights")
def recurses(): return recurses()
def needs(one): return Plain()
def a_function(): return lambda images: images
def a_class(): return Plain
constant = Plain()
'''


@pytest.fixture
def own(tmp_path, run):
    """The arguments that name a function of the source above, with a folder of two classes."""
    (tmp_path / "own.py").write_text(SOURCE)

    def name(function, file="own.py"):
        return [
            *("--module", f"{tmp_path / file}:{function}", "--dataset", "folder"),
            *("--data-dir", run.parent / "data", "--image-size", 8, "--transforms", "small"),
        ]

    return name


@pytest.fixture(scope="module")
def alike():
    """What was measured of the modules that are the same function, by which that is."""
    return {}


@pytest.mark.parametrize(
    "function",
    [
        "plain", "talks", "scripted", "traced", "frozen", "inside", "in_place", "out_of_place",
        "views", "half", "double", "uncopied", "toggling", "extra", "no_parameters",
    ],
)  # fmt: skip
def test_modules_that_are_evaluated(own, evaluate, tmp_path, alike, function):
    report = evaluate(
        "--n", 8, "--square-queries", 3, "--linf",
        attacks=("fgsm", "pgd10", "square"), subject=own(function), output=tmp_path / "out",
    )  # fmt: skip
    assert not report["randomness"]["is_randomised"]
    assert [row["zero_gradients"] for row in report["rows"][:2]] == [0, 0]
    # Those of one network are one model, whatever they wrap it in.
    same = {"in_place": "normalised", "out_of_place": "normalised", "no_parameters": "own"}
    found = [report["clean"], *(row["correct"] for row in report["rows"])]
    assert found == alike.setdefault(same.get(function, "plain"), found)


@pytest.mark.parametrize("function", ["detached", "without_grad", "inference"])
def test_modules_without_gradients_are_evaluated_and_say_so(own, evaluate, tmp_path, function):
    report = evaluate("--n", 8, attacks=("fgsm", "pgd10"), subject=own(function),
                      output=tmp_path / "out")  # fmt: skip
    assert {row["zero_gradients"] for row in report["rows"]} == {1}


def test_torchscript_at_the_images_own_resolution(own, evaluate, tmp_path):
    report = evaluate(
        "--n", 4, "--linf", "--square-queries", 3, "--attack-space", "native",
        attacks=("pgd10", "square"), subject=own("scripted"), output=tmp_path / "out",
    )  # fmt: skip
    assert report["data"]["native_size"] == "20x20"
    assert [row["n"] for row in report["rows"]] == [4, 4]


MODES = "that stays in evaluation mode"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("switching", MODES),
        ("stubborn", MODES),
        ("no_eval", "raised NotImplementedError (Calling train() is not supported yet)"),
        ("no_to", "raised RuntimeError (stay where I am)"),
        ("a_tuple", "own.py:a_tuple returned a tuple for images (18, 3, 8, 8): expected a torch"),
        ("a_dict", "returned a dict for images (18, 3, 8, 8)"),
        ("nothing", "returned a NoneType"),
        ("integers", "returned int64 numbers"),
        ("complex_numbers", "returned complex64 numbers"),
        ("classes", "of the shape (18,)"),
        ("squeezed", "of the shape (2,) on cpu for images (1, 3, 8, 8)"),
        ("elsewhere", "on meta for images"),
        ("nan", "logits are not finite"),
        ("nan_on_real_images", "logits are not finite"),
        ("leaves", "raised SystemExit (3)"),
        ("fails", "raised ZeroDivisionError"),
        ("no_way_back", "raised RuntimeError (there is no way back)"),
        ("on_meta", "own.py:on_meta raised"),
        ("lazy", "own.py:lazy"),
        ("exits", "own.py:exits raised SystemExit (no weights)"),
        ("raises", "raised KeyError ('weights')"),
        ("recurses", "raised RecursionError"),
        ("needs", "raised TypeError"),
        ("a_function", "returned a function: expected a torch.nn.Module"),
        ("a_class", "returned a type"),
        ("constant", "own.py:constant"),
        ("absent", "has no function 'absent'"),
        ("", "expected FILE.py:FUNCTION"),
    ],
)
def test_modules_that_are_refused(own, kit, capsys, tmp_path, function, said):
    error = kit.refused(
        capsys, "robust", "evaluate", *own(function), "--workers", 0, "--output", tmp_path / "out"
    )
    assert said in error
    assert not (tmp_path / "out").exists()


def test_files_that_are_refused(own, kit, capsys, tmp_path):
    os.mkfifo(tmp_path / "fifo.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "syntax.py").write_text("def build(:\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "text.txt").write_text("def build(): pass\n")
    said = {
        "fifo.py": "is not the file of", "folder.py": "is not the file of",
        "gone.py": "is not the file of", "syntax.py": "raised SyntaxError", "nul.py": "raised",
        "latin.py": "raised SyntaxError", "exits.py": "raised SystemExit (0)",
        "text.txt": "is not the file of", "a" * 300 + ".py": "is not the file of",
    }  # fmt: skip
    for file, expected in said.items():
        arguments = ("robust", "evaluate", *own("build", file), "--workers", 0)
        assert expected in kit.refused(capsys, *arguments, "--output", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    for named in ("", ":", "own.py", ":build", "own.py:"):
        error = kit.refused(capsys, "robust", "evaluate", "--module", named)
        assert "expected FILE.py:FUNCTION" in error


def test_a_module_that_fails_later_is_a_sentence_too(own, capsys, tmp_path):
    """What was measured before is kept for --resume; the progress bar is on stderr as well."""
    (tmp_path / "own.py").write_text(
        SOURCE + "calls = []\n"
        "def late(logits):\n"
        "    calls.append(None)\n"
        "    if len(calls) > 20: raise MemoryError('too much')\n"
        "    return logits\n"
        "def tires(): return Returns(late)\n"
    )
    arguments = ("robust", "evaluate", *own("tires"), "--workers", 0, "--output", tmp_path / "out",
                 "--attacks", "fgsm", "pgd10", "--no-masking-checks")  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "own.py:tires on images" in error and "raised MemoryError (too much)" in error
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == 1


def test_random_numbers_of_the_build_do_not_leak(own, evaluate, tmp_path):
    before = torch.get_rng_state()
    evaluate("--n", 4, "--linf", subject=own("plain"), output=tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)
