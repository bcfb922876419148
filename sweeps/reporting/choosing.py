"""What validation chooses among the values of a grid, in sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import NamedTuple

from ..claims import ATTACKS
from ..folder import SweepFolder
from ..reading import Part
from .labels import name_value, quantity_name
from .runs import VALIDATION, Reading, attacks_of, is_on_validation

# A value of each axis.
Setting = tuple[str, ...]


class _Result(NamedTuple):
    """Of a run in percent: what is chosen by, and the accuracy on test images, if it has one."""

    id: str
    validation: float
    test: float | None


def chosen_by_validation(folder: SweepFolder, part: Part, reading: Reading) -> list[str]:
    """Say of each row which values of the grid have the best mean on validation images.

    Of robustness that is the accuracy under the last attack, the mean of all budgets.
    """
    if not part.grid or not reading.values:
        return []
    fixed = [axis for axis in part.axes if axis not in part.grid]
    groups: dict[Setting, dict[Setting, dict[int, _Result]]]
    groups = defaultdict(lambda: defaultdict(dict))
    read = _robust if part.command == "robust" else _accuracies
    for result in read(folder, reading):
        run = folder.runs[result.id]
        own, tried = (
            tuple(name_value(axis, run.cell[axis]) for axis in axes) for axes in (fixed, part.grid)
        )
        groups[own][tried][run.seed] = result
    if not groups:
        prefix = f"{part.name}: " if part.name else ""
        return [f"{prefix}Validation chooses nothing: no run was measured on validation images."]
    by = _words(folder, part, reading)
    return [_sentence((part.name, *own), found, by) for own, found in groups.items()]


def _accuracies(folder: SweepFolder, reading: Reading) -> Iterator[_Result]:
    test = {
        (found.id, found.measure): found.value
        for found in reading.values
        if found.quantity != VALIDATION
    }
    for found in reading.values:
        if found.quantity == VALIDATION:
            yield _Result(found.id, found.value, test[found.id, found.measure])


def _robust(folder: SweepFolder, reading: Reading) -> Iterator[_Result]:
    """Test images are not looked at where validation is to choose."""
    values: dict[str, list[float]] = defaultdict(list)
    for found in reading.values:
        run = folder.runs[found.id]
        if is_on_validation(run) and found.quantity == _last_attack(folder, found.id):
            values[found.id].append(found.value)
    for id, own in values.items():
        yield _Result(id, fmean(own), None)


def _last_attack(folder: SweepFolder, id: str) -> str:
    name = attacks_of(folder.runs[id])[-1]
    return ATTACKS.get(name, name)


def _words(folder: SweepFolder, part: Part, reading: Reading) -> tuple[str, str]:
    """What the two accuracies of a run are, after their numbers."""
    if part.command == "robust":
        last = quantity_name(_last_attack(folder, reading.values[0].id))
        return f"% {last} on validation images", ""
    if part.command == "finetune":
        return "% on validation images", "% on test images"
    return "% on validation images of the source domains", "% on the target domain"


def _sentence(
    where: Setting, settings: Mapping[Setting, Mapping[int, _Result]], words: tuple[str, str]
) -> str:
    """Compare settings over the seeds that all of them have.

    Means of different seeds differ by more than the settings. Where no seed has all settings, one
    that has most decides which are compared.
    """
    held = Counter(seed for runs in settings.values() for seed in runs)
    most = max(held, key=lambda seed: (held[seed], -seed))
    kept = {setting: runs for setting, runs in settings.items() if most in runs}
    seeds = set.intersection(*(set(runs) for runs in kept.values()))
    means = {
        setting: fmean(runs[seed].validation for seed in seeds) for setting, runs in kept.items()
    }
    best = max(means, key=lambda setting: means[setting])
    test = [result for seed in seeds if (result := kept[best][seed].test) is not None]
    and_test = f" and {fmean(test):.2f}{words[1]}" if test else ""
    of = "" if len(kept) == len(settings) else f"{len(kept)} of "
    unused = held.total() - len(kept) * len(seeds)
    left_out = f"; runs of seeds that not all have, which are left out: {unused}" if unused else ""
    named = ", ".join(filter(None, where))
    prefix = f"{named}: " if named else ""
    return (
        f"{prefix}Validation chooses {', '.join(best)}, with {means[best]:.2f}{words[0]}{and_test} "
        f"(mean of {len(seeds)}), among {of}the {len(settings)} settings with finished "
        f"runs{left_out}."
    )
