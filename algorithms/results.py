"""`core-tuning domainbed collect_results` and `list_top_hparams`: DomainBed's own, checked before.

DomainBed ends in a traceback at the first line of a results.jsonl that it cannot read.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.files import require_file

from .script_options import option_values, options_of
from .scripts import prepare, run_script, script_path

RESULTS = "results.jsonl"
Record = dict[str, Any]
# What DomainBed groups records by.
_ARGUMENTS = {
    "dataset": str, "algorithm": str, "test_envs": list, "trial_seed": int, "hparams_seed": int,
}  # fmt: skip


def collect(arguments: Sequence[str]) -> int:
    """Print DomainBed's tables of the runs in a folder.

    Raises:
        UserError: a line of a run cannot be read, or DomainBed has no table for any of the runs.
    """
    given = _prepare("collect_results", arguments)
    if "--input_dir" in given:
        records = _read(given, "fd_env{}_in_acc" if "--auto_lr" in given else "env{}_in_acc")
        _check_datasets(records, given["--input_dir"][0])
    run_script("collect_results", arguments)
    return 0


def list_top(arguments: Sequence[str]) -> int:
    """Print DomainBed's list of the best hyper-parameters of the runs in a folder.

    Raises:
        UserError: a line of a run cannot be read, or no run is one of those asked for.
    """
    given = _prepare("list_top_hparams", arguments)
    if {"--input_dir", "--dataset", "--algorithm", "--test_env"} <= given.keys():
        _check_listed(_read(given, "env{}_in_acc"), given)
    run_script("list_top_hparams", arguments)
    return 0


def _prepare(script: str, arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the options that are given; ones without a value are for the script to refuse."""
    given = option_values(arguments, options_of(script_path(prepare(), script)))
    return {name: values for name, values in given.items() if values or name == "--auto_lr"}


def _read(given: Mapping[str, list[str]], test_accuracy: str) -> list[Record]:
    """Read the lines that DomainBed will read."""
    folder = Path(given["--input_dir"][0])
    if not folder.is_dir():
        raise UserError(
            f"--input_dir is {folder}, which is not a folder: name the --output_dir of a sweep."
        )
    records = []
    for run in sorted(folder.iterdir()):
        if (run / RESULTS).exists():
            records += _read_run(run / RESULTS, test_accuracy)
    if not records:
        raise UserError(
            f"No folder in {folder} has a line in its {RESULTS}: name the --output_dir of a sweep "
            "of which a job has been evaluated."
        )
    return records


def _read_run(file: Path, test_accuracy: str) -> list[Record]:
    require_file(file)
    # DomainBed takes the last character of each line for its end.
    *lines, rest = file.read_bytes().split(b"\n")
    records: list[Record] = []
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            # A last line without its end is cut.
            record: Any = json.loads(line) if number <= len(lines) else None
        except (ValueError, RecursionError):
            record = None
        if not _is_whole(record, test_accuracy):
            raise UserError(
                f"Line {number} of {file} is cut or is not a result of DomainBed's: delete the "
                "line, or the folder and launch its job again."
            )
        records.append(record)
    return records


def _is_whole(record: Any, test_accuracy: str) -> bool:
    if not isinstance(record, dict):
        return False
    arguments = record.get("args")
    if not isinstance(arguments, dict) or not isinstance(record.get("hparams"), dict):
        return False
    if not all(isinstance(arguments.get(name), kind) for name, kind in _ARGUMENTS.items()):
        return False
    targets = arguments["test_envs"]
    if not targets or not all(isinstance(target, int) for target in targets):
        return False
    accuracies = [
        name.format(target) for target in targets for name in (test_accuracy, "env{}_out_acc")
    ]
    return all(isinstance(record.get(name), int | float) for name in ("step", *accuracies))


def _check_datasets(records: Sequence[Record], folder: str) -> None:
    known = importlib.import_module("domainbed.datasets").DATASETS
    unknown = sorted({record["args"]["dataset"] for record in records} - set(known))
    if not unknown:
        return
    said = (
        f"{folder} holds runs of {', '.join(unknown)}, which DomainBed does not know and has no "
        "table for: 'core-tuning dg' prints its own, again with --resume"
    )
    if all(record["args"]["dataset"] in unknown for record in records):
        raise UserError(f"{said}.")
    print(f"core-tuning: warning: {said}; here are the others.", file=sys.stderr)


def _check_listed(records: Sequence[Record], given: Mapping[str, list[str]]) -> None:
    dataset, algorithm, target = (
        given[name][0] for name in ("--dataset", "--algorithm", "--test_env")
    )
    chosen = [
        record
        for record in records
        if (record["args"]["dataset"], record["args"]["algorithm"]) == (dataset, algorithm)
        and target in map(str, record["args"]["test_envs"])
    ]
    if not chosen:
        kinds = {(record["args"]["algorithm"], record["args"]["dataset"]) for record in records}
        raise UserError(
            f"{given['--input_dir'][0]} has no run of {algorithm} on {dataset} with --test_env "
            f"{target}: it has {', '.join(' on '.join(kind) for kind in sorted(kinds))}, some "
            "perhaps with other test environments."
        )
    hparams: dict[tuple[int, int], Record] = {}
    for record in chosen:
        seeds = record["args"]["trial_seed"], record["args"]["hparams_seed"]
        if hparams.setdefault(seeds, record["hparams"]) != record["hparams"]:
            raise UserError(
                f"{given['--input_dir'][0]} has runs of {algorithm} on {dataset} whose "
                f"hyper-parameters differ though both have --trial_seed {seeds[0]} and "
                f"--hparams_seed {seeds[1]}, which DomainBed cannot list: put them into folders "
                "of their own."
            )
