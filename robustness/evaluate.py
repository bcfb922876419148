"""`core-tuning robust evaluate`: clean and robust accuracy of a model, and signs of masking."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import core_tuning
from core_tuning.config import MOVABLE
from core_tuning.data import (
    check_same_images,
)
from core_tuning.errors import UserError
from core_tuning.files import append_line
from core_tuning.options import plain_values
from core_tuning.training.folder import RunFolder, environment
from core_tuning.training.optimisation import choose_device
from core_tuning.training.seeds import same_random_states, seed_everything

from .attack.autoattack import check_pyautoattack, collect_warnings
from .attack.pgd import check_torchattacks
from .attack.view import AttackView, device_of
from .budgets import NORMS, describe_eps, make_budget
from .config import RobustEvaluate
from .masking import Checked, check_masking
from .measure import (
    accuracy,
    as_float,
    bits,
    classify,
    measure,
    right_without_attack,
    strict_float32,
)
from .pixels import (
    group,
    l2_equivalent,
)
from .prepare import Job, Setup, plan_rows, prepare
from .protocols import PROTOCOLS, Stage
from .report import FILES as REPORT_FILES
from .report import Clean, Examples, Report, printed, write_report
from .rows import Row, Rows, read_whole_lines

# What an evaluation writes.
FILES = ("rows.jsonl", ".row.json", "masking.jsonl", *REPORT_FILES)
VERSIONED = ("torch", "torchvision", "torchattacks", "pyautoattack")
COMMAND = "robust evaluate"
# What does not tell one evaluation from another: where it lies, and which rows are asked of it,
# because each row says itself what it is.
NOT_STATED = frozenset(
    ("model", "module", "output", "resume", "overwrite", "attacks", "norm", *NORMS,
     "masking_checks")
)  # fmt: skip
# The masking checks cost about as much as a row each: so many images show what they look for.
MASKING_IMAGES = 200
EXAMPLES = 6
# Smallest side in pixels that Square's pattern for L2 can be laid on.
SMALLEST_SIDE = 5

Transform = Callable[[Image.Image], Tensor]


def main(options: RobustEvaluate) -> None:
    """Run the command, for each run of a folder that holds several."""
    runs = sorted(options.model.glob("seed-*")) if options.model is not None else []
    if runs and options.output is not None:
        raise UserError(f"{options.model} holds several runs: evaluate one of them with --output.")
    for one in [dataclasses.replace(options, model=run) for run in runs] or [options]:
        evaluate(one)


def evaluate(options: RobustEvaluate) -> Report:
    """Measure clean and robust accuracy of a model, and look for masked gradients.

    Nothing is written before model, images and options are known to fit.

    Raises:
        UserError: they do not, or a package is missing, or the folder holds something else.
    """
    check_torchattacks()
    if options.masking_checks or {"square", "autoattack"} & set(options.attacks):
        check_pyautoattack()
    device = choose_device(options.device)
    folder = RunFolder(options.output or options.default_output(), FILES)
    if not options.resume:
        folder.check_start(overwrite=options.overwrite)
        if not folder.is_free() and folder.read_run().get("command") != COMMAND:
            raise UserError(
                f"The folder {folder.path} holds a run, not an evaluation: name another with "
                "--output."
            )
    with strict_float32(device), same_random_states():
        # A randomised model draws from the global generators.
        seed_everything(options.seed)
        setup = prepare(options, device)
        jobs = plan_rows(setup)
        with _opened(folder, setup):
            clean = _measure_clean(setup)
            rows = _measure_rows(setup, jobs, Rows(folder.path))
            masking = _look_for_masking(setup, folder.path) if options.masking_checks else []
            machine = {
                "device": str(device),
                "precision": "float32",
                "batch_size": options.batch_size,
            }
            report = Report(
                setup.subject.facts,
                setup.randomness,
                setup.data,
                {**environment(), **versions(), **machine},
                clean,
                rows,
                [found.with_rows(rows) for found in masking],
                setup.pixels.network.labels.tolist(),
            )
            write_report(folder.path, report, _attack_examples(setup))
    print("\n".join(printed(report)))
    print(f"see report.html, report.md, report.json, images.csv and figures/ in {folder.path}")
    return report


@contextmanager
def _opened(folder: RunFolder, setup: Setup) -> Iterator[None]:
    """Hold the folder, started or gone on with; its config tells this evaluation from another."""
    options, facts = setup.options, setup.subject.facts
    config = {k: value for k, value in plain_values(options).items() if k not in NOT_STATED}
    config |= {"dataset": setup.data.dataset, "n": setup.data.n, "total": setup.data.total}
    config |= {"weights": facts["weights"], "code": facts.get("code")}
    run = {"command": COMMAND, "options": config, "data": setup.splits.fingerprint}
    with folder.hold():
        if options.resume and not folder.is_free():
            before = folder.read_run().get("data")
            folder.check_resume({**run, "data": before}, may_differ=MOVABLE)
            check_same_images(before, setup.splits.fingerprint, folder.path)
            folder.resume(run, may_differ=MOVABLE)
        else:
            folder.start(run, overwrite=options.overwrite)
        yield


def _measure_clean(setup: Setup) -> Clean:
    """Measure accuracy without an attack, in the attacked space and at the network's input."""
    pixels, batch_size = setup.pixels, setup.options.batch_size
    right = right_without_attack(setup.model, pixels.attacked, batch_size=batch_size)
    usual = None
    if setup.options.attack_space == "native":
        as_input = right_without_attack(
            setup.subject.model, [pixels.network], batch_size=batch_size
        )
        usual = accuracy(int(as_input.sum()), len(as_input))
    return Clean(accuracy(int(right.sum()), len(right)), bits(right), usual)


def versions() -> dict[str, str]:
    """Return the versions of what a row depends on."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    found = {name: installed.get(name, "not installed") for name in VERSIONED}
    return {"core-tuning": core_tuning.__version__, **found}


def _measure_rows(setup: Setup, jobs: Sequence[Job], rows: Rows) -> list[Row]:
    """Measure the rows that are missing, write each of them, and return all."""
    options, pixels, data = setup.options, setup.pixels, setup.data
    view = AttackView(setup.model)
    missing = [job for job in jobs if rows.find(job.protocol.name, job.norm, job.eps) is None]
    with _Bar(missing, data.n, view) as bar:
        for job in missing:
            bar.set_description_str(str(job))
            protocol, norm, eps, notes = job
            key, started = f"{protocol.name} {norm} {eps!r}", time.monotonic()
            before = rows.unfinished(key, data.n, len(protocol.stages))
            with collect_warnings() as warnings:
                found = measure(
                    setup.model, view, pixels.attacked, protocol, norm, eps,
                    seed=options.seed, batch_size=options.batch_size, outcome=before,
                    save=partial(rows.save, key), on_batch=bar.settle,
                )  # fmt: skip
            counted = accuracy(int(found.robust.sum()), data.n)
            after = [
                [stage.name, int(found.is_right_after(number).sum())]
                for number, stage in enumerate(protocol.stages, start=1)
            ]
            budget = make_budget(norm, eps, steps=protocol.steps) if protocol.steps else None
            largest, native = l2_equivalent(
                norm, eps, options.attack_space, pixels, setup.transform
            )
            row = Row(
                attack=protocol.name,
                title=protocol.title,
                norm=norm,
                eps=eps,
                eps_text=describe_eps(norm, eps),
                space=options.attack_space,
                n=counted.n,
                correct=counted.correct,
                robust=counted.percent,
                low=counted.low,
                high=counted.high,
                images=bits(found.robust),
                after=after if len(after) > 1 else [],
                restarts=len(protocol.stages) if budget else 1,
                steps=budget and budget.steps,
                step_size=budget and budget.step_size,
                zero_gradients=found.zero_gradients,
                largest_l2=largest,
                largest_l2_native=statistics.median(native),
                largest_l2_native_range=[min(native), max(native)],
                notes=notes,
                warnings=warnings,
                # What an earlier process took is not known.
                seconds=None if before else round(time.monotonic() - started, 1),
                device=str(device_of(setup.model)),
                versions=versions(),
            )
            rows.append(row)
            said = f"{job}: {row.robust:.2f}% [{row.low:.2f}, {row.high:.2f}]"
            bar.write(said, file=sys.stderr)
    return rows.finished


class _Bar(tqdm):
    """Share of the work that is done, and the time left, on stderr.

    Work is counted in forward passes of an image, of which fooled images need fewer: the time
    left is at most what is shown.
    """

    def __init__(self, jobs: Sequence[Job], images: int, view: nn.Module) -> None:
        work = sum(stage.cost for job in jobs for stage in job.protocol.stages)
        form = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed} passed, {remaining} left"
        super().__init__(
            total=images * work,
            mininterval=0.5,
            smoothing=0.1,
            disable=None if jobs else True,
            bar_format=form,
        )
        self.settled = 0
        view.register_forward_hook(self._tick)

    def _tick(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.update(len(inputs[0]) * (2 if inputs[0].requires_grad else 1))

    def settle(self, images: int, stage: Stage) -> None:
        """Count images as done with a stage, whatever it took."""
        self.settled += images * stage.cost
        self.n = self.settled
        self.refresh()


def _look_for_masking(setup: Setup, folder: Path) -> list[Checked]:
    """Check each norm at its largest eps, and keep what was found."""
    options, path = setup.options, folder / "masking.jsonl"
    found = read_whole_lines(path, Checked)
    model, whole, space = setup.model, setup.pixels.attacked[0], options.attack_space
    if len(setup.pixels.attacked) > 1:
        # Too few of each size to tell anything: the network is looked at without the resizing.
        model, whole, space = setup.subject.model, setup.pixels.network, "input"
    chosen = group(as_float(whole.images[:MASKING_IMAGES]), whole.labels[:MASKING_IMAGES])
    for norm, eps in options.largest().items():
        if any((line.norm, line.eps) == (norm, eps) for line in found):
            continue
        checks = check_masking(
            model, chosen, norm, eps, seed=options.seed, batch_size=options.batch_size,
            on_progress=partial(print, f"masking, {norm}:", file=sys.stderr),
        )  # fmt: skip
        found.append(Checked(norm, eps, len(chosen.labels), space, checks))
        append_line(path, dataclasses.asdict(found[-1]))
    return found


def _attack_examples(setup: Setup) -> Examples | None:
    """Attack a few images that are classified right, by PGD-10 at the first norm's largest eps."""
    options, model, classes = setup.options, setup.model, setup.splits.classes
    images, labels, _ = max(setup.pixels.attacked, key=lambda group: len(group.labels))
    predicted = classify(model, images, batch_size=options.batch_size)
    chosen = (predicted == labels).nonzero().flatten()[:EXAMPLES]
    if not len(chosen):
        return None
    norm, eps = next(iter(options.largest().items()))
    clean = as_float(images[chosen].to(device_of(model)))
    truth = labels[chosen].to(clean.device)
    [stage] = PROTOCOLS["pgd10"].stages
    adversarial = stage.attack(AttackView(model), clean, truth, norm, eps, options.seed)
    fooled = classify(model, adversarial, batch_size=options.batch_size)
    titles = [
        f"{classes[true]} → {classes[now]}" if true != now else f"{classes[true]} (kept)"
        for true, now in zip(truth.tolist(), fooled.tolist(), strict=True)
    ]
    before, after = np.asarray(clean.cpu()), np.asarray(adversarial.cpu())
    return Examples(before, after, titles, f"{norm} eps {describe_eps(norm, eps)}")
