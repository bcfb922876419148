"""The training loop: epochs of seeded batches on `accelerate`, resumable at any step.

Whatever a step draws at random (batch, augmentations, mined negatives, mixing factors) follows
from the seed and the step's number alone, so that a resumed run repeats what an uninterrupted
one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from core_tuning.data.loading import EpochSampler, Key, image_loader, load_batches
from core_tuning.errors import UserError
from core_tuning.stopping import Stopped, undisturbed

from .batch_change import BatchChange, ChangedBatch
from .evaluation import Evaluated
from .folder import RunFolder
from .learner import Learner
from .progress import Progress
from .randomness import derive_seed
from .schedules import SCHEDULES
from .settings import Settings, make_accelerator, make_optimizer
from .state import TrainingState

Validate = Callable[[Learner], Evaluated]
EpochHook = Callable[[dict[str, Any]], None]


def fit(
    learner: Learner,
    train: Dataset,
    validate: Validate | None,
    settings: Settings,
    folder: RunFolder,
    *,
    facts: dict[str, Any],
    change: BatchChange | None = None,
    on_epoch: EpochHook | None = None,
    label: str = "training",
) -> TrainingState:
    """Train a learner, from the folder's checkpoint if it has one.

    Args:
        learner: moved to the device and trained in place.
        train: data set of (image (3, h, w) in [0, 1], label), keyed by (index, seed).
        validate: evaluates a learner on the validation split: this one, or its average where
            `settings.ema` asks for that; None trains without one.
        settings: how to optimise.
        folder: a started or resumed run folder; receives metrics, checkpoints, and the model of
            the best validation score (of the last epoch if there is no validation split).
        facts: written into the exported model's metadata.
        change: changes each micro-batch on the device before the forward pass.
        on_epoch: called with each line of metrics.jsonl.
        label: in front of the progress bar.

    Raises:
        UserError: a loss is not finite (the last good checkpoint is kept), the device is
            missing, or a batch is larger than the training data.
        Stopped: a signal asked for it, between steps or in an evaluation; all is saved.
    """
    run = _Run(learner, train, validate, settings, folder, facts, change)
    progress = Progress(run.batches.steps, run.state.step, label)
    try:
        while run.state.epoch < run.batches.epochs:
            for images, labels in load_batches(run.loader):
                with undisturbed():
                    run.step(images, labels)
                    if progress.advance():
                        progress.show(**run.state.averages())
                        run.check_finite()
                    run.save_if_due()
            line = run.finish_epoch()
            if on_epoch is not None:
                on_epoch(line)
    except Stopped:
        with undisturbed():
            run.save()
        raise
    finally:
        progress.close()
    return run.state


class _Batches:
    """Keys of the batches that are left of the state's epoch; none if only its end is left."""

    def __init__(self, sampler: EpochSampler, steps: int, state: TrainingState) -> None:
        self.sampler = sampler
        self.steps = steps
        self.epochs = -(-steps // len(sampler))
        self.state = state

    def last_finished_step(self) -> int:
        """Return the step of the last metrics line; a line written after it will come again."""
        return min(self.state.epoch * len(self.sampler), self.steps)

    def _start(self) -> int:
        return self.state.step - self.state.epoch * len(self.sampler)

    def __len__(self) -> int:
        return min(len(self.sampler) - self._start(), self.steps - self.state.step)

    def __iter__(self) -> Iterator[list[Key]]:
        return islice(self.sampler.batches(self.state.epoch, self._start()), len(self))


class _Run:
    """What `fit` works on: the state, the batches and the folder."""

    def __init__(
        self,
        learner: Learner,
        train: Dataset,
        validate: Validate | None,
        settings: Settings,
        folder: RunFolder,
        facts: dict[str, Any],
        change: BatchChange | None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.facts = facts
        self.validate = validate
        self.change = change
        self.accelerator: Accelerator = make_accelerator(settings)
        device = self.accelerator.device
        learner.to(device)
        if settings.channels_last:
            learner.to(memory_format=torch.channels_last)
        learner.train()
        optimizer = self.accelerator.prepare(make_optimizer(learner.parameters(), settings))
        self.state = TrainingState(
            learner,
            optimizer,
            self.accelerator,
            ema=settings.ema,
            figures=change.figures if change else (),
        )
        self.encode = (
            torch.compile(learner.image_encoder) if settings.compile else learner.image_encoder
        )
        self.generator = torch.Generator(device)
        checkpoint = folder.load_checkpoint(self.state.state_dict())
        if checkpoint is not None:
            self.state.load_state_dict(checkpoint)
        self._check_metrics()
        self._load_batches(train)
        folder.forget_metrics_after(self.batches.last_finished_step())
        self.started = time.monotonic()
        self.saved_at = self.started

    def _check_metrics(self) -> None:
        """Stop where a line is lost: whatever reads them would take the run for a shorter one."""
        epochs = [line.get("epoch") for line in self.folder.read_metrics()]
        for epoch in range(1, self.state.epoch + 1):
            if epoch not in epochs:
                raise UserError(
                    f"{self.folder.metrics_path} lacks the line of epoch {epoch}, which the run "
                    "has finished: restore the file, or start again with --overwrite."
                )

    def _load_batches(self, train: Dataset) -> None:
        settings = self.settings
        images = len(train)  # type: ignore[arg-type]
        sampler = EpochSampler(images, settings.batch_size, settings.seed)
        steps = settings.epochs * len(sampler)
        if settings.limit_steps is not None:
            steps = min(steps, settings.limit_steps)
        self.batches = _Batches(sampler, steps, self.state)
        self.loader = image_loader(train, self.batches, settings.workers, keep_workers=True)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one optimiser step on images (n, 3, h, w) in [0, 1] and labels (n,)."""
        settings, state = self.settings, self.state
        done = state.step / self.batches.steps
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr * SCHEDULES[settings.schedule](done)
        parts = zip(
            images.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True
        )
        for number, (part, part_labels) in enumerate(parts):
            self._backward(part, part_labels, number)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.update_average()
        state.step += 1

    def _backward(self, images: Tensor, labels: Tensor, number: int) -> None:
        state, device = self.state, self.accelerator.device
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        self.generator.manual_seed(derive_seed(self.settings.seed, state.step, number))
        batch = ChangedBatch(images, labels)
        if self.change is not None:
            epoch = state.step / len(self.batches.sampler)
            batch = self.change.change(images, labels, self.generator, epoch)
        images = batch.images
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        learner = state.learner
        with self.accelerator.autocast():
            terms = learner.objective(
                self.encode(images),
                batch.labels,
                learner.classifier,
                generator=self.generator,
                **({} if batch.weights is None else {"weights": batch.weights}),
            )
        self.accelerator.backward(terms.total / self.settings.accumulate)
        figures = None
        if self.change is not None:
            figures = self.change.measure(terms.logits.detach(), batch.labels)
        state.count(terms, batch.labels, figures)

    def check_finite(self) -> None:
        """Stop the run if a loss was not finite; what is saved is older and good."""
        bad_step = self.state.first_bad_step()
        if bad_step is not None:
            raise self._not_finite(f"The loss is not finite at step {bad_step}")

    def check_good(self) -> None:
        """Stop the run unless losses and weights are finite: nothing else is kept."""
        self.check_finite()
        # A finite loss may have a gradient that is not.
        if not self.state.has_finite_weights():
            raise self._not_finite(f"The weights are not finite after step {self.state.step}")

    def _not_finite(self, what: str) -> UserError:
        kept = "no checkpoint was written before that"
        if self.folder.checkpoint_path.exists():
            kept = f"the last good checkpoint is kept in {self.folder.path}"
        return UserError(
            f"{what}: lower --lr (now {self.settings.lr}) or --eta and start anew; {kept}."
        )

    def save_if_due(self) -> None:
        """Save in the middle of an epoch, if the last checkpoint is old enough."""
        if time.monotonic() - self.saved_at >= 60 * self.settings.checkpoint_minutes:
            self.save()

    def save(self) -> None:
        """Replace the folder's checkpoint, if the state is good."""
        self.check_good()
        now = time.monotonic()
        self.state.seconds += now - self.started
        self.started = self.saved_at = now
        self.folder.save_checkpoint({**self.state.state_dict(), "config": self.facts})

    def finish_epoch(self) -> dict[str, Any]:
        """Evaluate, write the metrics, export the model if it is the best, and save."""
        state, settings = self.state, self.settings
        epoch = state.epoch + 1
        line: dict[str, Any] = {
            "epoch": epoch,
            "step": state.step,
            "lr": state.optimizer.param_groups[0]["lr"],
            "train": state.averages(),
            "seconds": round(state.seconds + time.monotonic() - self.started, 2),
        }
        is_last = state.step == self.batches.steps
        validation = None
        if self.validate is not None and (is_last or epoch % settings.eval_every == 0):
            # Kept before, because whatever ends this process in an evaluation ends it for good.
            self.save()
            validation = self.validate(state.evaluated)
            line["validation"] = validation.summary()
        with undisturbed():
            self.check_good()
            if self.validate is None:
                self._export(epoch)
            elif validation is not None and validation.score > state.best_score:
                state.best_score = validation.score
                self._export(epoch)
            self.folder.append_metrics(line)
            state.epoch = epoch
            state.begin_epoch()
            self.save()
        return line

    def _export(self, epoch: int) -> None:
        self.state.best_epoch = epoch
        self.folder.save_model(self.state.evaluated.export({**self.facts, "epoch": epoch}))
