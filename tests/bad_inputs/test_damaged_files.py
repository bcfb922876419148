"""Files of runs that are cut, empty, of another type, or no files at all."""

from __future__ import annotations

import pytest

NULS, DEEP = bytes(60), b"[" * 100_000
# What any file of JSON may be instead.
KINDS = {
    "cut": "cut", "empty": b"", "a list": b"[]", "NULs": NULS, "a number": b"3", "nested": DEEP,
    "a pipe": "a pipe", "a device": "a device", "a folder": "a folder",
}  # fmt: skip
# Of commands that take longer.
FEW = ("cut", "a list", "NULs", "a pipe")
# What a file of JSON lines may hold, and what a file of tensors may be.
LINES = {
    "a list": b"[]\n", "NULs": NULS + b"\n", "no step": b"{}\n", "a text": b'"x"\n',
    "nested": DEEP + b"\n", "a step of text": b'{"step": "1"}\n', "a pipe": "a pipe",
    "a folder": "a folder",
}  # fmt: skip
TENSORS = {
    "cut": "cut", "empty": b"", "text": b"To whom it may concern", "NULs": NULS, "a pipe": "a pipe",
    "a device": "a device", "a folder": "a folder",
}  # fmt: skip
CHECKPOINTS = {
    **TENSORS, "another program's": "a foreign checkpoint", "of nothing": "a checkpoint of nothing",
}  # fmt: skip
MODELS = {**TENSORS, "another program's": "a foreign model", "of nested facts": "nested facts"}
SWEEP = {command: f"sweep {command} --output sweep" for command in (
    "run mine.toml", "status mine", "retry mine", "report mine")}  # fmt: skip
QUICK = ("@run --resume", "@dg --resume", *SWEEP.values())

# command line -> file of JSON -> how it is spoilt besides KINDS -> what the sentence says.
JSON = {
    "@run --resume": {
        "run/run.json": {
            "another program's": ({"made_by": "other"}, "is another program's"),
            "another version": ({"format_version": 99}, "format version 99"),
            "no format": ({"format_version": None}, "format version None"),
            "options are a list": ({"options": []}, r"'options' is \[\]"),
            "environments are a number": ({"environments": 3}, "'environments' is 3"),
            "environments are texts": ({"environments": ["x"]}, "run.json is damaged"),
        },
        "run/result.json": {
            "nothing": (b"{}", "result.json is damaged .*test"),
            "test is a text": ({"test": "x"}, "result.json is damaged"),
        },
    },
    "@run --overwrite": {"run/run.json": {"no files": ({"files": None}, "'files' is None")}},
    "@run --seeds 0 1 --output two": {
        "two/summary.json": {"another program's": (b"{}", "is another program's")},
    },
    "evaluate run --workers 0": {
        "run/run.json": {
            "options are a list": ({"options": []}, r"'options' is \[\]"),
            "fraction is a text": (
                {"options": {"data_dir": "data", "fraction": "x"}}, "'fraction' is '?x"
            ),
            "data_dir is a number": ({"options": {"data_dir": 3}}, "'data_dir' is 3"),
        }
    },
    "robust evaluate run --workers 0 --output out": {
        "run/run.json": {"options are a list": ({"options": []}, r"run.json is damaged")},
        "run/result.json": {},
    },
    "@evaluation --resume": {"evaluation/run.json": {}},
    "@dg --resume": {
        "dg/run.json": {"other options": ({"options": {"hparams": "x"}}, "was started with")}
    },
    "demo --output demo --resume": {
        "demo/runs.json": {"another program's": ({"made_by": "other"}, "is another program's")}
    },
    "finetune --resume run": {
        "run/run.json": {"another command's": ({"command": "dg"}, "one of 'core-tuning dg', not")}
    },
    **{
        line: {
            "sweep/sweep.json": {
                "no runs": ({"runs": 3}, "sweep.json is damaged"),
                "empty runs": ({"runs": [{}]}, "sweep.json is damaged"),
            }
        }
        for line in SWEEP.values()
    },
}  # fmt: skip
# (command line, file, how it is spoilt by name, what else is) of files that are no JSON.
UNFINISHED = {"run/result.json": "gone"}
UNMEASURED = {"evaluation/rows.jsonl": b"", "evaluation/report.json": "gone"}
OTHERS = [
    ("@run --resume", "run/checkpoint.pt", CHECKPOINTS, UNFINISHED),
    ("@run --resume", "run/metrics.jsonl",
     {**LINES, "empty": b"", "cut": "cut", "gone": "gone", "no epoch": b'{"step": 2}\n'},
     UNFINISHED),
    ("@run --resume", "run/model.safetensors", {**TENSORS, "gone": "gone"}, UNFINISHED),
    ("@dg --resume", "dg/checkpoint.pt", CHECKPOINTS, {"dg/done": "gone"}),
    ("@dg --resume", "dg/results.jsonl",
     {**LINES, "empty": b"", "gone": "gone", "no arguments": b'{"step": 1}\n'}, {}),
    ("@dg --resume", "dg/selection.json", {**KINDS, "another program's": b"{}"}, {}),
    ("@evaluation --resume", "evaluation/rows.jsonl",
     {**LINES, "an attack that is a number": b'{"attack": 3}\n'}, {}),
    ("@evaluation --resume", "evaluation/.row.json",
     {"a list": b"[]", "NULs": NULS, "empty": b"",
      "images are a number": b'{"key": "pgd10 l2 0.3", "lost": 3}'}, UNMEASURED),
    ("evaluate model.safetensors", "model.safetensors",
     {**MODELS, "of few facts": "few facts"}, {}),
    ("robust evaluate model.safetensors --workers 0", "model.safetensors",
     {**MODELS, "of few facts": "few facts"}, {}),
    ("inspect model.safetensors", "model.safetensors", TENSORS, {}),
    (SWEEP["report mine"], "sweep/runs/*/result.json", {"a list": b"[]", "a folder": "a folder"},
     {}),
    (SWEEP["report mine"], "sweep/sweep.json",
     {"of no TOML": {"definition": "["}, "of a number": {"definition": 3}}, {}),
]  # fmt: skip


def row(line, file, name, how, sentence, more=None):
    title = f"{line}: {file} is {name}"
    return pytest.param(line, {**(more or {}), file: how}, sentence, id=title)


def rows():
    for line, files in JSON.items():
        for file, more in files.items():
            for name in KINDS if line in QUICK else FEW:
                yield row(line, file, name, KINDS[name], file)
            for name, (how, sentence) in more.items():
                yield row(line, file, name, how, sentence)
    for line, file, hows, more in OTHERS:
        for name, how in hows.items():
            yield row(line, file, name, how, file.split("*")[-1], more)


@pytest.mark.parametrize(("line", "spoilt", "sentence"), list(rows()))
def test_a_damaged_file(room, capfd, line, spoilt, sentence):
    room.bring_what_is_named(line, *spoilt)
    for file, how in spoilt.items():
        room.spoil(file, how)
    room.refuse(capfd, line, sentence)


@pytest.mark.parametrize("contents", [b"[]", b"{}", NULS, b'{"attempts": 1, "se'])
def test_a_bad_progress_file_of_a_run_does_not_block_its_sweep(room, capfd, contents):
    room.bring("sweep")
    room.spoil("sweep/progress/*.json", contents)
    assert room.run(SWEEP["status mine"]) == 0
    assert "progress" in capfd.readouterr().err
