"""`core-tuning robust evaluate`: clean and robust accuracy of a model, and signs of masking."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

import core_tuning
from core_tuning.data import build_transforms, check_same_images, describe_change
from core_tuning.errors import UserError
from core_tuning.files import append_line
from core_tuning.options import plain_values
from core_tuning.report.page import Section
from core_tuning.training.folder import RunFolder, environment
from core_tuning.training.optimisation import choose_device
from core_tuning.training.seeds import same_random_states, seed_everything

from .attack.autoattack import check_pyautoattack, collect_warnings
from .attack.pgd import check_torchattacks
from .attack.view import AttackView, device_of
from .budgets import NORMS, beyond_usual, check_reach, describe_eps
from .config import RobustEvaluate
from .masking import Checked, check_masking
from .measure import as_float, classify, measure, right_without_attack, strict_float32
from .own_module import own_code
from .pixels import ResizedInside, choose_images, describe_sizes, group, native_l2, read_pixels
from .protocols import GRADIENT_PROTOCOLS, PROTOCOLS, Protocol, choose_protocol
from .report import FILES as REPORT_FILES
from .report import Report, examples_section, printed, write_report
from .rows import Row, Rows, accuracy, bits, read_whole_lines
from .subject import inspect_answers, load_subject

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
PROBED = 32
# Smallest side in pixels that Square's pattern for L2 can be laid on.
SMALLEST_SIDE = 5


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
        evaluation = Evaluation(options, device)
        jobs = evaluation.plan()
        with evaluation.opened(folder):
            report = evaluation.run(jobs, folder.path)
            write_report(folder.path, report, evaluation.examples(folder.path / "figures"))
    print("\n".join(printed(report)))
    print(f"see report.html, report.md, report.json, images.csv and figures/ in {folder.path}")
    return report


class Job(NamedTuple):
    """A row that is asked for, and what is to be said of it."""

    protocol: Protocol
    norm: str
    eps: float
    notes: list[str]

    def __str__(self) -> str:
        return f"{self.protocol.name} {self.norm} {describe_eps(self.norm, self.eps)}"


class Evaluation:
    """What is evaluated on what; `model` takes what is attacked, `subject.model` its own input.

    Args:
        options: of the command.
        device: to compute on.

    Raises:
        UserError: model and images do not fit each other.
    """

    def __init__(self, options: RobustEvaluate, device: torch.device) -> None:
        self.options, self.device = options, device
        self.subject = subject = load_subject(options)
        with own_code(f"Moving {subject.facts['source']} to {device}", "name another --device"):
            subject.model.to(device)
        self.splits = subject.splits(options)
        images = getattr(self.splits, options.split)
        if not len(images):
            raise UserError(
                f"The {options.split} split of {subject.dataset} is empty: name another --split."
            )
        indices = choose_images(len(images), options.wanted(len(images)), options.seed)
        self.transform = build_transforms(subject.recipe, subject.image_size).evaluate
        self.pixels = read_pixels(
            images, indices, self.transform, options.attack_space, workers=options.workers
        )
        self.model = subject.model
        if options.attack_space == "native":
            self.model = ResizedInside(self.model, self.transform).eval()
        probed = max((group.images[:PROBED] for group in self.pixels.attacked), key=len)
        self.randomness = inspect_answers(
            self.model, as_float(probed.to(device)), len(self.splits.classes)
        )
        self.data = {
            "dataset": subject.dataset,
            "split": options.split,
            "description": self.splits.split,
            "classes": self.splits.classes,
            "n": len(indices),
            "total": len(images),
            "seed": options.seed,
            "warnings": [*self.splits.warnings, *self._warnings()],
            "attack_space": options.attack_space,
            "input_size": describe_sizes([(subject.image_size, subject.image_size)]),
            "native_size": describe_sizes(self.pixels.sizes),
            "indices": indices,
        }

    def _warnings(self) -> Iterator[str]:
        run = self.subject.run or {}
        change = None
        if "data" in run:
            change = describe_change(run["data"], self.splits.fingerprint)
        if change is not None:
            yield f"The images are not those of the run: {change}."
        if self.options.split == "validation":
            yield (
                "The model may have been trained or selected on these images (selection: "
                f"{self.subject.facts['selection']}): its figures on them are too good."
            )

    def plan(self) -> list[Job]:
        """The rows that are asked for, in order; what is to be said of them is printed.

        Raises:
            UserError: the images are too small for an attack, or for an eps.
        """
        options, is_randomised = self.options, self.randomness.is_randomised
        sizes = [(each.images.shape[-2], each.images.shape[-1]) for each in self.pixels.attacked]
        smallest = min(sizes, key=math.prod)
        if {"square", "autoattack"} & set(options.attacks) and min(map(min, sizes)) < SMALLEST_SIDE:
            raise UserError(
                f"Images of {describe_sizes(sizes)} pixels are too small for Square, which needs "
                f"{SMALLEST_SIDE}: leave autoattack and square out of --attacks."
            )
        jobs = []
        for norm, eps in options.budgets():
            check_reach(norm, eps, 3 * math.prod(smallest))
            large = beyond_usual(norm, eps, smallest)
            seen = f"{large}: such a change can be seen, and may change what the image shows."
            for name in options.attacks:
                protocol = choose_protocol(
                    name,
                    len(self.splits.classes),
                    queries=options.square_queries,
                    is_randomised=is_randomised,
                )
                notes = [note for note in (protocol.note, large and seen) if note]
                jobs.append(Job(protocol, norm, eps, notes))
        said = [self.randomness.sentence()] if is_randomised else []
        for note in dict.fromkeys([*said, *(note for job in jobs for note in job.notes)]):
            print(f"note: {note}")
        return jobs

    @contextmanager
    def opened(self, folder: RunFolder) -> Iterator[None]:
        """Hold the folder, started or gone on with; run.json tells this evaluation from another."""
        options, facts = self.options, self.subject.facts
        stated = {k: value for k, value in plain_values(options).items() if k not in NOT_STATED}
        stated |= {name: self.data[name] for name in ("dataset", "n", "total")}
        stated |= {"weights": facts["weights"], "code": facts.get("code")}
        images = self.splits.fingerprint
        run: dict[str, Any] = {"command": COMMAND, "options": stated, "data": images}
        with folder.hold():
            if options.resume and not folder.is_free():
                folder.check_resume(run)
                check_same_images(folder.read_run().get("data"), images, folder.path)
                folder.resume(run)
            else:
                folder.start(run, overwrite=options.overwrite)
            yield

    def run(self, jobs: list[Job], folder: Path) -> Report:
        """Measure what is asked for and not yet in the folder."""
        options, batch_size = self.options, self.options.batch_size
        right = right_without_attack(self.model, self.pixels.attacked, batch_size=batch_size)
        rows = self._measure_rows(jobs, Rows(folder))
        masking = self._look_for_masking(folder) if options.masking_checks else []
        machine = {"device": str(self.device), "precision": "float32", "batch_size": batch_size}
        return Report(
            subject=self.subject.facts,
            randomness=self.randomness,
            data=self.data,
            labels=self.pixels.network.labels.tolist(),
            environment={**environment(), **versions(), **machine},
            clean=accuracy(right),
            clean_images=bits(right),
            rows=rows,
            masking=[found.with_rows(rows) for found in masking],
        )

    def _measure_rows(self, jobs: list[Job], rows: Rows) -> list[Row]:
        """Measure the rows that are missing, write each of them, and return all."""
        options, pixels, n = self.options, self.pixels, len(self.pixels.sizes)
        view = AttackView(self.model)
        missing = [job for job in jobs if not rows.has(job.protocol.name, job.norm, job.eps)]
        # Fooled images need less than this: the time left is at most what is shown.
        work = n * sum(stage.cost for job in missing for stage in job.protocol.stages)
        form = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed} passed, {remaining} left"
        with tqdm(total=work, smoothing=0.1, disable=not missing, bar_format=form) as bar:
            for job in missing:
                bar.set_description_str(str(job))
                protocol, norm, eps, notes = job
                key = f"{protocol.name} {norm} {eps!r}"
                with collect_warnings() as warnings:
                    found = measure(
                        self.model, view, pixels.attacked, protocol, norm, eps,
                        seed=options.seed, batch_size=options.batch_size,
                        outcome=rows.unfinished(key, n, len(protocol.stages)),
                        save=partial(rows.save, key), on_work=bar.update,
                    )  # fmt: skip
                counted = accuracy(found.robust)
                after = [
                    [stage.name, int(found.is_right_after(number).sum())]
                    for number, stage in enumerate(protocol.stages, start=1)
                ]
                follows = protocol.name in GRADIENT_PROTOCOLS
                row = Row(
                    attack=protocol.name,
                    title=protocol.title,
                    norm=norm,
                    eps=eps,
                    eps_text=describe_eps(norm, eps),
                    space=options.attack_space,
                    n=n,
                    correct=counted.correct,
                    robust=counted.percent,
                    low=counted.low,
                    high=counted.high,
                    images=bits(found.robust),
                    after=after if len(after) > 1 else [],
                    zero_gradients=found.zero_gradients if follows else None,
                    largest_l2_native=native_l2(
                        norm, eps, options.attack_space, pixels, self.transform
                    ),
                    notes=notes,
                    warnings=warnings,
                    versions=versions(),
                )
                rows.append(row)
                said = f"{job}: {row.robust:.2f}% [{row.low:.2f}, {row.high:.2f}]"
                bar.write(said, file=sys.stderr)
        return rows.finished

    def _look_for_masking(self, folder: Path) -> list[Checked]:
        """Check each norm at its largest eps, and keep what was found."""
        options, path = self.options, folder / "masking.jsonl"
        found = read_whole_lines(path, Checked)
        model, whole, space = self.model, self.pixels.attacked[0], options.attack_space
        if len(self.pixels.attacked) > 1:
            # Too few of each size to tell anything: the network is looked at without the resizing.
            model, whole, space = self.subject.model, self.pixels.network, "input"
        chosen = group(as_float(whole.images[:MASKING_IMAGES]), whole.labels[:MASKING_IMAGES])
        for norm, eps in options.largest().items():
            if not any((line.norm, line.eps) == (norm, eps) for line in found):
                checks = check_masking(
                    model, chosen, norm, eps, seed=options.seed, batch_size=options.batch_size
                )
                found.append(Checked(norm, eps, len(chosen.labels), space, checks))
                append_line(path, dataclasses.asdict(found[-1]))
        return found

    def examples(self, drawn: Path) -> list[Section]:
        """Show what PGD-10, at the first norm's largest eps, makes of a few images."""
        options, classes = self.options, self.splits.classes
        images, labels, _ = max(self.pixels.attacked, key=lambda group: len(group.labels))
        predicted = classify(self.model, images, batch_size=options.batch_size)
        chosen = (predicted == labels).nonzero().flatten()[:EXAMPLES]
        if not len(chosen):
            return []
        norm, eps = next(iter(options.largest().items()))
        clean = as_float(images[chosen].to(device_of(self.model)))
        truth = labels[chosen].to(clean.device)
        [stage] = PROTOCOLS["pgd10"].stages
        adversarial = stage.attack(AttackView(self.model), clean, truth, norm, eps, options.seed)
        fooled = classify(self.model, adversarial, batch_size=options.batch_size)
        titles = [
            f"{classes[true]} → {classes[now]}" if true != now else f"{classes[true]} (kept)"
            for true, now in zip(truth.tolist(), fooled.tolist(), strict=True)
        ]
        at = f"{norm} eps {describe_eps(norm, eps)}"
        return [examples_section(clean.cpu().numpy(), adversarial.cpu().numpy(), titles, at, drawn)]


def versions() -> dict[str, str]:
    """Return the versions of what a row depends on."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    found = {name: installed.get(name, "not installed") for name in VERSIONED}
    return {"core-tuning": core_tuning.__version__, **found}
