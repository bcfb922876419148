"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Of a list, so many elements are shown; the others are in report.json.
_SHOWN = 12
_LABELS = {"n": "images", "selected_on": "model selected on", "selection": "selection rule"}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; what would break it is escaped.

    Args:
        header: (columns,) names.
        rows: each of (columns,) cells, shown as their `str`.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def facts(values: Mapping[str, Any]) -> str:
    """Return a table of names and values, without those that say nothing."""
    rows = [
        (_LABELS.get(name, name.replace("_", " ")), _shown(value))
        for name, value in values.items()
        if value not in (None, [], {})
    ]
    return table(("", ""), rows)


def _shown(value: Any) -> str:
    """Write a value for a table; long lists are in report.json."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        first = ", ".join(map(str, value[:_SHOWN]))
        return first if len(value) <= _SHOWN else f"{first}, … ({len(value)} in all)"
    return str(value)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
