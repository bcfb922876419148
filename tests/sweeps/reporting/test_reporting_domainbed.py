"""Folders of DomainBed's runs, stock ones and ours, by all three rules of model selection."""

from __future__ import annotations

import itertools
import json
import re
import shutil

import pandas as pd
import pytest

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.report.summary import summarise
from core_tuning.selection import RULES
from core_tuning.sweeps.reporting.domainbed import read_domainbed
from core_tuning.sweeps.reporting.views import tables_of

IID, LEAVE_ONE_OUT, ORACLE = RULES
LETTERS = {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"}


@pytest.fixture
def write(tmp_path, kit):
    """Write a finished run into a sub-folder; the number of lines and their accuracy by step."""
    numbers = itertools.count()

    def call(targets, test, *, done=True, **facts):
        folder = tmp_path / "sweep" / f"run{next(numbers):04d}"
        sources = facts.pop("sources", 0.5)
        records = [
            kit.domain_record(targets, step, each, folder=folder.name, sources=sources, **facts)
            for step, each in enumerate(test)
        ]
        kit.write_lines(folder / "results.jsonl", records)
        if done:
            (folder / "done").write_text("done")
        return folder

    return call


def part_of(report, name):
    (part,) = [part for part in report.parts if part.name == name]
    return part


def test_pacs_stands_beside_table_8(tmp_path, write):
    for trial, algorithm in itertools.product((0, 1), ("ERM", "CoreTuning", "CETuning")):
        for target in range(4):
            test = [0.7 + trial / 10 + target / 100]
            write([target], test, algorithm=algorithm, dataset="PACS", trial=trial)
    report = read_domainbed(tmp_path / "sweep", "core-tuning")
    (part,) = report.parts
    assert (part.name, part.command, part.axes) == ("PACS", "domainbed", ("target",))
    cells = part.cells[part.cells["measure"] == IID].set_index(["row", "target"])
    assert cells.index.get_level_values(0).unique().tolist() == ["CETuning", "CoreTuning", "ERM"]
    assert cells.index.get_level_values(1).unique().tolist() == [
        "art painting", "cartoon", "photo", "sketch",
    ]  # fmt: skip
    photo = cells.loc[("CoreTuning", "photo")]
    assert (photo["n"], photo["expected"], photo["paper"]) == (2, 2, 97.53)
    summary = summarise([72.0, 82.0])
    assert photo["mean"] == pytest.approx(summary.mean)
    assert photo["interval"] == pytest.approx(summary.interval)
    assert photo["difference"] == pytest.approx(77 - 97.53)
    assert cells.loc["ERM"]["paper"].isna().all()
    assert any("MoCo-v2" in note for note in report.notes)


def test_hyper_parameters_are_chosen_by_each_rule(tmp_path, write):
    """Of three hyper-parameter seeds the sources like one, the target's own validation another."""
    for seed, sources, test in ((0, 0.5, 0.6), (1, 0.9, 0.7), (2, 0.4, 0.8)):
        write([1], [test], dataset="VLCS", algorithm="ERM", hparams_seed=seed, sources=sources)
    part = part_of(read_domainbed(tmp_path / "sweep", "x"), "VLCS")
    cells = part.cells[part.cells["target"] == "LabelMe"].set_index("measure")
    assert cells.loc[IID, "mean"] == pytest.approx(70)
    assert cells.loc[ORACLE, "mean"] == pytest.approx(80)
    assert cells["n"].tolist() == [1, 0, 1] and cells["expected"].tolist() == [1, 1, 1]
    chosen = part.values.set_index("measure")["id"]
    assert (chosen[IID], chosen[ORACLE]) == ("run0001", "run0002")


def test_leave_one_out_has_its_pairs(tmp_path, write):
    for targets in ([0], [1], [2], [0, 1], [0, 2], [1, 2]):
        write(targets, [0.5, 0.75], dataset="Other", algorithm="ERM", domains=3)
    part = part_of(read_domainbed(tmp_path / "sweep", "x"), "Other")
    assert part.cells["target"].unique().tolist() == ["domain 0", "domain 1", "domain 2"]
    cells = part.cells[part.cells["measure"] == LEAVE_ONE_OUT]
    assert (cells["n"] == 1).all() and (cells["expected"] == 1).all()
    assert cells["mean"].tolist() == [75, 75, 75]


def test_unfinished_runs_are_expected_and_missing(tmp_path, write, capsys):
    write([0], [0.5], algorithm="CECon")
    write([0], [0.9], algorithm="CECon", trial=1, done=False)
    write([1], [0.9], algorithm="CoreTuning", trial=1, done=False)
    (tmp_path / "sweep" / "empty").mkdir()
    report = read_domainbed(tmp_path / "sweep", "x")
    part = part_of(report, "EmojiDomains")
    cells = part.cells[part.cells["measure"] == IID].set_index(["row", "target"])
    assert (cells.loc[("CECon", "fluent"), "n"], cells.loc[("CECon", "fluent"), "expected"]) == (
        1,
        2,
    )
    assert cells.loc[("CoreTuning", "mono"), "expected"] == 1
    assert pd.isna(cells.loc[("CoreTuning", "mono"), "mean"])
    assert (
        report.notes[0]
        == "1 of the 3 runs with a results.jsonl are finished; the others are left out."
    )


def test_what_nobody_ran_is_not_missing(tmp_path, write):
    write([0], [0.7], dataset="PACS", algorithm="CoreTuning")
    write([0], [0.7], dataset="PACS", algorithm="ERM", done=False)
    table = tables_of(part_of(read_domainbed(tmp_path / "sweep", "x"), "PACS"))[0]
    header, *lines = table.lines()
    assert header[1:3] == ["art painting", "cartoon"]
    rows = {row[0]: row[1:] for row in lines}
    assert rows["CoreTuning"] == ["70.00 (1), paper 87.31, -17.31", "–", "–", "–", "–"]
    assert rows["ERM"] == ["missing (0 of 1)", "–", "–", "–", "–"]


def test_a_data_set_without_a_finished_run_is_shown(tmp_path, write):
    write([0], [0.7], dataset="PACS", algorithm="ERM")
    write([1], [0.7], dataset="DomainNet", algorithm="ERM", domains=6, done=False)
    report = read_domainbed(tmp_path / "sweep", "x")
    assert [part.name for part in report.parts] == ["PACS", "DomainNet"]
    (table,) = tables_of(part_of(report, "DomainNet"))
    assert ["domain 1", "missing (0 of 1)"] in table.rows


def test_given_hyper_parameters_are_not_mixed(tmp_path, write):
    """Two runs of the same hyper-parameter seed, with other --hparams: validation chooses one."""
    for eta, sources, test in ((0.1, 0.5, 0.6), (1, 0.9, 0.8)):
        folder = write([0], [test - 0.1, test], dataset="VLCS", algorithm="ERM", sources=sources)
        lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        for line in lines:
            line["args"]["hparams"] = json.dumps({"eta": eta})
            line["env0_out_acc"] = sources
        (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = part_of(read_domainbed(tmp_path / "sweep", "x"), "VLCS").values
    assert values.set_index("measure")["id"].to_dict() == {IID: "run0001", ORACLE: "run0001"}


def test_what_the_release_computes_is_a_method_of_its_own(tmp_path, write):
    write([0], [0.5], algorithm="CoreTuning", dataset="PACS")
    write([0], [0.8], algorithm="ReleasedCoreTuning", dataset="PACS")
    part = part_of(read_domainbed(tmp_path / "sweep", "x"), "PACS")
    cells = part.cells[(part.cells["measure"] == IID) & (part.cells["n"] > 0)].set_index("row")
    assert cells["mean"].to_dict() == pytest.approx(
        {"CoreTuning": 50.0, "ReleasedCoreTuning": 80.0}
    )
    assert cells["paper"].notna().to_dict() == {"CoreTuning": True, "ReleasedCoreTuning": False}


def test_one_run_is_a_folder_of_its_own(tmp_path, write):
    folder = write([3], [0.5])
    part = part_of(read_domainbed(folder, "x"), "EmojiDomains")
    assert part.values["target"].unique().tolist() == ["twemoji"]


def test_the_command(tmp_path, write, capsys):
    for target in range(4):
        write([target], [0.5 + target / 10], dataset="PACS", algorithm="CETuning")
    broken = write([0], [0.5], dataset="PACS", algorithm="CETuning", trial=1)
    (broken / "results.jsonl").write_text("{\n")
    arguments = ["sweep", "report", "--domainbed", str(tmp_path / "sweep"), "--no-page"]
    assert main([*arguments, "--to", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == (
        f"core-tuning: warning: 1 damaged line was skipped: {broken.name}/results.jsonl.\n"
    )
    assert "5 of the 5 runs with a results.jsonl are finished. See" in said.out
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| CETuning | 50.00 (1), paper 78.71, -28.71 |" in text
    assert "65.00 (1), paper 80.54, -15.54" in text
    # By default beside the runs, where it is no run.
    for _ in range(2):
        assert main(arguments) == 0
    assert (tmp_path / "sweep" / "report" / "table.csv").exists()


def test_refusals(tmp_path, write, refused):
    (tmp_path / "empty").mkdir()
    error = refused("sweep", "report", "--domainbed", tmp_path / "empty")
    assert "is finished and whole (0 have a results.jsonl" in error
    write([0], [0.5], done=False)
    error = refused("sweep", "report", "--domainbed", tmp_path / "sweep")
    assert "(1 have a results.jsonl, 0 of them a file 'done')" in error
    (write([0], [0.5]) / "results.jsonl").write_text("nothing\n")
    error = refused("sweep", "report", "--domainbed", tmp_path / "sweep")
    assert "(2 have a results.jsonl, 1 of them a file 'done')" in error


def test_our_tables_are_domainbeds(tmp_path):
    """Its own test data of 40 runs, beside the tables that it prints of them."""
    from core_tuning.algorithms.checkout import find_checkout

    try:
        misc = find_checkout() / "domainbed" / "misc"
    except UserError as error:
        pytest.skip(str(error))
    runs = tmp_path / "runs"
    shutil.copytree(misc / "test_sweep_data", runs)
    (part,) = read_domainbed(runs, "x").parts
    printed = (misc / "test_sweep_results.txt").read_text()
    for rule in RULES:
        heading = f"-------- Dataset: VLCS, model selection method: {rule}\n"
        header, row = printed.partition(heading)[2].splitlines()[:2]
        means = re.findall(r"([\d.]+) \+/-", row)
        expected = dict(zip(header.split()[1:], means, strict=False))
        cells = part.cells[part.cells["measure"] == rule].set_index("target")
        for letter, mean in expected.items():
            assert f"{cells.loc[LETTERS[letter], 'mean']:.1f}" == mean


def test_a_folder_of_dg_is_read(tmp_path):
    """Two runs of `core-tuning dg` that are really made."""
    arguments = [
        "dg", "--algorithm", "CETuning", "--test_envs", "all", "--steps", "2", "--workers", "0",
        "--checkpoint_freq", "1", "--skip-model-save", "--hparams",
        json.dumps({"batch_size": 4, "freeze_bn": True}), "--output_dir", str(tmp_path / "dg"),
    ]  # fmt: skip
    assert main(arguments) == 0
    part = part_of(read_domainbed(tmp_path / "dg", "x"), "EmojiDomains")
    chosen = json.loads((tmp_path / "dg" / "selection.json").read_text())
    del chosen["made_by"]
    for rule in RULES:
        found = part.values[part.values["measure"] == rule].set_index("target")["value"]
        names = ("fluent", "mono", "noto", "twemoji")
        expected = {names[cell["target"]]: 100 * cell["test"] for cell in chosen[rule]}
        assert found.to_dict() == pytest.approx(expected)
