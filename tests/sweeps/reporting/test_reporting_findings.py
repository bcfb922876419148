"""Claims of a definition, judged by paired differences over seeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core_tuning.report.summary import difference
from core_tuning.robustness.protocols import PROTOCOLS
from core_tuning.sweeps.claims import ATTACKS
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.reading import parse_definition, read_definition, sweep_names
from core_tuning.sweeps.reporting.collect import read_report

DEFINITION = """\
title = "mine"
command = "finetune"
seeds = [0, 1, 2, 3]
rows = [
    { name = "CE", options = { method = "ce" } },
    { name = "Core-tuning", options = { method = "core_tuning" } },
]
axes.dataset = ["dtd", "pets"]
[[finding]]
says = "Core-tuning is better."
"""
BETTER = "better = 'Core-tuning'\nthan = 'CE'\n"
WORSE = "better = 'CE'\nthan = 'Core-tuning'\n"
DIFFERENT = "different = 'CE'\nfrom = 'Core-tuning'\n"


def gains(*by_seed):
    """CE has 50 and the data set's own offset; Core-tuning is better by so much, seed by seed."""

    def percent(run, *facts):
        offset = {"dtd": 0, "pets": 20}[run.cell["dataset"]] + 3 * run.seed
        return 50 + offset + (by_seed[run.seed] if run.cell["row"] == "Core-tuning" else 0)

    return percent


@pytest.fixture
def judged(tmp_path, filled, define):
    """Verdict and evidence of a definition's only claim, after such runs."""

    def judge(claim, percent, which=lambda run: True, text=DEFINITION):
        folder = filled(tmp_path / "sweep", define(claim, text), percent=percent, which=which)
        (finding,) = read_report(folder, "core-tuning").findings
        assert finding.says == "Core-tuning is better."
        return finding.verdict, finding.evidence

    return judge


@pytest.mark.parametrize(
    ("claim", "by_seed", "verdict"),
    [
        (BETTER, (1, 2, 1, 2), "holds here"),
        (WORSE, (1, 2, 1, 2), "does not hold here"),
        (BETTER, (-1, 2, -1, 2), "not shown here"),
        (BETTER, (0, 0, 0, 0), "not shown here"),
        (DIFFERENT, (1, 2, 1, 2), "holds here"),
        (DIFFERENT, (-1, -2, -1, -2), "holds here"),
        (DIFFERENT, (-1, 2, -1, 2), "not shown here"),
    ],
)
def test_verdicts(judged, claim, by_seed, verdict):
    assert judged(claim, gains(*by_seed))[0] == verdict


@pytest.mark.parametrize(("claim", "gain"), [(BETTER, 0.25), (WORSE, 0.25), (DIFFERENT, 0.1)])
def test_equal_differences_tell_nothing(judged, claim, gain):
    """Two pairs of runs on few images come out equal by chance."""
    verdict, evidence = judged(claim, gains(gain, gain), which=lambda run: run.seed < 2)
    assert verdict == "not shown here"
    assert evidence.endswith("All differences are equal, which tells nothing of their spread.")


def test_the_evidence_is_that_of_paired_differences(judged):
    """What seeds and data sets do to both alike does not widen the interval."""
    _, evidence = judged(BETTER, gains(1, 2, 1, 3))
    base = [60.0 + 3 * seed for seed in range(4)]
    values = [each + gain for each, gain in zip(base, (1, 2, 1, 3), strict=True)]
    (interval,) = [
        part for part in difference("Core-tuning", base, values).split(" over ")[0].split(", 95% ")
        if part.startswith("interval")
    ]  # fmt: skip
    assert evidence == (
        f"Core-tuning minus CE: +1.75 points of accuracy, mean of 2 cells, 95% {interval} over 4 "
        "pairs of the same seed."
    )


def test_a_seed_counts_if_all_its_cells_are_finished(judged):
    def which(run):
        return (run.cell["row"], run.cell["dataset"], run.seed) != ("CE", "pets", 3)

    verdict, evidence = judged(BETTER, gains(1, 2, 1, 20), which=which)
    assert "over 3 pairs" in evidence and "+1.33" in evidence
    assert verdict == "not shown here"


def test_one_pair_is_too_few(judged):
    verdict, evidence = judged(BETTER, gains(1, 1, 1, 1), which=lambda run: run.seed == 2)
    assert (verdict, evidence) == (
        "not measured",
        "Core-tuning minus CE: one seed has finished the runs of both, too few to judge.",
    )


def test_where_chooses_cells(judged):
    def percent(run, *facts):
        good = run.cell["row"] == "Core-tuning" and run.cell["dataset"] == "dtd"
        return 50.0 + run.seed + (5 if good else 0) + (run.seed / 10 if good else 0)

    verdict, evidence = judged(f"{BETTER}where = {{ dataset = 'dtd' }}\n", percent)
    assert verdict == "holds here"
    assert "+5.15 points of accuracy, 95%" in evidence


def test_rows_are_compared_on_the_cells_of_both(tmp_path, filled, define):
    """A folder may have been extended by other cells of one row than of the other."""
    path = define(BETTER, DEFINITION)
    filled(tmp_path / "sweep", path, only={"row": ["CE"]}, percent=gains(0, 0, 0, 0))
    only = {"row": ["Core-tuning"], "dataset": ["dtd"]}
    folder = filled(tmp_path / "sweep", path, only=only, percent=gains(1, 2, 1, 2))
    (finding,) = read_report(folder, "core-tuning").findings
    assert finding.evidence.startswith("Core-tuning minus CE: +1.50 points of accuracy, 95%")


def test_a_row_without_runs_is_not_measured(tmp_path, filled, define):
    folder = filled(tmp_path / "sweep", define(BETTER, DEFINITION), only={"row": ["CE"]})
    (finding,) = read_report(folder, "core-tuning").findings
    assert finding.verdict == "not measured"
    assert "no seed has finished the runs of both" in finding.evidence


def test_a_part_without_runs_is_not_measured(tmp_path, filled):
    folder = filled(tmp_path, "table09", only={"part": ["plain"]})
    findings = read_report(folder, "core-tuning").findings
    assert {finding.verdict for finding in findings} == {"not measured"}
    assert "no run of the part 'adversarial'" in findings[0].evidence


def test_quantities_of_robustness(tmp_path, filled):
    def percent(run, *facts):
        better = run.cell["row"] == "AT-Core-tuning" and facts[-1] == "pgd10"
        return 40.0 + run.seed + (3 + run.seed / 10 if better else 0)

    folder = filled(tmp_path, "emoji", small=True, percent=percent)
    report = read_report(folder, "core-tuning")
    said = {f.says: f for f in report.findings if "adversarial training" in f.says}
    verdicts = {says.split(" (")[0].rpartition(" to ")[2]: f.verdict for says, f in said.items()}
    assert verdicts["PGD-10"] == "not shown here"  # the last one, of CE-Con
    held = [says for says, finding in said.items() if finding.verdict == "holds here"]
    assert len(held) == 2 and all("PGD-10" in says and "Core-tuning" in says for says in held)
    assert "points of accuracy under PGD-10, mean of 2 cells" in said[held[0]].evidence


def test_domains_are_judged_by_the_source_domains_choice(tmp_path, kit, filled):
    """The source domains choose the first step, where Core-tuning is better; it is not at last."""
    folder = filled(tmp_path, "table08", only={"target": ["PACS, photo"]})
    for run in folder.runs.values():
        good = run.cell["row"] == "Core-tuning"
        first = kit.domain_record([2], 0, 0.8 + run.seed / 100 if good else 0.6, sources=0.9)
        last = kit.domain_record([2], 299, 0.1 if good else 0.6, sources=0.5)
        kit.write_lines(folder.run_path(run.id) / "results.jsonl", [first, last])
    finding = read_report(folder, "core-tuning").findings[0]
    assert finding.verdict == "holds here"
    assert "+21.00 points of accuracy, 95%" in finding.evidence


@pytest.mark.parametrize("name", sweep_names())
def test_shipped_claims_are_about_the_shipped_rows(name):
    """Reading checks the names; each says which table it comes from, or that it is none's."""
    for claim in read_definition(name).claims:
        assert claim.says.endswith(".")
        assert "(Table " in claim.says or "(no claim of the paper)" in claim.says
        (part,) = [part for part in read_definition(name).parts if part.name == claim.part]
        assert {claim.first, claim.second} <= {choice.name for choice in part.axes["row"]}


@pytest.mark.parametrize(
    "name", ["emoji", *(f"table{n}" for n in ("01", "02", "08", "09", "22", "23", "24"))]
)
def test_claims_are_shipped(name):
    assert read_definition(name).claims


@pytest.mark.parametrize("name", [n for n in sweep_names() if not n.startswith("emoji")])
def test_one_sided_claims_are_what_the_paper_prints(name):
    """The paper's own means go the way that a claim of the paper says."""
    sweep = load_sweep(name)
    columns = {"PGD-10": "robust", "clean": "clean"}
    for claim in read_definition(name).claims:
        if claim.two_sided or "no claim" in claim.says:
            continue
        means = []
        for row in (claim.first, claim.second):
            own = [
                each["values"][columns.get(claim.quantity, next(iter(each["values"])))]
                for each in sweep.paper
                if each["cell"]["row"] == row and each["cell"].get("part", "") == claim.part
            ]
            means.append(sum(own) / len(own))
        assert means[0] > means[1], claim.says


def test_attacks_are_named_as_their_protocols():
    assert set(ATTACKS) == set(PROTOCOLS)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("beter = 'CE'\n", "[[finding]] 1 has an unknown key 'beter': did you mean 'better'?"),
        ("better = 'CE'\n", "'than' is missing, expected a text"),
        ("different = 'CE'\n", "'from' is missing, expected a text"),
        ("better = 'Core-tunning'\nthan = 'CE'\n", "row 'Core-tunning': did you mean"),
        ("better = 'CE'\nthan = 'CE'\n", "compares 'CE' with itself"),
        (f"{BETTER}from = 'CE'\n", "has both 'better' and 'from'"),
        (f"{BETTER}part = 'main'\n", "names the unknown part 'main'"),
        (f"{BETTER}where = {{ datset = 'dtd' }}\n", "axis 'datset': did you mean 'dataset'?"),
        (f"{BETTER}where = {{ dataset = 'dtt' }}\n", "dataset has no value 'dtt': did you mean"),
        (f"{BETTER}where = 'dtd'\n", "'where' is 'dtd', expected a table"),
        (f"{BETTER}quantity = 'acuracy'\n", "quantity 'acuracy': did you mean 'accuracy'?"),
        (f"{BETTER}measure = 'l2 1'\n", "names the unknown measure 'l2 1'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_claim(define, refused, claim, expected):
    error = refused("sweep", "run", define(claim, DEFINITION), "--dry-run")
    assert expected in error
    assert "mine.toml" in error


def test_a_claim_without_a_sentence(define, refused):
    text = DEFINITION.replace('says = "Core-tuning is better."\n', "")
    error = refused("sweep", "run", define(BETTER, text), "--dry-run")
    assert "'says' is missing" in error


def test_a_robust_claim_needs_its_quantity(define, refused):
    text = 'title = "t"\ncommand = "robust"\noptions = { norm = "l2", eps = "1" }\nrows = ['
    text += '{ name = "a", options = { lr = 1 } }, { name = "b", options = { lr = 2 } }]\n'
    more = "[[finding]]\nsays = 's'\nbetter = 'a'\nthan = 'b'\n"
    error = refused("sweep", "run", define(more, text), "--dry-run")
    assert "'quantity' is missing" in error
    error = refused("sweep", "run", define(f"{more}quantity = 'PGD10'\n", text), "--dry-run")
    assert "did you mean 'PGD-10'?" in error


def test_a_claim_about_axes_alone(define, refused):
    text = 'title = "t"\ncommand = "finetune"\n[axes]\ndataset = ["dtd", "pets"]\n'
    more = "[[finding]]\nsays = 's'\nbetter = 'dtd'\nthan = 'pets'\n"
    assert "has no rows to compare" in refused("sweep", "run", define(more, text), "--dry-run")


def test_the_example_of_the_docs_is_accepted():
    """Its claim is put behind the definition of the table that it is about."""
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    text = read_definition("table02").text.partition("[[finding]]")[0]
    (claim,) = parse_definition(text + example, "table02", "sweeps.md").claims
    assert (claim.first, claim.second, claim.two_sided) == ("Core-tuning", "CE", False)
    assert claim.where == {"dataset": ["dtd", "pets"]}
