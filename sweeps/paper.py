"""What the paper prints for a sweep's cells, from the tables that are shipped as CSV."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from core_tuning.errors import UserError
from core_tuning.options import check_name

from .plan import Cell, Part, cell_names


def paper_cells(part: Part, cells: list[Cell], name: str) -> list[dict[str, Any]]:
    """The paper's numbers of those cells that have some; `name` is the definition's, for messages.

    Returns:
        For each number {"cell", "measure", "table", "values", "stderr"}: the run's `cell`; the
        budget {"norm", "eps"} where a run is measured at several, else None; the CSV; the columns
        that were asked for, as floats; the printed standard error or None.

    Raises:
        UserError: the table or a column is unknown, or a cell has not exactly one row in it.
    """
    if part.paper is None:
        return []
    claims = []
    for cell in cells:
        if any(choice.paper is None for choice in cell.values()):
            continue
        measures: list[dict[str, str] | None] = [*part.measures] or [None]
        claims += [_claim(part.paper, part, cell, measure, name) for measure in measures]
    return claims


def _claim(
    paper: dict[str, Any], part: Part, cell: Cell, measure: dict[str, str] | None, name: str
) -> dict[str, Any]:
    rows = read_table(paper["table"], name)
    columns = tuple(rows[0])
    wanted = {**paper["where"], **(measure or {})}
    for axis, choice in cell.items():
        # An axis that the table has no column of its name for fixes nothing.
        given = {column: value for column, value in (choice.paper or {}).items()
                 if column in columns or column != axis}  # fmt: skip
        wanted |= given
    for column in (*wanted, *paper["value"]):
        check_name(column, columns, f"{name}: {paper['table']} has no column")
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if len(found) != 1:
        where = ", ".join(f"{key} = {value}" for key, value in wanted.items())
        raise UserError(
            f"{name}: {paper['table']} has {len(found)} rows with {where}, expected one: correct "
            "'paper', or write paper = false where the paper has no such number."
        )
    row = found[0]
    return {
        "cell": cell_names(part, cell),
        "measure": measure,
        "table": paper["table"],
        "values": {column: float(row[column]) for column in paper["value"]},
        "stderr": float(row["stderr"]) if row.get("stderr") else None,
    }


@cache
def read_table(table: str, name: str = "core-tuning") -> list[dict[str, str]]:
    """Rows of one of the paper's tables, such as "table02_ablation.csv"; `name` asks for it.

    Raises:
        UserError: there is no such table.
    """
    folder = files("core_tuning") / "paper_tables"
    tables = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".csv"))
    check_name(table, tables, f"{name}: the paper has no table")
    return list(csv.DictReader((folder / table).read_text("utf-8").splitlines()))
