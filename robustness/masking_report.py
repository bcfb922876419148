"""The part of a report that says whether the gradients, and so the accuracies, can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.report.page import Block, Figure, Section
from core_tuning.report.tables import Table

from .budgets import describe_eps
from .figures import save_masking
from .masking_checks import row_checks

MEANINGS = {
    "unbounded": "With the largest eps any image can be turned into any other. What still stays "
    "right was not reached by the attack; it is not robust.",
    "monotone": "What breaks an image at one eps is allowed at every larger one. More images right "
    "at a larger eps mean that the attack got worse.",
    "effort": "If many more steps and restarts bring accuracy down by much, PGD-10 had not "
    "converged and its figure is too high.",
    "single_step": "PGD takes the step of FGSM and goes on. If one step does better, the gradients "
    "do not lead anywhere.",
    "black_box": "Square sees scores alone, gradients see more. If Square does better, the "
    "gradients mislead.",
    "zero_gradients": "Where the gradient is exactly zero or not finite, PGD stays at its random "
    "start, and its images count as robust.",
    "margin": "Cross-entropy saturates for confident models, the margin between two logits does "
    "not. If attacking the margin does much better, cross-entropy is blinded.",
    "square": "Square needs no gradient. AutoAttack's authors take it for a sign that gradients "
    "mislead if it breaks images that every attack along gradients has left.",
    "gap": "AutoAttack chooses its steps itself and adds other losses and a black box. If it does "
    "much better than PGD-10, PGD-10 measures the attack and not the model.",
}


def verdict(checks: Sequence[Mapping[str, Any]]) -> str:
    """Say in a sentence what the masking checks found."""
    run = [check for check in checks if check["points"]]
    flagged = [f'"{check["title"]}"' for check in run if check["flagged"]]
    if not run:
        return "Masked gradients were not looked for: the robust accuracies are upper bounds."
    if not flagged:
        return f"No sign of masked gradients in {len(run)} checks."
    verb = "raises" if len(flagged) == 1 else "raise"
    return (
        f"{len(flagged)} of {len(run)} checks {verb} a flag, against {', '.join(flagged)}. "
        "The robust accuracies are not to be trusted."
    )


def masking_groups(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bring the masking checks into groups of one budget, and see to those of the rows."""
    masking = list(report["masking"])
    groups = [dict(entry) for entry in masking if "checks" in entry]
    loose = [entry for entry in masking if "checks" not in entry]
    if loose:
        groups.append({"checks": loose})
    for group in groups:
        rows = [row for row in report["rows"] if row["norm"] == group.get("norm", row["norm"])]
        there = {check["name"] for check in group["checks"]}
        more = [check._asdict() for check in row_checks(rows) if check.name not in there]
        group["checks"] = [*group["checks"], *more]
    return groups


def masking_section(groups: Sequence[Mapping[str, Any]], figures: Path) -> Section:
    """Draw the masking checks into a folder, and return the section about them."""
    blocks: list[Block] = []
    for number, group in enumerate(groups):
        path = figures / ("masking.png" if number == 0 else f"masking_{number + 1}.png")
        save_masking(group["checks"], path)
        rows = [
            (check["title"], _sign(check), check["value"], check["expected"])
            for check in group["checks"]
        ]
        header = ("what a sound evaluation shows", "", "found", "no flag for")
        blocks += [
            place(group) + verdict(group["checks"]),
            Table(header, rows),
            Figure(path, "Masking checks", ""),
        ]
    shown = {check["name"]: check["title"] for group in groups for check in group["checks"]}
    meanings = {f"{title}:": MEANINGS[name] for name, title in shown.items()}
    return Section("Gradient masking", [*blocks, meanings] if groups else [verdict([])])


def place(group: Mapping[str, Any]) -> str:
    """Say what budget and images a group of checks is of."""
    if "norm" not in group:
        return ""
    budget = f"{group['norm']} eps {describe_eps(group['norm'], group['eps'])}"
    return f"At {budget}, on {group['images']} images: "


def _sign(check: Mapping[str, Any]) -> str:
    if not check["points"]:
        return "not run"
    return "FLAG" if check["flagged"] else "ok"
