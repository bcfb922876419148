"""The quickstart's cells are run one after another, as a notebook runs them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def last_value(code, namespace):
    """Run a cell; return the value of its last line, which a notebook shows."""
    *body, last = ast.parse(code).body
    exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    exec(compile(ast.Module([last], []), "cell", "exec"), namespace)
    return None


def test_every_cell_runs_and_shows_something(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # A test need not train for a minute.
    cells[0] = cells[0].replace("epochs=2", "limit_steps=2, workers=0")
    namespace = {}
    metrics, (files, selection), (name, probability), terms = (
        last_value(cell, namespace) for cell in cells
    )
    assert set(metrics) == {"top1", "mean_per_class", "loss", "images"}
    assert {"run.json", "report.html", "model.safetensors"} <= set(files)
    assert selection == "best validation top-1"
    assert name in namespace["facts"]["classes"]
    assert 0.1 <= probability <= 1
    assert terms["total"] > terms["cross_entropy"] > 0
