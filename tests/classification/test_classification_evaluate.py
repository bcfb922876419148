"""`core-tuning evaluate`: it repeats the figures of a run, and refuses what is not one's."""

from __future__ import annotations

import pytest

from core_tuning.cli import main


def test_evaluate_repeats_the_result(kit, finetune, capsys, tmp_path):
    run = finetune()
    result = kit.read(run / "result.json")["test"]
    before = kit.files(run)
    for named in (run, run / "model.safetensors"):
        capsys.readouterr()
        assert main(["evaluate", str(named), "--workers", "0", "--batch-size", "5"]) == 0
        out = capsys.readouterr().out
        assert f"top-1 {result['top1']:.2f}%" in out
        assert f"mean per class {result['mean_per_class']:.2f}%" in out
        assert "warning" not in out
    output = tmp_path / "evaluation"
    assert main(["evaluate", str(run), "--workers", "0", "--output", str(output)]) == 0
    assert kit.read(output / "result.json")["evaluation"]["top1"] == result["top1"]
    assert (output / "confusion.csv").read_text() == (run / "confusion.csv").read_text()
    assert kit.files(run) == before


def test_evaluate_says_that_a_run_is_not_finished(finetune, capsys):
    run = finetune(epochs=1)
    (run / "result.json").unlink()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--workers", "0"]) == 0
    assert f"warning: the run in {run} is not finished: this is its" in capsys.readouterr().out


def test_evaluate_on_the_split_that_selected(kit, finetune, capsys):
    run = finetune()
    validation = kit.read(run / "result.json")["validation"]["top1"]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--workers", "0", "--split", "validation"]) == 0
    assert f"top-1 {validation:.2f}%" in capsys.readouterr().out


def test_bad_input_of_evaluate(kit, finetune, data, tmp_path, write_folder, capsys):
    run = finetune(epochs=1)
    evaluate = ("evaluate", run, "--workers", 0)
    other = write_folder(tmp_path / "other", {"train": 2, "val": 2}, classes=("ant", "wasp"))
    error = kit.refused(capsys, *evaluate, "--data-dir", other)
    assert "are not the model's" in error
    assert "is a file" in kit.refused(capsys, *evaluate, "--data-dir", run / "run.json")
    assert "gone does not exist" in kit.refused(capsys, *evaluate, "--data-dir", tmp_path / "gone")
    assert "'nothing'" in kit.refused(capsys, *evaluate, "--dataset", "nothing")
    assert "is not a run's" in kit.refused(capsys, *evaluate, "--output", data)
    assert "--split" in kit.refused(capsys, *evaluate, "--split", "all")


@pytest.mark.parametrize("option", [("--batch-size", 0), ("--batch-size", -1), ("--workers", -1)])
def test_evaluate_with_numbers_out_of_range(kit, finetune, capsys, option):
    run = finetune(epochs=1)
    assert option[0] in kit.refused(capsys, "evaluate", run, "--workers", 0, *option)


@pytest.mark.parametrize("contents", [b"To whom it may concern", b""])
def test_evaluate_of_a_file_that_is_no_model(kit, tmp_path, capsys, contents):
    (tmp_path / "model.safetensors").write_bytes(contents)
    assert "model.safetensors" in kit.refused(capsys, "evaluate", tmp_path)
