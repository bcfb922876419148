"""`core-tuning domainbed collect_results` and `list_top_hparams` on results of all kinds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from core_tuning.cli import main


def record(target=0, step=0, dataset="Debug28", **changes):
    arguments = {
        "dataset": dataset, "algorithm": "CoreTuning", "test_envs": [target], "trial_seed": 0,
        "hparams_seed": 0, "holdout_fraction": 0.2, "output_dir": f"{target}",
    }  # fmt: skip
    accuracies = {
        f"env{number}_{split}_acc": 0.25 * (1 + number) for number in range(3)
        for split in ("in", "out")
    }  # fmt: skip
    return {"args": arguments, "step": step, "hparams": {"lr": 0.1}, **accuracies, **changes}


def write(folder: Path, records, end="\n") -> Path:
    """Write one run a record."""
    for number, each in enumerate(records):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "results.jsonl").write_text(json.dumps(each) + end)
    return folder


@pytest.fixture(autouse=True)
def kept_streams(monkeypatch):
    """Give back the stream that collect_results replaces."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)


def refuse(capsys, *arguments):
    assert main(["domainbed", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("core-tuning: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


LIST = ("--dataset", "Debug28", "--algorithm", "CoreTuning", "--test_env", "0")


def test_whole_results_are_collected(domainbed, capsys, tmp_path):
    folder = write(tmp_path / "sweep", [record(target) for target in range(3)])
    (folder / "notes.txt").touch()
    (folder / "waiting").mkdir()
    assert main(["domainbed", "collect_results", "--input_dir", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "Total records: 3" in printed
    # Means and standard errors of the three targets, and their mean.
    expected = "CoreTuning 25.0 +/- 0.0 50.0 +/- 0.0 75.0 +/- 0.0 50.0"
    assert expected in [" ".join(line.split()) for line in printed.splitlines()]
    assert main(["domainbed", "list_top_hparams", "--input_dir", str(folder), *LIST]) == 0
    assert "lr: 0.1" in capsys.readouterr().out


@pytest.mark.parametrize("script", [("collect_results",), ("list_top_hparams", *LIST)])
@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-20],
        lambda line: line[:-1],  # whole, but DomainBed would take its last brace for the end
        lambda line: line + "\n",
        lambda line: "[]\n",
        lambda line: "{}\n",
        lambda line: "null\n" + line,
        lambda line: "\0" * 60 + "\n",
        lambda line: "[" * 100_000 + "\n",
        lambda line: line.replace("\"test_envs\": [0]", "\"test_envs\": 0"),
        lambda line: line.replace("\"test_envs\": [0]", "\"test_envs\": [5]"),
        lambda line: line.replace("0.25", "\"x\""),
        lambda line: line.replace("{\"lr\": 0.1}", "[]"),
        lambda line: line.replace("CoreTuning", "\udcff"),
    ],
)  # fmt: skip
def test_damaged_lines_are_named(domainbed, capsys, tmp_path, script, damage):
    folder = write(tmp_path / "sweep", [record(), record()])
    file = folder / "1" / "results.jsonl"
    file.write_text(damage(file.read_text()), errors="surrogateescape")
    said = refuse(capsys, *script, "--input_dir", folder)
    assert f" of {file} is cut or is not a result of DomainBed's: delete" in said
    assert not (folder / "results.txt").exists()


def test_own_data_sets_have_no_table(domainbed, capsys, tmp_path):
    mine = record(dataset="my_domains")
    folder = write(tmp_path / "sweep", [mine, mine])
    said = refuse(capsys, "collect_results", "--input_dir", folder)
    assert "holds runs of my_domains, which DomainBed does not know" in said
    others = write(tmp_path / "both", [mine, *(record(target) for target in range(3))])
    assert main(["domainbed", "collect_results", "--input_dir", str(others)]) == 0
    captured = capsys.readouterr()
    assert "core-tuning: warning: " in captured.err
    assert "my_domains, which DomainBed does not know" in captured.err
    assert "25.0 +/- 0.0" in captured.out


def test_folders_without_results_are_refused(domainbed, capsys, tmp_path):
    (tmp_path / "empty" / "job").mkdir(parents=True)
    (tmp_path / "empty" / "job" / "results.jsonl").touch()
    for script in ("collect_results", "list_top_hparams"):
        said = refuse(
            capsys,
            script,
            "--input_dir",
            tmp_path / "empty",
            *LIST[: 6 * script.startswith("list")],
        )
        assert "has a line in its results.jsonl" in said
        said = refuse(capsys, script, "--input_dir", "gone", *LIST[: 6 * script.startswith("list")])
        assert "--input_dir is gone, which is not a folder" in said


def test_a_pipe_in_the_place_of_results_is_not_waited_for(domainbed, capsys, tmp_path):
    import os

    (tmp_path / "sweep" / "job").mkdir(parents=True)
    os.mkfifo(tmp_path / "sweep" / "job" / "results.jsonl")
    said = refuse(capsys, "collect_results", "--input_dir", tmp_path / "sweep")
    assert "is a pipe" in said


def test_automatic_rates_need_their_own_results(domainbed, capsys, tmp_path):
    folder = write(tmp_path / "sweep", [record()])
    said = refuse(capsys, "collect_results", "--input_dir", folder, "--auto_lr")
    assert "is not a result" in said


@pytest.mark.parametrize(
    ("option", "value"), [("--dataset", "PACS"), ("--algorithm", "ERM"), ("--test_env", "2")]
)
def test_runs_that_are_not_there_are_not_listed(domainbed, capsys, tmp_path, option, value):
    folder = write(tmp_path / "sweep", [record(0), record(1)])
    said = refuse(capsys, "list_top_hparams", "--input_dir", folder, *LIST, option, value)
    assert "it has CoreTuning on Debug28" in said


def test_other_hparams_under_the_same_seeds_are_refused(domainbed, capsys, tmp_path):
    folder = write(tmp_path / "sweep", [record(), record(hparams={"lr": 1.0})])
    said = refuse(capsys, "list_top_hparams", "--input_dir", folder, *LIST)
    assert "differ though both have --trial_seed 0 and --hparams_seed 0" in said


def test_the_scripts_own_parsers_speak_for_themselves(domainbed, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["domainbed", "collect_results"])
    with pytest.raises(SystemExit, match="0"):
        main(["domainbed", "list_top_hparams", "--help"])
    assert "--test_env" in capsys.readouterr().out
