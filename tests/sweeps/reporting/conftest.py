"""Folders of finished runs, in the formats that the commands write."""

from __future__ import annotations

import json
import types
import zlib
from fractions import Fraction
from pathlib import Path

import pytest

from core_tuning.cli import main
from core_tuning.methods import METHODS
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.folder import start_sweep
from core_tuning.sweeps.reporting.results import budgets_of, single_target

FILES = ["report.json", "report.md", "table.csv", "table.tex", "values.csv"]


def accuracy(*facts):
    """A number in percent that follows from what it is of, and differs a little by all of it."""
    return 40 + zlib.crc32(repr(facts).encode()) % 4000 / 100


def finetune_result(top1, *, seed=0, validation=None):
    test = {"top1": top1, "mean_per_class": top1 - 1, "loss": 1.0, "images": 821}
    chosen = None if validation is None else {**test, "top1": validation, "images": 246}
    return {
        "dataset": "emoji_domains", "split": "all domains", "warnings": [], "method": "ce",
        "seed": seed, "steps": 408, "selected_step": 306,
        "selection": "best validation top-1", "validation": chosen, "test": test, "seconds": 35.9,
    }  # fmt: skip


def robust_report(clean, rows):
    """`rows`: (norm, eps, attack, percent)."""
    titles = {"pgd10": "PGD-10 (paper protocol)", "pgd50x10": "PGD-50, 10 restarts"}
    return {
        "subject": {"name": "run"},
        "data": {"dataset": "emoji_domains", "n": 100, "indices": list(range(100))},
        "environment": {"torch": "2.15.0"},
        "clean": {"correct": round(clean), "n": 100, "low": 0, "high": 100, "percent": clean},
        "rows": [
            {"attack": attack, "title": titles.get(attack, attack), "norm": norm,
             "eps": float(Fraction(eps)), "eps_text": eps,
             "correct": round(percent), "n": 100, "robust": percent}
            for norm, eps, attack, percent in rows
        ],
        "masking": [],
    }  # fmt: skip


def domain_record(targets, step, test, *, algorithm="CETuning", dataset="EmojiDomains", trial=0,
                  hparams_seed=0, domains=4, sources=0.5, folder="run", hparams=None):  # fmt: skip
    """A line of results.jsonl; `test` in [0, 1] is of every target, `sources` of the others."""
    line = {
        f"env{number}_{part}_acc": test if number in targets else sources
        for number in range(domains)
        for part in ("in", "out")
    }
    args = {
        "algorithm": algorithm, "dataset": dataset, "test_envs": list(targets),
        "trial_seed": trial, "hparams_seed": hparams_seed, "output_dir": f"/elsewhere/{folder}",
        "hparams": None, "steps": 300, "task": "domain_generalization",
    }  # fmt: skip
    return {**line, "step": step, "epoch": 1.0, "loss": 1.5, "args": args, "hparams": hparams or {}}


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def algorithm_of(run):
    options = run.stages[0].options
    if "algorithm" in options:
        return options["algorithm"]
    return METHODS[options.get("method", "core_tuning")].domainbed


def finish(folder, run, percent):
    """Write what a finished run leaves; percent(run, *facts) says how good it is."""
    path = folder.run_path(run.id)
    if run.stages[0].command in ("dg", "domainbed train"):
        targets = [single_target(run)]
        records = [
            domain_record(targets, at, percent(run) / 100, trial=run.seed, sources=0.5 + at / 1000,
                          algorithm=algorithm_of(run), folder=run.id)
            for at in (0, 100, 299)
        ]  # fmt: skip
        write_lines(path / "results.jsonl", records)
        (path / "done").write_text("done")
        return
    if len(run.stages) > 1:
        rows = [
            (norm, eps, attack, percent(run, norm, eps, attack))
            for norm, eps in budgets_of(run)
            for attack in run.stages[1].options["attacks"]
        ]
        result = robust_report(percent(run, "clean"), rows)
    else:
        result = finetune_result(percent(run), seed=run.seed, validation=percent(run, "validation"))
    (path / run.done).parent.mkdir(parents=True, exist_ok=True)
    (path / run.done).write_text(json.dumps(result))


def percent_of(run, *facts):
    return accuracy(sorted(run.cell.items()), run.seed, facts)


@pytest.fixture(scope="session")
def filled():
    """Start a sweep in a folder and finish those of its runs that `which` chooses."""

    def make(path, name, *, which=lambda run: True, percent=percent_of, **options):
        folder = start_sweep(Path(path), load_sweep(name, **options))
        for run in folder.runs.values():
            if which(run):
                finish(folder, run, percent)
        return folder

    return make


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(
        accuracy=accuracy, finetune_result=finetune_result, robust_report=robust_report,
        domain_record=domain_record, write_lines=write_lines, finish=finish, percent=percent_of,
        FILES=FILES,
    )  # fmt: skip


@pytest.fixture
def sweep(tmp_path, filled):
    """A folder of table23 whose last seed is missing."""
    return filled(tmp_path / "sweep", "table23", which=lambda run: run.seed < 2)


@pytest.fixture
def report():
    """Ask for the report of a folder of table23, without its page; returns the exit code."""

    def call(folder, *options):
        where = ["--output", str(getattr(folder, "path", folder))]
        return main(["sweep", "report", "table23", *where, "--no-page", *map(str, options)])

    return call


@pytest.fixture
def refused_report(refused):
    """Ask for it in vain; returns the sentence."""

    def call(folder, *options):
        return refused("sweep", "report", "table23", "--output", folder, "--no-page", *options)

    return call


@pytest.fixture(scope="session")
def contents():
    """The files in a folder."""

    def read(folder):
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}

    return read
