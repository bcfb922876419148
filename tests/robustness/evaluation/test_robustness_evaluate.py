"""`core-tuning robust evaluate`: its rows, its files, and going on after it was stopped."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from core_tuning.cli import main
from core_tuning.data import build_transforms, load_splits
from core_tuning.robustness import evaluate as command
from core_tuning.robustness import masking, protocols
from core_tuning.robustness.attack.autoattack import run_attack
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.measure import measure
from core_tuning.robustness.pixels import group
from core_tuning.robustness.protocols import PROTOCOLS
from core_tuning.robustness.rows import Rows, bits
from core_tuning.training.exported import load_model

STATED = {
    "attack", "title", "norm", "eps", "eps_text", "space", "largest_l2_native", "n",
    "correct", "robust", "low", "high", "versions", "zero_gradients",
}  # fmt: skip


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_state_everything_and_count_right(evaluate, run, capsys):
    report = evaluate("--n", "12", "--seed", 3, attacks=("fgsm", "pgd10"))
    out = capsys.readouterr().out
    rows = report["rows"]
    assert [(row["attack"], row["norm"], row["eps_text"]) for row in rows] == [
        ("fgsm", "l2", "0.3"), ("pgd10", "l2", "0.3"),
        ("fgsm", "linf", "2/255"), ("pgd10", "linf", "2/255"),
    ]  # fmt: skip
    for row in rows:
        assert row.keys() >= STATED
        assert row["n"] == 12
        cells = (row["title"], row["eps_text"], "12", str(row["correct"]), f"{row['robust']:.2f}")
        assert any(all(cell in line for cell in cells) for line in out.splitlines())
    data = report["data"]
    assert (data["n"], data["seed"], data["split"]) == (12, 3, "test")
    assert (data["input_size"], data["native_size"]) == ("16x16", "20x20")
    assert report["subject"]["selection"] == "best validation top-1"
    assert report["environment"]["precision"] == "float32"
    assert report["environment"]["batch_size"] == 5
    assert rows[0]["largest_l2_native"] == pytest.approx(0.3 * 20 / 16)
    assert report["environment"]["torchattacks"] == "3.5.1"
    assert lines(run / "robustness" / "rows.jsonl") == rows
    assert (run / "robustness" / "report.md").exists()

    # Counted again, without the command.
    model, facts = load_model(run)
    images = load_splits("folder", run.parent / "data").test
    transform = build_transforms(facts["transforms"], facts["image_size"]).evaluate
    chosen = report["data"]["indices"]
    tensors = torch.stack([transform(images.image(index)) for index in chosen])
    labels = torch.tensor([images.labels[index] for index in chosen])
    with torch.no_grad():
        assert report["clean"]["correct"] == int((model(tensors).argmax(1) == labels).sum())
    for row in rows:
        found = measure(
            model, AttackView(model), [group(tensors, labels)], PROTOCOLS[row["attack"]],
            row["norm"], row["eps"], seed=3, batch_size=5,
        )  # fmt: skip
        assert row["correct"] == int(found.robust.sum())
        assert row["images"] == bits(found.robust)
    # And by image.
    header, *each = csv.reader((run / "robustness" / "images.csv").open())
    assert header == ["index", "class", "clean", "fgsm l2 0.3", "pgd10 l2 0.3",
                      "fgsm linf 2/255", "pgd10 linf 2/255"]  # fmt: skip
    assert [int(line[0]) for line in each] == chosen
    assert [line[1] for line in each] == [images.classes[label] for label in labels.tolist()]
    digits = ["".join(column) for column in zip(*each, strict=True)][2:]
    assert digits == [report["clean"]["images"], *(row["images"] for row in rows)]


def test_native_space_attacks_the_images_own_pixels(evaluate, tmp_path):
    report = evaluate("--attack-space", "native", output=tmp_path / "native")
    row = report["rows"][0]
    assert (row["space"], report["data"]["native_size"], row["largest_l2_native"]) == (
        "native",
        "20x20",
        0.3,
    )
    assert report["rows"][1]["largest_l2_native"] == pytest.approx(2 / 255 * np.sqrt(3 * 20 * 20))
    assert report["clean"]["n"] == 18


def test_an_eps_that_can_be_seen_is_measured_and_noted(evaluate, capsys, tmp_path):
    """2% of sqrt(3 16 16) = 0.554: budgets are many here on purpose, so nothing is refused."""
    report = evaluate("--l2", "0.5", "0.6", "--linf")
    small, large = report["rows"]
    note = "eps is 0.6 in the l2 norm, above 0.554, 2% of sqrt(3hw) at 16x16 pixels: such a change"
    assert small["notes"] == [] and large["notes"][0].startswith(note)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"note: {note}")
    native = evaluate("--l2", "0.6", "--linf", "--attack-space", "native", output=tmp_path / "n")
    assert native["rows"][0]["notes"] == []  # 0.693 at 20 pixels


def test_the_validation_split_comes_with_a_warning(evaluate, capsys):
    report = evaluate("--split", "validation", "--linf")
    assert "too good" in report["data"]["warnings"][0]
    assert "warning: The model may have been trained or selected" in capsys.readouterr().out


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batches", [1, 3, 6])
def test_a_killed_evaluation_goes_on_as_if_nothing_had_happened(
    evaluate, run, monkeypatch, tmp_path, batches
):
    """The options differ in what may: rows that are there are not measured again."""
    whole = evaluate(attacks=("pgd10", "fgsm"), output=tmp_path / "whole")
    left, save = [batches], Rows.save

    def stop(self, key, outcome):
        save(self, key, outcome)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Rows, "save", stop)
    with pytest.raises(Killed):
        evaluate(attacks=("pgd10", "fgsm"))
    monkeypatch.setattr(Rows, "save", save)
    path = run / "robustness" / "rows.jsonl"
    with path.open("a") as file:
        file.write('{"attack": "pgd10", "no')  # what a kill within the write leaves
    report = evaluate("--resume", attacks=("pgd10", "fgsm"))
    assert not (run / "robustness" / ".row.json").exists()
    assert lines(path) == report["rows"]
    assert report["rows"] == whole["rows"]


def test_attacks_can_be_added_to_a_finished_evaluation(evaluate, run, kit, capsys):
    evaluate()
    before = lines(run / "robustness" / "rows.jsonl")
    report = evaluate("--resume", attacks=("pgd10", "fgsm"))
    assert report["rows"][:2] == before
    assert [row["attack"] for row in report["rows"]] == ["pgd10", "pgd10", "fgsm", "fgsm"]
    again = ("robust", "evaluate", run, "--resume", "--workers", 0, "--batch-size", 6)
    assert "batch_size = 5, not 6" in kit.refused(capsys, *again)


def test_a_run_made_again_is_another(evaluate, run, kit, capsys):
    evaluate()
    other = kit.write_run(run.parent / "other", run.parent / "data", classes=("ant", "bee"), seed=0)
    contents = bytearray((other / "model.safetensors").read_bytes())
    contents[-3] ^= 1
    (run / "model.safetensors").write_bytes(contents)
    again = ("robust", "evaluate", run, "--resume", "--workers", 0, "--batch-size", 5)
    assert "weights = " in kit.refused(capsys, *again)


def test_few_classes_and_few_queries(evaluate, monkeypatch, capsys):
    """AutoAttack on a model of two classes says what it runs instead, in the row too."""

    def quick(name, *arguments, queries, version):
        return run_attack("square", *arguments, queries=2)

    monkeypatch.setattr(protocols, "run_attack", quick)
    report = evaluate("--n", 4, "--square-queries", 2, "--linf", attacks=("square", "autoattack"))
    square, automatic = report["rows"]
    assert square["title"] == "Square, 2 queries"
    assert automatic["title"] == "AutoAttack (not standard)"
    assert "the model has 2" in automatic["notes"][0]
    assert [name for name, _ in automatic["after"]] == ["apgd-ce", "fab-t", "square"]
    assert "were run instead" in capsys.readouterr().out


def test_masking_checks_of_each_norm_are_kept(evaluate, run, monkeypatch):
    called = []

    def check(model, group, norm, eps, *, seed, batch_size):
        called.append((norm, eps, tuple(group.images.shape), group.images.dtype))
        assert model(group.images).shape == (len(group.labels), 2)
        return [masking.Check("monotone", norm == "l2", "found")]

    monkeypatch.setattr(command, "check_masking", check)
    arguments = ["robust", "evaluate", str(run), "--attacks", "fgsm", "--l2", "0.1", "0.3"]
    arguments += ["--linf", "2/255", "--workers", "0", "--n", "7"]
    assert main(arguments) == 0
    assert called == [
        ("l2", 0.3, (7, 3, 16, 16), torch.float32), ("linf", 2 / 255, (7, 3, 16, 16), torch.float32)
    ]  # fmt: skip
    assert main([*arguments, "--resume"]) == 0
    assert len(called) == 2
    report = json.loads((run / "robustness" / "report.json").read_text())
    assert [line["norm"] for line in report["masking"]] == ["l2", "linf"]
    assert [len(line["checks"]) for line in report["masking"]] == [3, 3]


def test_a_module(run, tmp_path, evaluate, kit, capsys):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(1)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))\n"
    )
    subject = ("--module", f"{tmp_path / 'own.py'}:build", "--dataset", "folder")
    subject += ("--data-dir", run.parent / "data", "--image-size", 8, "--transforms", "small")
    report = evaluate(subject=subject, output=tmp_path / "out")
    assert report["subject"]["kind"] == "module" and report["data"]["input_size"] == "8x8"
    assert report["subject"]["selection"] == "unknown"
    with (tmp_path / "own.py").open("a") as file:
        file.write("# another\n")
    again = ("robust", "evaluate", *subject, "--resume", "--output", tmp_path / "out")
    assert "code = " in kit.refused(capsys, *again, "--batch-size", 5, "--workers", 0)


def test_the_global_random_state_and_the_run_are_left_alone(evaluate, run, tmp_path):
    files = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    before = torch.get_rng_state()
    evaluate(attacks=("pgd10", "fgsm"), output=tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == files


def test_images_that_are_not_those_of_the_run(run, evaluate):
    path = run / "run.json"
    contents = json.loads(path.read_text())
    data = load_splits("folder", run.parent / "data").fingerprint
    contents["data"] = data
    path.write_text(json.dumps(contents))
    assert evaluate(output=run / "first")["data"]["warnings"] == []
    (run.parent / "data/val/ant/0000.png").unlink()
    (warning,) = evaluate(output=run / "second")["data"]["warnings"]
    assert warning == (
        "The images are not those of the run: class 'ant' of test has 8 images, not 9."
    )
