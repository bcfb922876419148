"""The one training loop: seeded steps on `accelerate`, evaluated at intervals, resumable anywhere.

Whatever a step draws at random (batch, augmentations, dropout, mined negatives, mixing factors)
follows from the seed and the step's number alone, so that a resumed run repeats what an
uninterrupted one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from core_tuning.config import TrainingOptions
from core_tuning.data.loading import load_batches
from core_tuning.errors import UserError
from core_tuning.stopping import Stopped, undisturbed

from .evaluate import Evaluated
from .learner import Learner
from .optimisation import make_accelerator, make_optimizer, rate
from .progress import Progress
from .recorder import RunRecorder
from .seeds import derive_seed
from .state import TrainingState


class Batches(Protocol):
    """Where the batches of a run come from.

    Attributes:
        steps: optimiser steps of the whole run.
    """

    steps: int

    def loader(self, start: int) -> DataLoader:
        """Load the batches (images (n, 3, h, w) in [0, 1], labels (n,)) from a step on."""

    def epoch(self, step: int) -> float:
        """Return how often so many steps have seen the training data."""


class ChangedBatch(NamedTuple):
    """Images (m, 3, h, w) in [0, 1], labels (m,), and weights (m,) of the objective or None."""

    images: Tensor
    labels: Tensor
    weights: Tensor | None = None


class BatchChange(Protocol):
    """Changes micro-batches on the device, and measures what the log should say of them.

    Attributes:
        figures: names of what `measure` returns, for the progress bar and the metrics.
    """

    figures: tuple[str, ...]

    def change(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: float
    ) -> ChangedBatch:
        """Change images (n, 3, h, w) and labels (n,).

        Args:
            images: in [0, 1].
            labels: of the images.
            generator: seeded by the run's seed and the step alone.
            epoch: epochs trained so far, a fraction in the middle of one.
        """

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return each of `figures` for the logits (m, K) of the last changed batch, on its device.

        They are averaged until an evaluation, each batch weighing as much as it has images.
        """


class Evaluator(NamedTuple):
    """What is measured while a run goes on, and when.

    Attributes:
        measure: evaluates a learner, and its score selects the model; None keeps the last one.
        every: optimiser steps between evaluations; there is one after the last step anyway.
        first: whether the first step is followed by one, and each `every` steps after that, as in
            DomainBed; or else step `every` is.
    """

    measure: Callable[[Learner, int], Evaluated] | None
    every: int
    first: bool = False

    def is_due(self, step: int, steps: int) -> bool:
        """Whether there is an evaluation after so many steps."""
        return step == steps or (step - int(self.first)) % self.every == 0


def fit(
    learner: Learner,
    batches: Batches,
    evaluator: Evaluator,
    settings: TrainingOptions,
    recorder: RunRecorder,
    *,
    seed: int,
    change: BatchChange | None = None,
    label: str = "training",
) -> TrainingState:
    """Train a learner, from the recorder's checkpoint if it has one.

    Args:
        learner: moved to the device and trained in place.
        batches: of images and labels.
        evaluator: says what is measured and when, of the learner or, with `settings.ema`, of its
            average.
        settings: how to optimise, and on what.
        recorder: receives metrics, checkpoints and models.
        seed: of everything that is drawn at random.
        change: changes each micro-batch on the device before the forward pass.
        label: in front of the progress bar.

    Raises:
        UserError: a loss is not finite (the last good checkpoint is kept), or the device is
            missing.
        Stopped: a signal asked for it, between steps or in an evaluation; all is saved.
    """
    run = _Run(learner, batches, evaluator, settings, recorder, seed, change)
    state = run.state
    # Before the bar, because some sources read their images with a bar of their own.
    loader = batches.loader(state.step)
    progress = Progress(batches.steps, state.step, label)
    try:
        # Stopped in the middle of an evaluation, whose step was saved before it.
        if run.is_due() and state.recorded < state.step:
            progress.say(run.evaluate())
        began = time.monotonic()
        for images, labels in load_batches(loader):
            with undisturbed():
                run.step(images, labels)
                state.step_seconds += time.monotonic() - began
                if progress.advance():
                    progress.show(**state.averages())
                    run.check_finite()
            if run.is_due():
                # Kept before, because whatever ends this process in there ends it for good.
                run.save()
                progress.say(run.evaluate())
            elif time.monotonic() - run.saved_at >= 60 * settings.checkpoint_minutes:
                run.save()
            began = time.monotonic()
    except Stopped:
        with undisturbed():
            run.save()
        raise
    finally:
        progress.close()
        recorder.close()
    return state


@dataclass
class _Run:
    """What `fit` works on."""

    learner: Learner
    batches: Batches
    evaluator: Evaluator
    settings: TrainingOptions
    recorder: RunRecorder
    seed: int
    change: BatchChange | None

    def __post_init__(self) -> None:
        settings, learner = self.settings, self.learner
        self.accelerator = make_accelerator(settings.device, settings.precision)
        device = self.accelerator.device
        learner.to(device)
        if settings.channels_last:
            learner.to(memory_format=torch.channels_last)
        learner.train()
        optimizer = self.accelerator.prepare(make_optimizer(learner.parameters(), settings))
        figures = () if self.change is None else self.change.figures
        self.state = TrainingState(
            learner, optimizer, self.accelerator, ema=settings.ema, figures=figures
        )
        encoder = learner.image_encoder
        self.encode = torch.compile(encoder) if settings.compile else encoder
        self.generator = torch.Generator(device)
        self.recorder.restore(self.state)
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether an evaluation follows the last step."""
        step = self.state.step
        return step > 0 and self.evaluator.is_due(step, self.batches.steps)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one optimiser step on images (n, 3, h, w) in [0, 1] and labels (n,)."""
        settings, state = self.settings, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = rate(settings, state.step, self.batches.steps)
        # Layers such as dropout draw from the global generator.
        torch.manual_seed(derive_seed(self.seed, state.step))
        for number in range(settings.accumulate):
            # Each micro-batch has images of every domain, which follow each other.
            part = slice(number, None, settings.accumulate)
            self._backward(images[part].contiguous(), labels[part].contiguous(), number)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.update_average()
        state.step += 1

    def _backward(self, images: Tensor, labels: Tensor, number: int) -> None:
        state, device, change = self.state, self.accelerator.device, self.change
        self.generator.manual_seed(derive_seed(self.seed, state.step, number))
        batch = ChangedBatch(
            images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        )
        if change is not None:
            epoch = self.batches.epoch(state.step)
            batch = change.change(batch.images, batch.labels, self.generator, epoch)
        images = batch.images
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        learner = self.learner
        with self.accelerator.autocast():
            terms = learner.objective(
                learner.dropout(self.encode(images)),
                batch.labels,
                learner.classifier,
                generator=self.generator,
                **({} if batch.weights is None else {"weights": batch.weights}),
            )
        self.accelerator.backward(terms.total / self.settings.accumulate)
        figures = None
        if change is not None:
            figures = change.measure(terms.logits.detach(), batch.labels)
        state.count(terms, batch.labels, figures)

    def check_finite(self, *, weights: bool = False) -> None:
        """Stop the run unless losses, or losses and weights, are finite: nothing else is kept."""
        what = self.state.what_is_not_finite(weights=weights)
        if what:
            folder = self.recorder.folder
            kept = "no checkpoint was written before that"
            if folder.checkpoint_path.exists():
                kept = f"the last good checkpoint is kept in {folder.path}"
            raise UserError(
                f"{what}: lower --lr (now {self.settings.lr}) or --eta and start anew; {kept}."
            )

    def save(self) -> None:
        """Replace the checkpoint, if the state is good."""
        with undisturbed():
            self.check_finite(weights=True)
            now = time.monotonic()
            self.state.seconds += now - self.saved_at
            self.saved_at = now
            self.recorder.save(self.state)

    def evaluate(self) -> str:
        """Measure, write it down, keep the model if it is the best, and save; say what came."""
        state = self.state
        last = state.step == self.batches.steps
        line: dict[str, Any] = {
            "step": state.step,
            "epoch": round(self.batches.epoch(state.step), 4),
            "lr": state.optimizer.param_groups[0]["lr"],
            "train": state.averages(),
            "step_time": state.step_seconds / max(1, state.step - state.recorded),
        }
        measure = self.evaluator.measure
        measured = None if measure is None else measure(state.evaluated, state.step)
        if measured is not None:
            line["validation"] = measured.summary()
        line["seconds"] = round(state.seconds + time.monotonic() - self.saved_at, 2)
        with undisturbed():
            self.check_finite(weights=True)
            best = last if measured is None else measured.score > state.best_score
            if best:
                state.best_step = state.step
                state.best_score = state.best_score if measured is None else measured.score
            self.recorder.keep_model(state.evaluated, state.step, best=best, last=last)
            said = self.recorder.record(line, measured)
            state.count_anew()
            self.save()
        return said
