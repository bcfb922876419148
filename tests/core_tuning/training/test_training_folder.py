import importlib.metadata
import json
import os

import pytest
import torch

from core_tuning.errors import UserError
from core_tuning.files import append_line
from core_tuning.training.folder import RunFolder, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def started(path, config=None):
    folder = RunFolder(path)
    folder.start(config or {"options": {"lr": 0.1, "workers": 2}})
    return folder


def test_an_atomic_write_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_write_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_every_file_of_a_run_is_written_atomically(tmp_path):
    folder = started(tmp_path / "run")
    folder.save_checkpoint({"step": 1})
    append_line(folder.metrics_path, {"step": 1})
    assert names(folder.path) == ["checkpoint.pt", "figures", "metrics.jsonl", "run.json"]


def test_the_marker_holds_the_versions(tmp_path):
    run = {"command": "finetune", "options": {"lr": 0.5}, "seed": 3}
    folder = started(tmp_path / "run", run)
    contents = json.loads(folder.marker_path.read_text())
    assert {name: contents[name] for name in run} == folder.read_run() == run
    (environment,) = contents["environments"]
    assert environment["torch"] == importlib.metadata.version("torch")
    assert {"python", "platform", "command", "core-tuning", "timm"} <= set(environment)
    assert (contents["made_by"], contents["format_version"]) == ("core-tuning", 1)


def test_checkpoint_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.load_checkpoint() is None
    folder.save_checkpoint({"weight": torch.arange(3), "step": 7})
    loaded = folder.load_checkpoint()
    assert torch.equal(loaded["weight"], torch.arange(3))
    assert (loaded["step"], loaded["core_tuning_checkpoint"]) == (7, 1)


def test_metrics_without_a_last_line_that_was_cut(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == []
    lines = [{"step": step, "epoch": 0.5, "train": {}, "seconds": 1} for step in (1, 2)]
    for line in lines:
        append_line(folder.metrics_path, line)
    with folder.metrics_path.open("a") as file:
        file.write('{"step": 3, "tr')
    assert folder.read_metrics() == lines
    with folder.metrics_path.open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"line 3 of .*metrics.jsonl is damaged"):
        folder.read_metrics()


def test_a_folder_that_is_not_empty(tmp_path):
    RunFolder(tmp_path).start({"options": {"lr": 0.1}})
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(
        UserError, match=r"is not empty: go on with --resume, start again with --ov"
    ):
        RunFolder(tmp_path).start({"options": {"lr": 0.2}})
    assert (tmp_path / "run.json").read_text() == before


def test_overwrite_is_for_runs_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not a run's folder \(it has no run.json\)"):
        RunFolder(tmp_path).start({}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_overwrite_deletes_the_older_run(tmp_path):
    folder = started(tmp_path / "run")
    folder.model_path.write_bytes(b"old")
    folder.start({"options": {"lr": 1}}, overwrite=True)
    assert names(folder.path) == ["figures", "run.json"]
    assert folder.read_run() == {"options": {"lr": 1}}


def test_an_empty_folder_is_taken(tmp_path):
    RunFolder(tmp_path).start({})
    assert names(tmp_path) == ["figures", "run.json"]


def test_resume_of_another_configuration_names_the_key(tmp_path):
    folder = started(tmp_path, {"options": {"lr": 0.1, "eta": 1}})
    before = folder.marker_path.read_bytes()
    with pytest.raises(UserError, match=r"was started with lr = 0.1, not 0.2: resume it with the"):
        folder.resume({"options": {"lr": 0.2, "eta": 1}})
    with pytest.raises(UserError, match=r"was started with eta = 1, not None"):
        folder.resume({"options": {"lr": 0.1}})
    assert folder.marker_path.read_bytes() == before


def test_resume_where_movable_options_differ(tmp_path):
    folder = started(tmp_path)
    folder.resume({"options": {"lr": 0.1, "workers": 5}})
    assert folder.read_run() == {"options": {"lr": 0.1, "workers": 5}}


def test_resume_where_there_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is not a run's folder \(it has no run.json\)"):
        RunFolder(tmp_path / "gone").resume({})


@pytest.mark.parametrize("below", ["", "run", "runs/run"])
def test_a_path_at_or_below_a_file(tmp_path, below):
    """What root cannot write either, unlike a folder without write permission."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"name another with --output"):
        RunFolder(tmp_path / "file" / below).start({})


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_no_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        RunFolder(tmp_path / "run").start({})
