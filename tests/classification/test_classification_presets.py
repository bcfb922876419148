from __future__ import annotations

import csv
from pathlib import Path

import pytest

import core_tuning
from core_tuning.config import Finetune
from core_tuning.data.catalogue import DATASETS
from core_tuning.methods import METHODS
from core_tuning.presets import preset

PRESET_OPTIONS = tuple(preset("emoji_domains"))
TABLE = Path(core_tuning.__file__).parent / "paper_tables" / "table11_hyperparameters.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines()))
# Another value of each option, as it is typed and as it is parsed.
OTHER_VALUES = {
    "epochs": ("7", 7),
    "batch_size": ("12", 12),
    "eta": ("0.5", 0.5),
    "alpha": ("0.3", 0.3),
    "lr": ("0.123", 0.123),
    "schedule": ("exponential", "exponential"),
    "temperature": ("0.2", 0.2),
    "lambda_n": ("0.4", 0.4),
    "weight_decay": ("0.0", 0.0),
    "momentum": ("0.0", 0.0),
    "projection_dim": ("64", 64),
    "projection_depth": ("3", 3),
}


def parse(argv):
    return Finetune.read("core-tuning finetune", argv)


def value_of(options, name):
    return options.hyperparameters.get(name, getattr(options, name, None))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["dataset"])
def test_table_11(row):
    options = parse(["--dataset", row["dataset"]])
    assert options.schedule == row["schedule"]
    for name, text in row.items():
        if name not in ("dataset", "schedule"):
            assert value_of(options, name) == float(text), name
    for name in ("epochs", "batch_size", "projection_dim", "projection_depth"):
        assert type(value_of(options, name)) is int


def test_the_whole_table_is_read():
    assert len(ROWS) == 10
    assert {row["dataset"] for row in ROWS} < set(DATASETS)
    assert set(ROWS[0]) == {"dataset", *OTHER_VALUES}


def test_the_variants_of_the_paper():
    """Appendix C.2: SGD with Nesterov momentum, except on ImageNet20."""
    assert not parse(["--dataset", "imagenet20"]).nesterov
    assert parse(["--dataset", "cifar100"]).nesterov
    assert parse(["--dataset", "imagenet20", "--nesterov"]).nesterov
    assert not parse(["--dataset", "cifar100", "--no-nesterov"]).nesterov
    assert preset("flowers_kaggle") == preset("flowers")


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_preset_is_complete_and_overridable(dataset):
    assert set(preset(dataset)) == set(PRESET_OPTIONS) == {*OTHER_VALUES, "nesterov"}
    for name, (text, value) in OTHER_VALUES.items():
        options = parse(["--dataset", dataset, f"--{name.replace('_', '-')}", text])
        assert value_of(options, name) == value
        for other in OTHER_VALUES.keys() - {name}:
            assert value_of(options, other) == preset(dataset)[other]


def test_a_preset_is_not_changed_by_its_reader():
    preset("emoji_domains")["lr"] = 99
    assert preset("emoji_domains")["lr"] != 99


def test_mixing_defaults_to_what_the_method_needs():
    assert parse([]).hyperparameters["mixing"] == "hard"
    assert parse(["--method", "ce"]).hyperparameters["mixing"] == "none"
    assert "mixing" not in parse(["--method", "ce_con"]).hyperparameters


def test_default_outputs_do_not_collide():
    assert len({parse(["--method", method]).output for method in METHODS}) == len(METHODS)
