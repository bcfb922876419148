"""Every shipped definition is accepted by the commands that it names and by the paper's tables."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from core_tuning.algorithms.environments import load_environments
from core_tuning.commands import COMMANDS
from core_tuning.errors import UserError
from core_tuning.robustness.adversary import adversarial
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.plan import FOLDER
from core_tuning.sweeps.reading import read_definition, sweep_names

NAMES = sweep_names()
# Cells that claim a number of the paper, and all cells.
CLAIMS = {
    "table01": (27, 27), "table02": (45, 45), "table05": (8, 8), "table08": (24, 24),
    "table08_domainbed": (24, 24), "table09": (18 + 6, 19), "table13": (12, 12),
    "table14": (18 + 6, 21), "table22": (9, 9), "table23": (3, 3), "table24": (4, 4),
    "eta_alpha": (0, 9), "temperature": (0, 5), "projection": (0, 9),
    "emoji": (0, 10 + 16 + 18 + 2), "emoji_robustness": (0, 12 + 1),
    "emoji_robustness_grid": (0, 3 + 18),
}  # fmt: skip


def parse(step, folder):
    """Parse a step by the parser of the command that it starts."""
    words = [str(folder) if word == FOLDER else word for word in step]
    size = 2 if words[0] == "robust" else 1
    name = " ".join(words[:size])
    return COMMANDS[name].options_class().read(name, words[size:])


def settings():
    return [(name, False) for name in NAMES] + [("emoji", True)]


@pytest.mark.parametrize(("name", "small"), settings())
def test_every_command_line_is_accepted(name, small, tmp_path):
    for run in load_sweep(name, small=small).runs:
        for step in run.argvs("{folder}"):
            if step[0] == "domainbed":
                continue
            options = parse(step, tmp_path)
            if step[:2] == ["robust", "train"]:
                adversarial(options)
            if step[:2] != ["robust", "evaluate"]:
                assert options.seeds == [run.seed]
            assert options.resume


def test_a_typing_error_would_not_be_accepted(tmp_path):
    (run, *_) = load_sweep("emoji", small=True).runs
    with pytest.raises(UserError, match="--metod"):
        parse([word.replace("--method", "--metod") for word in run.argvs("{folder}")[0]], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_hyper_parameter_of_dg_is_accepted(name):
    from core_tuning.algorithms.hyperparameters import check_hparams

    for run in load_sweep(name).runs:
        for step in run.argvs("{folder}"):
            if step[0] in ("dg", "domainbed") and "--hparams" in step:
                check_hparams("CoreTuning", json.loads(step[step.index("--hparams") + 1]))


@pytest.mark.parametrize("name", NAMES)
def test_claims_of_the_paper(name):
    """load_sweep itself refuses a claim that has not exactly one row."""
    sweep = load_sweep(name)
    claims = sweep.paper
    cells = {json.dumps(run.cell) for run in sweep.runs}
    assert (len(claims), len(cells)) == CLAIMS[name]
    assert {json.dumps(claim["cell"]) for claim in claims} <= cells
    counts = Counter(json.dumps([claim["cell"], claim["measure"]]) for claim in claims)
    assert set(counts.values()) <= {1}
    assert all(0 < value <= 100 for claim in claims for value in claim["values"].values())


def claim_of(name, **wanted):
    (found,) = [
        claim for claim in load_sweep(name).paper
        if wanted.items() <= {**claim["cell"], **(claim["measure"] or {})}.items()
    ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("name", "wanted", "values", "stderr"),
    [
        ("table01", {"row": "CE-Con", "dataset": "pets"}, {"top1": 89.71}, 0.20),
        ("table02", {"row": "manifold mixup", "dataset": "flowers"}, {"top1": 98.74}, 0.11),
        ("table05", {"row": "CE", "share": "10%"}, {"top1": 52.97}, 3.96),
        ("table08", {"row": "CE", "target": "VLCS, SUN09"}, {"accuracy": 64.98}, None),
        ("table13", {"row": "CE-Con", "target": "OfficeHome, real world"}, {"accuracy": 74.99},
         None),
        ("table09", {"row": "AT-CE", "budget": "linf 8/255"}, {"robust": 69.27, "clean": 92.79},
         None),
        ("table14", {"row": "CE", "dataset": "dtd", "norm": "l2"},
         {"robust": 42.25, "clean": 71.68}, None),
        ("table22", {"row": "lambda_p 0"}, {"top1": 92.73}, None),
        ("table23", {"row": "generated only"}, {"top1": 97.31}, 0.09),
        ("table24", {"row": "Core-tuning, no smooth classifier"}, {"top1": 96.13}, 0.11),
    ],
)  # fmt: skip
def test_printed_values(name, wanted, values, stderr):
    claim = claim_of(name, **wanted)
    assert claim["values"] == values
    assert claim["stderr"] == stderr


def test_targets_of_the_embedded_domains_bear_their_names():
    (part,) = [part for part in read_definition("emoji").parts if part.name == "domains"]
    named = [choice.name for choice in part.axes["target"]]
    assert [choice.options["test_envs"] for choice in part.axes["target"]] == [0, 1, 2, 3]
    assert named == list(load_environments("EmojiDomains", None).names)


def test_eta_and_alpha_are_chosen_on_validation():
    (part,) = read_definition("eta_alpha").parts
    assert part.grid == ["eta", "alpha"]
    assert len({json.dumps(run.cell) for run in load_sweep("eta_alpha").runs}) == 9
