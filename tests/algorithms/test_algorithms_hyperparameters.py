"""Defaults, random ranges and checks of the three algorithms' hyper-parameters."""

from __future__ import annotations

import json

import pytest

from core_tuning.algorithms.hyperparameters import (
    ALGORITHMS,
    CHECKPOINT_VARIABLE,
    check_hparams,
    default_hparams,
    own_hparams,
    random_hparams,
)
from core_tuning.algorithms.names import seed_hash
from core_tuning.errors import UserError
from core_tuning.methods import PAPER_GRID


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_are_domainbeds_and_the_papers(algorithm):
    hparams = default_hparams(algorithm, "PACS", steps=100)
    assert (hparams["lr"], hparams["batch_size"]) == (5e-5, 32)
    assert hparams["freeze_bn"] is True
    assert hparams["total_steps"] == 100
    assert hparams["encoder"] == "resnet50"
    assert default_hparams(algorithm, "EmojiDomains")["lr"] == 1e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dataset", ["PACS", "EmojiDomains", "Debug28"])
def test_random_draws_are_deterministic_plain_and_inside_their_ranges(algorithm, dataset):
    low, high = (-5, -3.5) if dataset == "PACS" else (-4.5, -2.5)
    draws = [random_hparams(algorithm, dataset, seed) for seed in range(60)]
    for seed, drawn in enumerate(draws):
        assert drawn == random_hparams(algorithm, dataset, seed)
        assert {type(value) for value in drawn.values()} <= {bool, int, float, str}
        assert json.loads(json.dumps(drawn)) == drawn
        check_hparams(algorithm, drawn)
        assert 10**low <= drawn["lr"] <= 10**high
        assert 1e-6 <= drawn["weight_decay"] <= 1e-2
        assert 8 <= drawn["batch_size"] <= 45
        assert drawn["resnet_dropout"] in (0.0, 0.1, 0.5)
    varying = {name for name in draws[0] if len({drawn[name] for drawn in draws}) > 1}
    expected = {"lr", "weight_decay", "batch_size", "resnet_dropout"}
    expected |= {"eta"} if algorithm != "CETuning" else set()
    expected |= {"alpha"} if algorithm != "CECon" else set()
    assert varying == expected
    for name in varying & {"eta", "alpha"}:
        assert {drawn[name] for drawn in draws} == set(PAPER_GRID)


def test_checkpoints_come_from_the_data_set_or_the_variable(monkeypatch):
    monkeypatch.delenv(CHECKPOINT_VARIABLE, raising=False)

    def checkpoints():
        names = ("PACS", "EmojiDomains", "Debug28", "Debug224")
        return [default_hparams("CECon", name)["checkpoint"] for name in names]

    assert checkpoints() == ["", "embedded", "random", "random"]
    monkeypatch.setenv(CHECKPOINT_VARIABLE, "moco.pth")
    assert checkpoints() == ["moco.pth", "embedded", "random", "random"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tempreature": 0.1}, "no hyper-parameter 'tempreature': did you mean 'temperature'"),
        ({"zzz": 1}, "no hyper-parameter 'zzz': it has data_augmentation"),
        ({"resnet18": True}, "name one with 'encoder'"),
        ({"lr": "high"}, "lr is 'high': expected a number"),
        ({"freeze_bn": 1}, "freeze_bn is 1: expected true or false"),
        ({"batch_size": 1.5}, "batch_size is 1.5: expected an integer"),
        ({"lr": 0.0}, "lr is 0.0: expected above 0"),
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"resnet_dropout": 1.0}, "resnet_dropout is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0: expected at least 0"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_name(given, said):
    with pytest.raises(UserError, match=said):
        check_hparams("CoreTuning", given)


def test_one_json_serves_all():
    given = {"alpha": 2.0, "eta": 1.0, "lr": 0.1}
    kept = {}
    for name in ALGORITHMS:
        check_hparams(name, given)
        kept[name] = own_hparams(name, given)
    assert kept == {
        "CoreTuning": given, "ReleasedCoreTuning": given, "CECon": {"lr": 0.1, "eta": 1.0},
        "CETuning": {"lr": 0.1, "alpha": 2.0},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"CETuning has no hyper-parameter 'alfa'.*'alpha'"):
        check_hparams("CETuning", {"alfa": 2.0})


def test_seeds_are_those_of_domainbed():
    # Computed by misc.seed_hash of DomainBed at b93c22a.
    assert seed_hash("EmojiDomains", "CoreTuning", [1], 0, 0) == 2115739776
    assert seed_hash("EmojiDomains", "ERM", [1], 0, 0) == 1913300339
