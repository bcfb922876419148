"""What a run's folder never does: delete what is not its own, or take damage for a run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from core_tuning.errors import UserError
from core_tuning.training.folder import RunFolder, check_sums


def marked(path, **changes):
    """Change what a run's marker says."""
    marker = path / "run.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **changes}))


@pytest.fixture
def folder(tmp_path):
    """A run's folder, with a note of its user's in it."""
    folder = RunFolder(tmp_path / "runs" / "run", files=("model_step*.pkl",))
    folder.path.mkdir(parents=True)
    folder.start({"options": {}})
    folder.model_path.write_bytes(b"old")
    (folder.path / "model_step1.pkl").touch()
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "figures" / "mine.png").write_text("mine")
    return folder


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_what_is_not_listed_stays(folder):
    folder.start({"options": {"lr": 1}}, overwrite=True)
    assert files(folder.path) == ["figures/mine.png", "notes.txt", "run.json"]


@pytest.mark.parametrize("inside", ["", "figures"])
def test_the_working_folder_and_what_holds_it_stay(folder, monkeypatch, inside):
    monkeypatch.chdir(folder.path / inside)
    before = files(folder.path)
    for path in (folder.path, folder.path / "figures" / ".."):
        with pytest.raises(UserError, match="is the working folder or holds it"):
            RunFolder(path).start({}, overwrite=True)
    assert files(folder.path) == before


@pytest.mark.parametrize(
    "marker",
    ["{}", '{"model_type": "vit"}', '{"made_by": "me", "files": ["src/*"]}', '{"name": "x"}'],
)
def test_the_config_of_another_program(tmp_path, marker):
    """As of a Hugging Face model, or of a project's sources."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("mine")
    (tmp_path / "run.json").write_text(marker)
    with pytest.raises(UserError, match=r"its run.json is another program's"):
        RunFolder(tmp_path).start({}, overwrite=True)
    assert files(tmp_path) == ["run.json", "src/a.py"]


@pytest.mark.parametrize(
    "pattern", ["../mine.txt", "{base}/mine.txt", "figures/../../mine.txt", "**/../../mine.txt", ""]
)
def test_a_marker_that_names_what_lies_elsewhere(folder, pattern):
    """Nothing outside of the folder is deleted; a path that cannot be a pattern is refused."""
    mine = folder.path.parent / "mine.txt"
    mine.write_text("mine")
    marked(folder.path, files=[pattern.replace("{base}", str(folder.path.parent)), "run.json"])
    try:
        folder.start({}, overwrite=True)
    except UserError as error:
        assert "run.json is damaged" in str(error)
    assert mine.read_text() == "mine"
    assert (folder.path / "notes.txt").exists()


def test_links_are_not_followed(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "confusion.png").write_text("mine")
    (elsewhere / "metrics.jsonl").write_text("mine")
    (folder.path / "figures" / "mine.png").unlink()
    (folder.path / "figures").rmdir()
    (folder.path / "figures").symlink_to(elsewhere)
    (folder.path / "metrics.jsonl").symlink_to(elsewhere / "metrics.jsonl")
    folder.start({}, overwrite=True)
    assert files(elsewhere) == ["confusion.png", "metrics.jsonl"]
    assert not (folder.path / "metrics.jsonl").exists()


def test_a_replacement_that_is_stopped_half_way_goes_on(folder, monkeypatch):
    """The marker is the last to go, so that the folder is known for a run's to the end."""
    replace, moved = Path.replace, []

    def stop(path, target):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(path.name)
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop)
        folder.start({}, overwrite=True)
    assert moved and "run.json" not in moved
    folder.start({"options": {"lr": 1}}, overwrite=True)
    assert folder.read_run() == {"options": {"lr": 1}}
    assert files(folder.path) == ["figures/mine.png", "notes.txt", "run.json"]


def test_what_a_kill_left_is_removed_by_the_next_holder(folder):
    left = folder.path / ".checkpoint.pt.x1y2.tmp"
    left.touch()
    (folder.path / ".model_step7.pkl.x1y2.tmp").touch()
    (folder.path / ".mine.tmp").touch()
    with folder.hold():
        hidden = [path.name for path in folder.path.iterdir() if path.name.startswith(".")]
    assert sorted(hidden) == [".lock", ".mine.tmp"]


def test_flipped_bytes_of_a_checkpoint_are_seen(tmp_path):
    """Each of a hundred, anywhere in the file, is refused or changes nothing that is loaded."""
    folder = RunFolder(tmp_path)
    state = {"weight": torch.arange(500.0), "step": 7, "names": ["a", "b"]}
    folder.save_checkpoint(state)
    whole = folder.checkpoint_path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= bit
        folder.checkpoint_path.write_bytes(damaged)
        try:
            loaded = folder.load_checkpoint(state)
        except UserError as error:
            refused += 1
            assert "checkpoint.pt" in str(error), place
            continue
        assert torch.equal(loaded["weight"], state["weight"]), place
        assert (loaded["step"], loaded["names"]) == (7, ["a", "b"]), place
    assert refused > 50


def test_sums_of_what_is_no_archive(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK" + bytes(100))
    with pytest.raises(UserError, match=r"checkpoint.pt' is damaged"):
        check_sums(tmp_path / "checkpoint.pt")


def test_environments_are_listed_and_a_change_is_said(tmp_path, capsys, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.start({"options": {}})
    folder.resume({"options": {}})
    (first,) = json.loads(folder.marker_path.read_text())["environments"]
    assert capsys.readouterr().err == ""
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    folder.resume({"options": {}})
    error = capsys.readouterr().err
    assert f"goes on with threads {threads + 1} where it had {threads}" in error
    assert "will differ in its last bits" in error
    both = json.loads(folder.marker_path.read_text())["environments"]
    assert [each["threads"] for each in both] == [threads, threads + 1]
    assert both[0] == first


def test_a_lost_line_of_the_metrics_is_named(tiny, tmp_path):
    tiny.train(tmp_path, epochs=2)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[1])
    with pytest.raises(UserError, match="has 1 lines up to step 8, where the run has written 2"):
        tiny.train(tmp_path, epochs=2)


def test_the_result_is_kept_where_the_figure_fails(tmp_path, write_folder, monkeypatch):
    """And --resume makes what is left."""
    from core_tuning.cli import main
    from core_tuning.training import classify

    data = write_folder(tmp_path / "data", {"train": 8, "val": 4})
    argv = [
        "finetune", "--dataset", "folder", "--data-dir", str(data), "--pretrained", "embedded",
        "--transforms", "small", "--image-size", "16", "--batch-size", "8", "--epochs", "1",
        "--workers", "0", "--output", str(tmp_path / "run"),
    ]  # fmt: skip

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(classify, "write_run_report", fail)
        assert main(argv) == 130
    result = (tmp_path / "run" / "result.json").read_bytes()
    assert main([*argv, "--resume"]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    assert json.loads((tmp_path / "run" / "result.json").read_bytes()) == json.loads(result)
