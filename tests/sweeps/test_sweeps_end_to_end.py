"""The commands of a run do what its definition says: they make its folder, and the file of done.

What they leave is what the report reads.
"""

from __future__ import annotations

import csv
import json

import pytest

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.folder import start_sweep
from core_tuning.sweeps.plan import DOMAINBED, FOLDER, known_options

TINY = {
    "fraction": "0.1", "batch_size": "16", "image_size": "16", "limit_steps": "1", "workers": "0",
    "evaluate.n": "8", "evaluate.attacks": "fgsm", "evaluate.workers": "0",
    "evaluate.masking_checks": "false",
}  # fmt: skip


def test_each_part_of_emoji_ends_with_its_file(tmp_path):
    """Twice, because --resume must both start a run and leave a finished one alone."""
    pytest.importorskip("torchattacks")
    sweep = load_sweep("emoji", small=True, seeds=[4], settings=TINY)
    first = {run.cell["part"]: run for run in reversed(sweep.runs)}
    place = start_sweep(tmp_path / "sweep", sweep)
    assert set(first) == {"ablation", "domains", "adversarial", "plain"}
    for part, run in first.items():
        folder = place.run_path(run.id)
        for attempt in range(2):
            assert (folder / run.done).exists() == bool(attempt), part
            for step in run.argvs("{folder}"):
                words = [str(folder) if word == FOLDER else word for word in step]
                assert main(words) == 0
        assert json.loads((folder / "run.json").read_text())["seed"] == 4
    report = json.loads((place.run_path(first["plain"].id) / first["plain"].done).read_text())
    measured = {(row["norm"], row["eps"]) for row in report["rows"]}
    linf = {("linf", numerator / 255) for numerator in (2, 4, 8)}
    assert measured == {("l2", 0.5), ("l2", 1.5), ("l2", 2.5)} | linf
    check_report(place, first)


def check_report(place, runs):
    """The report has the four runs' own numbers."""
    assert main(["sweep", "report", "emoji", "--output", str(place.path), "--no-page"]) == 0
    with (place.path / "report" / "values.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["id"] for line in lines} == {run.id for run in runs.values()}
    assert {line["part"]: line["seed"] for line in lines} == dict.fromkeys(runs, "4")
    (value,) = [line["value"] for line in lines if line["part"] == "ablation"]
    result = json.loads((place.run_path(runs["ablation"].id) / "result.json").read_text())
    assert float(value) == pytest.approx(result["test"]["top1"], abs=1e-4)
    plain = [line for line in lines if line["part"] == "plain"]
    assert {line["quantity"] for line in plain} == {"clean", "FGSM"}
    assert len(plain) == 2 * 6
    domains = [line for line in lines if line["part"] == "domains"]
    assert len(domains) == 2 and {line["target"] for line in domains} == {"fluent"}


def test_options_of_domainbed_are_those_of_its_script():
    from core_tuning.algorithms.checkout import find_checkout
    from core_tuning.algorithms.domainbed import script_path
    from core_tuning.algorithms.script_options import options_of

    try:
        root = find_checkout()
    except UserError as error:
        pytest.skip(str(error))
    known = {name.lstrip("-") for name in options_of(script_path(root, "train"))}
    ours = {"trial_seed", "seed", "output_dir"}
    assert known - ours == set(known_options(DOMAINBED)) - {"workers"}
