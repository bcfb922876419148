"""Files of an evaluation that are cut, empty or hold something else: one sentence on --resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from core_tuning.cli import main
from core_tuning.robustness import evaluate
from core_tuning.robustness.rows import Rows

DAMAGE = {
    "empty": b"",
    "a list": b"[]\n",
    "a number": b"3\n",
    "null": b"null\n",
    "NULs": bytes(64) + b"\n",
    "half": None,
    "no text": b"\xff\xfe\x00{}\n",
    "another object": b'{"x": 1}\n',
    "nested": b"[" * 100_000 + b"\n",
}
# What nothing is read of, or what only says that nothing has been measured.
HARMLESS = {("rows.jsonl", "empty"), ("masking.jsonl", "empty"), (".row.json", "another object")}
# A last line that a kill cut short is measured again.
CUT = {("rows.jsonl", "half"), ("masking.jsonl", "half")}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def template(tmp_path_factory, write_folder, kit):
    """A run, and an evaluation of it that was killed in its second row, masking checks done."""
    folder = tmp_path_factory.mktemp("template")
    data = write_folder(folder / "data", {"train": 4, "val": 9}, size=20)
    run = kit.write_run(folder / "run", data)
    save = Rows.save

    def stop(self, key, outcome):
        save(self, key, outcome)
        if key.startswith("pgd10"):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rows, "save", stop)
        with pytest.raises(Killed):
            main(command(run))
    check = {"name": "gap", "value": "v", "flagged": False, "ran": True}
    line = {"norm": "l2", "eps": 0.3, "images": 8, "space": "input", "checks": [check]}
    (run / "robustness" / "masking.jsonl").write_text(json.dumps(line) + "\n")
    return run


def command(run):
    arguments = ("robust", "evaluate", run, "--l2", 0.3, "--linf", "--attacks", "fgsm", "pgd10",
                 "--workers", 0, "--batch-size", 5, "--n", 8)  # fmt: skip
    return [str(argument) for argument in arguments]


@pytest.fixture
def copied(template, tmp_path):
    """A copy of that run."""
    return Path(shutil.copytree(template, tmp_path / "copied"))


@pytest.fixture
def stopped(copied, monkeypatch):
    """The command that goes on with the evaluation in that copy; masking checks find nothing."""
    monkeypatch.setattr(evaluate, "check_masking", lambda *arguments, **options: [])
    return [*command(copied), "--resume"]


def damage(path, how):
    contents = path.read_bytes()
    replacement = DAMAGE[how]
    path.write_bytes(contents[: len(contents) // 2] if replacement is None else replacement)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["rows.jsonl", "masking.jsonl", ".row.json"])
def test_a_damaged_file_of_an_evaluation(stopped, copied, capsys, name, how):
    path = copied / "robustness" / name
    assert path.exists()
    damage(path, how)
    if (name, how) in HARMLESS | CUT:
        assert main(stopped) == 0
        return
    before = path.read_bytes()
    capsys.readouterr()
    assert main(stopped) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("core-tuning: error: ") and str(path) in error
    assert "damaged" in error
    # Nothing is thrown away on the way.
    assert path.read_bytes() == before


ROW_VALUES = [
    ("eps", "0.3"), ("n", 2.5), ("correct", None), ("after", {}), ("attack", 7),
    ("zero_gradients", "0"), ("notes", None), ("robust", True), ("images", [1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ROW_VALUES)
def test_a_row_with_a_value_of_another_type(stopped, copied, capsys, name, value):
    path = copied / "robustness" / "rows.jsonl"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, name: value}) + "\n")
    assert main(stopped) == 2
    assert f"'{name}' is {value!r}" in capsys.readouterr().err.splitlines()[-1]


STATES = [
    ("stages", -1), ("stages", 9), ("stages", "0"), ("batches", None), ("batches", -1),
    ("lost", [1]), ("lost", ["1"] * 8), ("lost", [7] * 8), ("lost", [True] * 8), ("lost", None),
    ("counted", 0.5), ("zeros", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), STATES)
def test_a_row_in_progress_with_a_value_of_another_type(stopped, copied, capsys, name, value):
    path = copied / "robustness" / ".row.json"
    held = json.loads(path.read_text())
    held[name] = value
    path.write_text(json.dumps(held))
    assert main(stopped) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{path} is damaged" in error


@pytest.mark.parametrize("checks", [[3], [{"name": "gap"}], {}])
def test_masking_checks_of_another_type(stopped, copied, capsys, checks):
    path = copied / "robustness" / "masking.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": checks}) + "\n")
    assert main(stopped) == 2
    assert "is damaged" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("how", [how for how in DAMAGE if how != "another object"])
@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_damaged_file_of_the_run(copied, kit, capsys, name, how):
    damage(copied / name, how)
    error = kit.refused(capsys, "robust", "evaluate", copied, "--workers", 0, "--output",
                        copied / "out")  # fmt: skip
    assert str(copied / name) in error and "damaged" in error
    assert not (copied / "out").exists()


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("run.json", {"options": []}), ("run.json", {"seed": "0"}),
        ("run.json", {"options": {"fraction": None}}),
        ("run.json", {"options": {"data_dir": 3}}), ("result.json", {"selection": 3}),
    ],
)  # fmt: skip
def test_a_file_of_the_run_with_a_value_of_another_type(copied, kit, capsys, name, contents):
    (copied / name).write_text(json.dumps(contents))
    arguments = ("robust", "evaluate", copied, "--workers", 0, "--output", copied / "out")
    assert "damaged" in kit.refused(capsys, *arguments)
    assert not (copied / "out").exists()
