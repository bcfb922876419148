"""Names that no file can have, what is no ordinary file, depths and numbers beyond reason."""

from __future__ import annotations

import os

import pytest

SMALL = (
    "--dataset folder --data-dir data --pretrained embedded --transforms small --image-size 16 "
    "--batch-size 8 --epochs 1 --workers 0 --output out"
)
DG = (
    "dg --dataset toys --data_dir . --image-size 16 --steps 1 --workers 0 --output_dir out "
    '--hparams {"checkpoint":"embedded","batch_size":4}'
)
DEEP = "[" * 5000 + "]" * 5000
LONG, NUL, NEWLINE = "n" * 300, "a%00b", "a%0Ab"
TOML = 'title = "mine"\ncommand = "finetune"\n'


# command line, what lies in the working folder, what the sentence says.
ROWS = [
    # Commands.
    ("finetun", {}, "the command 'finetun': did you mean 'finetune'"),
    ("%00", {}, "NUL"),
    ("robust trian", {}, "the command 'robust trian': did you mean 'robust train'"),
    ("sweep rum", {}, "'sweep rum': did you mean 'sweep run'"),
    ("domainbed instal", {}, "'domainbed instal': did you mean 'domainbed install'"),
    # Names.
    *((f"finetune {SMALL} --data-dir {name}", {}, sentence) for name, sentence in (
        (LONG, "nnn.*(too long|is not|does not)"), (NUL, "NUL"), ("gone", "gone does not exist"))),
    *((f"finetune {SMALL} --output {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"), ("data/train/ant/0.png/x", "is a file"))),
    *((f"finetune {SMALL} --pretrained {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"), ("gone.pth", "gone.pth"))),
    *((f"evaluate {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"), ("gone", "gone does not exist"))),
    *((f"robust evaluate {name}", {}, sentence) for name, sentence in (
        (LONG, "does not exist"), (NUL, "NUL"), ("gone", "gone.* does not exist"))),
    *((f"inspect {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"), ("gone", "gone"))),
    *((f"{DG} --output_dir {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"))),
    *((f"{DG} --data_dir {name}", {}, sentence) for name, sentence in (
        (LONG, "nnn.* does not exist"), (NUL, "NUL"), ("gone", "gone"))),
    *((f"demo --output {name}", {}, sentence) for name, sentence in (
        (LONG, "too long"), (NUL, "NUL"))),
    *((f"sweep status mine --output {name}", {}, sentence) for name, sentence in (
        ("gone", "gone is not"),)),
    (f"sweep run mine.toml --output {NUL}", {}, "NUL"),
    # What is no ordinary file.
    *((f"finetune {SMALL} --pretrained odd.pth", {"odd.pth": how}, "odd.pth") for how in (
        "a pipe", "a device", "a folder")),
    *((f"finetune {SMALL} --data-dir odd", {"odd": how}, "odd") for how in ("a pipe", "a device")),
    *((f"finetune {SMALL} --output odd", {"odd": how}, "odd") for how in ("a pipe", "a device")),
    ("robust evaluate --module odd.py:f --dataset folder --data-dir data --image-size 16",
     {"odd.py": "a pipe"}, "odd.py"),
    *((f"sweep run {name}.toml --output s", {f"{name}.toml": how}, name)
      for name, how in (("odd", b"\xff"), ("odd", "a folder"))),
    ("sweep run odd.toml --output s", {"odd.toml": "a pipe"}, "odd.toml"),
    # Depths, types and numbers of what is parsed.
    *((f"{DG} --hparams {text}", {}, "hparams|hyper-parameter|NUL") for text in (
        DEEP, "3", "[]", "{", '{"lr":NaN}', '{"lr":1e999}', '{"lr":"x"}', '{"eta":[1]}',
        '{"batch_size":1e30}', '{"batch_size":true}', '{"lr":null}', '{"etta":1}', "%00")),
    ("sweep run odd.toml --output s", {"odd.toml": f"{TOML}x = {DEEP}".encode()}, "odd.toml"),
    ("sweep run odd.toml --output s", {"odd.toml": f"{TOML}[options]\nlr = nan".encode()},
          "lr is nan"),
    ("sweep run odd.toml --output s", {"odd.toml": f"{TOML}[axes]\nlr = [inf]".encode()},
          "lr is inf"),
    ("sweep run odd.toml --output s",
          {"odd.toml": f"{TOML}seeds = [1000000000000000000000000]".encode()}, "seeds"),
    ("sweep run mine.toml --output s --seeds 1000000000000000000000000", {}, "seeds"),
    ("sweep run mine.toml --output s --set lr=nan", {}, "lr is nan"),
    ("sweep run mine.toml --output s --price nan", {}, "--price is nan"),
    ("sweep run mine.toml --output s --tflops nan", {}, "--tflops is nan"),
    ("sweep run mine.toml --output s --workers 0", {}, "--workers is 0"),
    ("sweep status sweep --output sweep --every nan", {}, "--every is nan"),
    ("sweep retry mine --output sweep nothing", {}, "'nothing' is not a failed run"),
    ("sweep report gone", {}, "no sweep 'gone'"),
    *((f"domainbed {command}", {}, "run 'core-tuning domainbed install'") for command in (
        "train", "train --dataset PACS", "sweep launch", "collect_results", "list_top_hparams")),
    ("domainbed install --source gone", {}, "gone"),
    ("domainbed install --commit", {}, "--commit"),
    ("domainbed doctor --data_dir gone", {}, "gone"),
    ("domainbed doctor --data_dir odd", {"odd": "a pipe"}, "odd"),
    ("domainbed enable x", {}, "x"),
    ("domainbed disable x", {}, "x"),
    # Numbers that are texts of a kind of their own.
    *((f"robust evaluate run --l2 {eps} --linf", {}, "eps|--l2") for eps in (
        "1e300", "nan", "inf", "-1", "0", "1/0", "1e999/255", "x", "9" * 400)),
    *((f"robust evaluate run --n {n}", {}, "--n is") for n in ("1e300", "-1", "nan", "0", "x")),
    *((f"robust train {SMALL} --eps {eps}", {}, "eps") for eps in (
        "1e300", "nan", "inf", "-1", "1/0", "9" * 400)),
    *((f"robust train {SMALL} --step-size {size}", {}, "step.size") for size in (
        "nan", "inf", "-1", "0", "1/0")),
    *((f"{DG} --test_envs {env}", {}, "--test[_-]envs") for env in (
        "-1", "99", "nan", str(10**30), "0 0", "0 1 2", "x")),
]  # fmt: skip


def named(row):
    spoilt = " ".join(f"{file} {how}"[:40] for file, how in row[1].items())
    return pytest.param(*row, id=f"{row[0][:80]}... {row[0][-40:]} {spoilt}".replace("\0", ""))


@pytest.mark.parametrize(("line", "spoilt", "sentence"), [named(row) for row in ROWS])
def test_an_odd_input(room, capfd, line, spoilt, sentence):
    room.bring_what_is_named(line, *spoilt)
    for file, how in spoilt.items():
        room.spoil(file, how)
    room.refuse(capfd, line, sentence)


@pytest.mark.parametrize("where", ["data/train/%", "data/val/%", "toys/x/%"])
def test_a_class_whose_name_is_not_utf_8(room, capfd, where):
    """Before any epoch, not after all of them."""
    room.bring("data", "toys")
    folder = os.fsencode(room.path / where.replace("%", "")) + b"/caf\xe9"
    (room.path / where.replace("%", "ant")).rename(os.fsdecode(folder))
    line = f"finetune {SMALL}" if where.startswith("data") else DG
    room.refuse(capfd, line, r"caf")


def test_an_output_whose_name_is_not_utf_8(room, capfd):
    """Before any epoch: the library that writes the model could not."""
    room.bring("data")
    room.refuse(capfd, f"finetune {SMALL} --output caf\udce9", "'caf.udce9'")


def test_a_grid_of_a_billion_runs_is_not_expanded(room, capfd):
    axes = "\n".join(f"{name} = {list(range(1, 1001))}" for name in ("epochs", "batch_size"))
    room.spoil("mine.toml", f"{TOML}[grid]\nlr = {list(range(1, 1001))}\n{axes}\n".encode())
    room.seconds = 3
    room.refuse(capfd, "sweep run mine.toml --output s --dry-run", "1,000,000,000 runs")
