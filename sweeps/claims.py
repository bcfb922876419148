"""The claims of a definition, which the report judges: `[[finding]]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.options import check_name
from core_tuning.selection import RULES

from .checking import check_keys, typed
from .plan import Part, canonical

FINDING = "finding"
ACCURACY = "accuracy"
CLEAN = "clean"
# Names of robustness's protocols, which `sweeps` may not import; a test compares them.
ATTACKS = {
    "fgsm": "FGSM",
    "pgd10": "PGD-10",
    "pgd50x10": "PGD-50x10",
    "square": "Square",
    "autoattack": "AutoAttack",
}
DEFAULT_ATTACKS = ("pgd10", "pgd50x10", "square", "autoattack")
_SIDED = ("better", "than")
_TWO_SIDED = ("different", "from")
_KEYS = ("says", "part", *_SIDED, *_TWO_SIDED, "where", "quantity", "measure")


class Claim(NamedTuple):
    """That one row of a part is better than another, or different from it.

    Attributes:
        says: the claim in a sentence, with the table of the paper that it comes from.
        part: name of the part.
        first: the row that is better, or different.
        second: the row than, or from, which it is.
        two_sided: whether either direction would do ("different").
        where: axis -> the names of its values that count; all values of the other axes do.
        quantity: "accuracy"; of robust "clean" or a value of `ATTACKS`.
        measure: budget, or rule of model selection; None for all budgets, or the first rule.
    """

    says: str
    part: str
    first: str
    second: str
    two_sided: bool
    where: dict[str, list[str]]
    quantity: str
    measure: str | None


def read_claims(given: list[Any], parts: Sequence[Part], file: str) -> list[Claim]:
    """Check the claims of a definition; `file` is what messages call it.

    Raises:
        UserError: a key, part, row, axis, value or quantity is unknown, or one is missing.
    """
    return [_claim(each, parts, f"{file}, [[{FINDING}]] {i}") for i, each in enumerate(given, 1)]


def _claim(given: Any, parts: Sequence[Part], file: str) -> Claim:
    check_keys(given, _KEYS, file)
    says = typed(given, "says", str, file, needed=True)
    part = _part_of(given, parts, file)
    two_sided = _TWO_SIDED[0] in given
    names = _TWO_SIDED if two_sided else _SIDED
    for key in _SIDED if two_sided else _TWO_SIDED:
        if key in given:
            raise UserError(
                f"{file} has both '{names[0]}' and '{key}': give 'better' and 'than', or "
                "'different' and 'from'."
            )
    rows = [choice.name for choice in part.axes.get("row", [])]
    if not rows:
        raise UserError(f"{file} is about the part '{part.name}', which has no rows to compare.")
    chosen = []
    for key in names:
        name = typed(given, key, str, file, needed=True)
        check_name(name, rows, f"{file}, {key} names the unknown row")
        chosen.append(name)
    if chosen[0] == chosen[1]:
        raise UserError(f"{file} compares '{chosen[0]}' with itself: name two rows.")
    quantity = _quantity(given, part, file)
    where = _where(given, part, file)
    measure = _measure(given, part, file)
    return Claim(says, part.name, chosen[0], chosen[1], two_sided, where, quantity, measure)


def _part_of(given: dict[str, Any], parts: Sequence[Part], file: str) -> Part:
    by_name = {part.name: part for part in parts}
    if "part" not in given and "" in by_name:
        return by_name[""]
    name = typed(given, "part", str, file, needed=True)
    check_name(name, by_name, f"{file} names the unknown part")
    return by_name[name]


def _quantity(given: dict[str, Any], part: Part, file: str) -> str:
    robust = part.command == "robust"
    name = typed(given, "quantity", str, file, needed=robust) or ACCURACY
    known = (CLEAN, *ATTACKS.values()) if robust else (ACCURACY,)
    check_name(name, known, f"{file} names the unknown quantity")
    return name


def _measure(given: dict[str, Any], part: Part, file: str) -> str | None:
    if "measure" not in given:
        return None
    name = typed(given, "measure", str, file)
    known = measures_of(part)
    if known:
        check_name(name, known, f"{file} names the unknown measure")
    return name


def measures_of(part: Part) -> list[str]:
    """The measures of a part's cells: budgets, rules of model selection, or "" where it has none.

    Empty where the budgets are spread over axes or options.
    """
    if part.command == "finetune":
        return [""]
    if part.command != "robust":
        return list(RULES)
    budgets = [dict(measure) for measure in part.measures] or [
        choice.options for choices in part.axes.values() for choice in choices
        if {"norm", "eps"} <= choice.options.keys()
    ]  # fmt: skip
    return list(dict.fromkeys(budget_name(each["norm"], each["eps"]) for each in budgets))


def budget_name(norm: str, eps: Any) -> str:
    """A budget as tables name it, such as "linf 4/255"."""
    return f"{norm} {canonical(eps)}"


def read_eps(text: str) -> float:
    """The number that an eps stands for, such as "0.5" or "8/255", as `robust` reads it.

    Raises:
        ValueError: it is none.
    """
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / (float(denominator) if slash else 1.0)


def _where(given: dict[str, Any], part: Part, file: str) -> dict[str, list[str]]:
    where = {}
    for axis, value in typed(given, "where", dict, file).items():
        known = {name: choices for name, choices in part.axes.items() if name != "row"}
        check_name(axis, known, f"{file}, where names the unknown axis")
        names = [canonical(each) for each in (value if isinstance(value, list) else [value])]
        for name in names:
            check_name(name, [choice.name for choice in known[axis]],
                       f"{file}, where: {axis} has no value")  # fmt: skip
        where[axis] = names
    return where
