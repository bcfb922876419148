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
FEW = {name: KINDS[name] for name in ("cut", "a list", "NULs", "a pipe")}
REDESIGN = pytest.mark.xfail(strict=True, reason="mended with the redesign")

SWEEP = ("run mine.toml --output sweep", "status mine --output sweep", "retry mine --output sweep",
         "report mine --output sweep")  # fmt: skip
MODELS = (
    "cut",
    b"",
    NULS,
    b"{}",
    "a pipe",
    "a device",
    "a foreign model",
    "nested facts",
    "few facts",
)
# command line -> file of JSON -> how it is spoilt besides KINDS -> what the sentence says.
JSON = {
    "@run --resume": {
        "run/config.json": {
            "another program's": ({"made_by": "other"}, "is another program's"),
            "another version": ({"format_version": 99}, "format version 99"),
            "no format": ({"format_version": None}, "format version None"),
            "config is a list": ({"config": []}, r"'config' is \[\]"),
            "environments are a number": ({"environments": 3}, "'environments' is 3"),
            "environments are texts": ({"environments": ["x"]}, "config.json is damaged"),
        },
        "run/result.json": {
            "nothing": (b"{}", "'dataset' is None"),
            "test is a text": ({"test": "x"}, "'test' is 'x'"),
        },
    },
    "@run --overwrite": {"run/config.json": {"no files": ({"files": None}, "'files' is None")}},
    "@run --seeds 0 1 --output two": {"two/summary.json": {
        "another program's": (b"{}", "is another program's"),
    }},
    "evaluate run --workers 0": {"run/config.json": {
        "config is a list": ({"config": []}, r"'config' is \[\]"),
        "fraction is a text": ({"config": {"fraction": "x"}}, "'fraction' is 'x'"),
        "data_dir is a number": ({"config": {"data_dir": 3}}, "'data_dir' is 3"),
    }},
    "robust evaluate run --workers 0 --output out": {
        "run/config.json": {"config is a list": ({"config": []}, r"'config' is \[\]")},
        "run/result.json": {"no selection": (b"{}", "'selection' is None")},
    },
    "@evaluation --resume": {"evaluation/config.json": {}},
    "@dg --resume": {"dg/config.json": {"hparams is a text": ({"config": {"hparams": "x"}}, "was started with")}},
    "demo --output demo --resume": {"demo/config.json": {}},
    "demo --output demo --overwrite": {"demo/config.json": {"files is a text": (
        {"files": "x", "made_by": "core-tuning", "format_version": 1}, "'files' is 'x'")}},
    "dg @dg": {},
    **{f"sweep {command}": {"sweep/sweep.json": {
        "no runs": ({"runs": 3}, "sweep.json is damaged"),
        "empty runs": ({"runs": [{}]}, "sweep.json is damaged"),
        "the definition is a number": ({"definition": 3}, "sweep.json is damaged"),
        "the definition is no TOML": ({"definition": "["}, "is not valid TOML"),
    }} for command in SWEEP},
}  # fmt: skip
del JSON["dg @dg"]
QUICK = ("@run --resume", "@dg --resume", *(f"sweep {command}" for command in SWEEP))
# Of a run that is not finished.
UNFINISHED = {"run/result.json": "gone"}
ROWS = {"evaluation/rows.jsonl": b"", "evaluation/report.json": "gone"}
CHECKPOINTS = {
    "cut": "cut", "empty": b"", "text": b"To whom it may concern", "NULs": NULS, "a pipe": "a pipe",
    "a device": "a device", "a folder": "a folder", "another's": "a foreign checkpoint",
    "of nothing": "a checkpoint of nothing",
}  # fmt: skip
LINES = {"a list": b"[]\n", "NULs": NULS + b"\n", "no step": b"{}\n", "a text": b'"x"\n',
         "nested": DEEP + b"\n", "a pipe": "a pipe", "a folder": "a folder"}  # fmt: skip
OTHERS = [
    *(
        ("@run --resume", {**UNFINISHED, "run/checkpoint.pt": how}, "run/checkpoint.pt")
        for how in CHECKPOINTS.values()
    ),
    *(
        ("@dg --resume", {"dg/done": "gone", "dg/checkpoint.pt": how}, "dg/checkpoint.pt")
        for how in CHECKPOINTS.values()
    ),
    *(
        ("@run --resume", {**UNFINISHED, "run/metrics.jsonl": how}, "run/metrics.jsonl")
        for how in (*LINES.values(), b"", "cut", "gone", b'{"step": "1"}\n', b'{"step": 2}\n')
    ),
    *(
        ("@run --resume", {**UNFINISHED, "run/model.safetensors": how}, "run/model.safetensors")
        for how in ("cut", b"", NULS, "gone", "a pipe", "a folder")
    ),
    *(
        ("@dg --resume", {"dg/results.jsonl": how}, "dg/results.jsonl")
        for how in (*LINES.values(), b"", "gone", b'{"step": "x"}\n')
    ),
    *(
        ("@dg --resume", {"dg/selection.json": how}, "dg/selection.json")
        for how in (b"{}", b"[]", b"", NULS, "a pipe", "a folder")
    ),
    *(
        ("@evaluation --resume", {"evaluation/rows.jsonl": how}, "evaluation/rows.jsonl")
        for how in (*LINES.values(), b'{"attack": 3}\n')
    ),
    *(
        ("@evaluation --resume", {"evaluation/masking.jsonl": how}, "evaluation/masking.jsonl")
        for how in (b"[]\n", NULS + b"\n", b"{}\n")
    ),
    *(
        ("@evaluation --resume", {**ROWS, "evaluation/.row.json": how}, "evaluation/.row.json")
        for how in (b"[]", NULS, b"", b'{"key": ["pgd10", "l2", 0.3], "groups": 3}')
    ),
    *(
        (f"{command} {path}", {path: how}, path)
        for path in ("run/model.safetensors", "model.safetensors")
        for command, hows in (
            ("evaluate", MODELS),
            ("inspect", MODELS),
            ("robust evaluate --workers 0", MODELS),
        )
        for how in hows
    ),
    *(
        (f"sweep {command}", {"sweep/progress/*.json": how}, "progress")
        for command in ("status mine --output sweep",)
        for how in (b"[]", b"{}", "a folder")
    ),
    *(
        (
            "sweep status mine --output sweep",
            {"sweep/runs/*/result.json": "gone", "sweep/failures/x.json": b""},
            "failures",
        )
        for _ in ()
    ),
    ("sweep report mine --output sweep", {"sweep/runs/*/result.json": b"[]"}, "result.json"),
    ("sweep report mine --output sweep", {"sweep/runs/*/result.json": "a folder"}, "result.json"),
]


def rows():
    for line, files in JSON.items():
        for file, more in files.items():
            kinds = KINDS if line in QUICK else FEW
            for name, how in kinds.items():
                yield pytest.param(line, {file: how}, file, id=f"{line}: {file} is {name}")
            for name, (how, sentence) in more.items():
                yield pytest.param(line, {file: how}, sentence, id=f"{line}: {file}, {name}")
    for line, spoilt, sentence in OTHERS:
        what = ", ".join(f"{file} {str(how)[:30]}" for file, how in spoilt.items())
        yield pytest.param(line, spoilt, sentence, id=f"{line}: {what}")


@pytest.mark.parametrize(("line", "spoilt", "sentence"), rows())
def test_a_damaged_file(room, capfd, line, spoilt, sentence):
    room.bring_what_is_named(line, *spoilt)
    for file, how in spoilt.items():
        room.spoil(file, how)
    room.refuse(capfd, line, sentence)
