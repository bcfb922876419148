"""A training run in its folder: started or gone on with, trained, recorded, finished once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.config import PLACES, RUN_FILES, Run
from core_tuning.data import check_same_images
from core_tuning.errors import UserError
from core_tuning.files import field, read_json, writing
from core_tuning.options import plain_values

from .build import Initial
from .folder import RunFolder, check_marked, write_marked


class Built(NamedTuple):
    """A run that can begin: no mistake of the user's is left to be found.

    Attributes:
        data: fingerprint of its images.
        initial: what its weights came from.
        train: trains in a folder that is held, writes the report, and returns the result.
    """

    data: dict[str, Any]
    initial: Initial
    train: Callable[[RunFolder], dict[str, Any]]


class Planned(NamedTuple):
    """A run before anything is read.

    Attributes:
        command: that makes it.
        folder: where it goes.
        seed: of it.
        options: as the command line has them, for this run alone.
        build: reads data and checkpoint.
    """

    command: str
    folder: RunFolder
    seed: int
    options: Run
    build: Callable[[], Built]


def run_all(
    command: str,
    output: Path,
    plans: list[Planned],
    options: Run,
    describe: Callable[[Planned, dict[str, Any]], str] | None = None,
    beside: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Make one run after another, and return their results.

    Args:
        command: that makes them, such as "finetune".
        output: their folder, or that of the one run.
        plans: the runs.
        options: of the command line.
        describe: says what came of a run, from its result.
        beside: names of what `write_marked` will write into `output`.
    """
    for name in beside:
        check_marked(output / name)
    check_output(output, plans, options)
    made_of = {"command": command, "options": stated(options)}
    begin = partial(_begin_several, output, made_of) if len(plans) > 1 else lambda: None
    results: list[dict[str, Any]] = []
    images: dict[str, Any] | None = None
    started = time.monotonic()
    for number, plan in enumerate(plans):
        if len(plans) > 1:
            left = (time.monotonic() - started) / max(1, number) * (len(plans) - number) / 60
            eta = f"; about {left:.1f} min left" if number else ""
            print(f"run {number + 1} of {len(plans)}: {plan.folder.path}{eta}", flush=True)
        results.append(run(plan, begin, images))
        images = plan.folder.read_run().get("data")
        if describe is not None:
            print(describe(plan, results[-1]), flush=True)
    return results


def _begin_several(output: Path, made_of: dict[str, Any]) -> None:
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    write_marked(output / RUN_FILES[1], made_of)


def check_output(output: Path, plans: list[Planned], options: Run) -> None:
    """Refuse output folders that are taken, before anything is trained."""
    single, several = (output / name for name in RUN_FILES)
    if (single.exists() and len(plans) > 1) or (several.exists() and len(plans) == 1):
        held = "a single run" if single.exists() else "several runs"
        asked = "one run" if len(plans) == 1 else f"{len(plans)} runs"
        raise UserError(
            f"The folder {output} holds {held}, and {asked} would go there: name another with "
            "--output."
        )
    if len(plans) > 1:
        check_marked(several)
        foreign = [
            entry.name
            for entry in sorted(output.glob("[!.]*"))
            if not several.exists() and not (entry / RUN_FILES[0]).exists()
        ]
        if foreign:
            raise UserError(
                f"The folder {output} is not empty and does not hold runs alone (there is "
                f"{foreign[0]}): name another with --output."
            )
    for plan in plans:
        if options.resume and not plan.folder.is_free():
            plan.folder.check_resume(_made_of(plan))
        elif not options.resume:
            plan.folder.check_start(overwrite=options.overwrite)


def stated(options: Run) -> dict[str, Any]:
    """A run's options as plain values, without where it goes."""
    return {name: value for name, value in plain_values(options).items() if name not in PLACES}


def _made_of(plan: Planned) -> dict[str, Any]:
    return {"command": plan.command, "options": stated(plan.options), "seed": plan.seed}


def run(
    plan: Planned, begin: Callable[[], None], images: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make a run, or go on with it; return its result.

    A folder whose run is finished is left as it is when it is resumed.

    Args:
        plan: of the run.
        begin: called before anything is written.
        images: fingerprint of the images of another run, with which this one must agree.
    """
    folder, options = plan.folder, plan.options
    if options.resume and not folder.is_free():
        folder.check_resume(_made_of(plan))
        with folder.hold():
            if folder.is_finished():
                return read_json(folder.result_path)
            begin()
            built = plan.build()
            before = folder.read_run()
            check_same_images(before.get("data"), built.data, folder.path)
            then = field(before, "initial", dict, folder.marker_path).get("sha256")
            if then != built.initial.sha256:
                raise UserError(
                    f"The run in {folder.path} was started from another checkpoint (SHA-256 "
                    f"{then}, not {built.initial.sha256}): name the same with --pretrained."
                )
            folder.resume(_with_what_was_read(plan, built))
            return built.train(folder)
    folder.check_start(overwrite=options.overwrite)
    # Built first, so that a mistake leaves no folder behind.
    built = plan.build()
    check_same_images(images or built.data, built.data, folder.path.parent)
    begin()
    with folder.hold():
        folder.start(_with_what_was_read(plan, built), overwrite=options.overwrite)
        return built.train(folder)


def _with_what_was_read(plan: Planned, built: Built) -> dict[str, Any]:
    return {**_made_of(plan), "data": built.data, "initial": built.initial._asdict()}
