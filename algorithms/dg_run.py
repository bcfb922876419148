"""One leave-one-domain-out run: DomainBed's protocol, resumable at any step.

Whatever a step draws at random follows from the run's seed and the step alone, so that a resumed
run repeats what an uninterrupted one would have done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from core_tuning.data import check_same_images
from core_tuning.data.loading import SeededTransform, image_loader, load_batches
from core_tuning.errors import UserError
from core_tuning.files import append_line, field, read_lines, write_atomically, write_lines
from core_tuning.selection import source_accuracy
from core_tuning.stopping import Stopped, undisturbed
from core_tuning.training import Learner, RunFolder
from core_tuning.training.progress import Progress
from core_tuning.training.randomness import derive_seed, seed_everything
from core_tuning.training.settings import check_machine

from .algorithm import CLASSES, FineTuning
from .environments import check_splits, check_targets, split_environment
from .evaluation import Protocol, Store, accuracies
from .job import Job, Machine
from .sampling import DomainBatches
from .saved import save_model

Record = dict[str, Any]
RESULTS = "results.jsonl"
# Options that change nothing in a run's result: the images are told by their fingerprint.
MAY_DIFFER = frozenset({"data_dir"})
# What a run's folder holds besides what every kind of run has; one that is alone in its output
# folder has the choices of the three rules beside it.
FILES = (
    RESULTS, "model.pkl", "best_iid.pkl", "model_step*.pkl", "selection.json", "done"
)  # fmt: skip
# Of a checkpoint.
_SAVED = (
    "image_encoder", "classifier", "objective", "optimizer", "step", "counted", "sums", "best",
    "seconds",
)  # fmt: skip


def run_job(
    job: Job, machine: Machine, store: Store, path: Path, *, resume: bool, overwrite: bool
) -> list[Record]:
    """Run a job in a folder, or go on with it; return its records.

    The folder receives results.jsonl and model.pkl as DomainBed writes them, the model of the best
    source validation as best_iid.pkl and model.safetensors, config.json, checkpoint.pt and, at the
    end, `done`.

    Raises:
        UserError: the data or hyper-parameters do not fit, a loss is not finite, or the folder is
            taken.
    """
    folder = RunFolder(path, FILES)
    images = store.environments.fingerprint
    config = {**job.config(machine), "data": images}
    if resume and not folder.is_free():
        check_resume(folder, config, images)
        with folder.hold():
            if not (path / "done").exists():
                run = _Run(job, machine, store, folder)
                folder.resume(config, may_differ=MAY_DIFFER)
                run.restore()
                run.go()
            return _read_records(path / RESULTS)
    folder.check_start(overwrite=overwrite)
    # Built first, so that a mistake leaves no folder behind.
    run = _Run(job, machine, store, folder)
    with folder.hold():
        folder.start(config, overwrite=overwrite)
        run.restore()
        run.go()
        return _read_records(path / RESULTS)


def _read_records(path: Path) -> list[Record]:
    records = read_lines(path)
    for record in records:
        field(record, "step", int, path)
        field(record, "args", dict, path)
    if not records:
        raise UserError(
            f"{path} has no record of a run that is finished: restore the file, or start again "
            "with --overwrite."
        )
    return records


def check_resume(folder: RunFolder, config: Record, images: Mapping[str, Any]) -> None:
    """Raise a UserError unless a folder's run has this configuration and these images."""
    before = folder.read_config().get("data")
    folder.check_resume({**config, "data": before}, may_differ=MAY_DIFFER)
    check_same_images(before, images, folder.path)


class _Run:
    """The state of a run, and what it works on."""

    def __init__(self, job: Job, machine: Machine, store: Store, folder: RunFolder) -> None:
        self.job, self.machine, self.store, self.folder = job, machine, store, folder
        self.results = folder.path / RESULTS
        environments = store.environments
        check_targets(list(job.test_envs), environments)
        self.hparams = job.all_hparams()
        check_splits(environments, job.test_envs, job.holdout_fraction, self.hparams["batch_size"])
        self.splits = [
            split_environment(len(images), job.holdout_fraction, job.trial_seed, number)
            for number, images in enumerate(environments.images)
        ]
        self.sources = [i for i in range(len(self.splits)) if i not in job.test_envs]
        # As in DomainBed, nothing is augmented where training images are not.
        augmented = job.augmented_validation and self.hparams["data_augmentation"]
        self.protocol = Protocol(
            self.splits, self.sources, job.seed, augmented, job.skip_sources_inside
        )
        self.device = check_machine(machine.device, machine.precision)
        self.algorithm = self._build_algorithm()
        self.step = 0
        self.best = -math.inf
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.counted = 0
        self.seconds = 0.0
        self.saved_at = time.monotonic()
        self.generator = torch.Generator(self.device)

    def _build_algorithm(self) -> FineTuning:
        job, size = self.job, self.store.environments.image_size
        seed_everything(job.seed)
        algorithm = CLASSES[job.algorithm](
            (3, size, size), len(self.store.environments.classes), len(self.sources), self.hparams
        )
        algorithm.to(self.device)
        algorithm.to(memory_format=torch.channels_last)
        if self.machine.precision == "bf16":
            algorithm.autocast_dtype = torch.bfloat16
        return algorithm

    def restore(self) -> None:
        """Go back to the last checkpoint, if there is one, and forget the records after it."""
        state = self.folder.load_checkpoint(_SAVED)
        if state is not None:
            self.algorithm.featurizer.image_encoder.load_state_dict(state["image_encoder"])
            self.algorithm.classifier.load_state_dict(state["classifier"])
            self.algorithm.objective.load_state_dict(state["objective"])
            self.algorithm.optimizer.load_state_dict(state["optimizer"])
            self.algorithm.set_steps(state["step"])
            self.step, self.counted = state["step"], state["counted"]
            self.best, self.seconds = state["best"], state["seconds"]
            self.sums.copy_(state["sums"])
        # A record of the last step is of an evaluation that has not been saved with what it found.
        kept = self.step - 1 if self.counted else self.step
        records = [r for r in read_lines(self.results) if r["step"] < kept]
        write_lines(self.results, records)

    def go(self) -> None:
        """Train to the last step, evaluating on the way, and write the model."""
        targets = ",".join(self.store.environments.names[i] for i in self.job.test_envs)
        label = f"{self.job.algorithm}, target {targets}, trial {self.job.trial_seed}"
        # Before the bar, because the images are read with a bar of their own.
        loader = self._loader()
        progress = Progress(self.job.steps, self.step, label)
        started = time.monotonic()
        try:
            # Left by a signal in the middle of an evaluation.
            if self.counted and self._is_due():
                progress.say(self._line(self._evaluate()))
            for images, labels in load_batches(loader):
                with undisturbed():
                    self._step(images, labels)
                    if progress.advance():
                        progress.show(loss=float(self.sums[0]) / self.counted)
                    self.seconds += time.monotonic() - started
                if self._is_due():
                    # Kept before, because whatever ends this process there ends it for good.
                    self._save()
                    progress.say(self._line(self._evaluate()))
                elif time.monotonic() - self.saved_at >= 60 * self.machine.checkpoint_minutes:
                    self._save()
                started = time.monotonic()
        except Stopped:
            with undisturbed():
                self._save()
            raise
        finally:
            progress.close()
        if self.machine.save_models:
            self._save_model("model.pkl")
        write_atomically(self.folder.path / "done", b"done")

    def _loader(self) -> DataLoader:
        job, store = self.job, self.store
        parts = [store.images[i].subset(self.splits[i].inside) for i in self.sources]
        batches = DomainBatches(
            [part.labels for part in parts],
            self.hparams["batch_size"],
            job.seed,
            steps=job.steps,
            start=self.step,
            class_balanced=self.hparams["class_balanced"],
        )
        transforms = store.transforms
        augment = transforms.train if self.hparams["data_augmentation"] else transforms.evaluate
        dataset = SeededTransform(ConcatDataset(parts), augment)
        return image_loader(dataset, batches, self.machine.workers)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        # Dropout draws from the global generator, what is mined and mixed from its own.
        torch.manual_seed(derive_seed(self.job.seed, self.step, 0))
        self.generator.manual_seed(derive_seed(self.job.seed, self.step, 1))
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        terms = self.algorithm.step(images, labels, self.generator)
        values = torch.stack([terms.total, terms.cross_entropy, terms.contrastive])
        self.sums += values.detach().double()
        self.counted += 1
        self.step += 1

    def _is_due(self) -> bool:
        last = self.step - 1
        return last % self.job.evaluate_every == 0 or self.step == self.job.steps

    def _evaluate(self) -> Record:
        """Measure every split, add a line to results.jsonl, keep the best model, and save."""
        self._check_finite()
        last = self.step - 1
        record = self._record(last)
        with undisturbed():
            self.sums.zero_()
            self.counted, self.seconds = 0, 0.0
            validation = source_accuracy(record)
            is_best = validation > self.best
            self.best = max(validation, self.best)
            if self.machine.save_models and is_best:
                self._save_model("best_iid.pkl")
                self.folder.save_model(self._exported(last))
            if self.machine.save_models and self.machine.save_every_model:
                self._save_model(f"model_step{last}.pkl")
            append_line(self.results, record)
            self._save()
        return record

    def _record(self, last: int) -> Record:
        means = (self.sums / self.counted).tolist()
        reported = self.algorithm.reported
        # DomainBed's epoch: of the smallest domain, a target among them.
        smallest = min(len(split.inside) for split in self.splits)
        return {
            "step": last,
            "epoch": last * self.hparams["batch_size"] / smallest,
            **dict(zip(reported, means[: len(reported)], strict=True)),
            **accuracies(self.algorithm, self.store, self.protocol, last),
            "step_time": self.seconds / self.counted,
            "mem_gb": _memory(self.device),
            "hparams": self.hparams,
            "args": self.job.arguments(self.folder.path, self.machine),
        }

    def _check_finite(self) -> None:
        weights = [torch.isfinite(parameter).all() for parameter in self.algorithm.parameters()]
        if not bool(torch.stack([*weights, torch.isfinite(self.sums).all()]).all()):
            raise UserError(
                f"The loss or a weight is not finite by step {self.step - 1}: lower the "
                f"hyper-parameter lr (now {self.hparams['lr']}) or eta and start anew; what "
                f"{self.folder.path} holds is older and good."
            )

    def _line(self, record: Record) -> str:
        shown = [f"step {record['step']}", f"loss {record['loss']:.3f}"]
        for number, name in enumerate(self.store.environments.names):
            role = "target" if number in self.job.test_envs else "source"
            shown.append(f"{name} ({role}) {100 * record[f'env{number}_out_acc']:.1f}%")
        return ", ".join(shown)

    def _save(self) -> None:
        self._check_finite()
        state = {
            "image_encoder": self.algorithm.featurizer.image_encoder.state_dict(),
            "classifier": self.algorithm.classifier.state_dict(),
            "objective": self.algorithm.objective.state_dict(),
            "optimizer": self.algorithm.optimizer.state_dict(),
            "step": self.step,
            "counted": self.counted,
            "sums": self.sums,
            "best": self.best,
            "seconds": self.seconds,
            "config": self._facts(self.step - 1),
        }
        self.folder.save_checkpoint(state)
        self.saved_at = time.monotonic()

    def _save_model(self, name: str) -> None:
        size = self.store.environments.image_size
        save_model(
            self.folder.path / name,
            self.algorithm,
            self.job.arguments(self.folder.path, self.machine),
            (3, size, size),
            len(self.sources),
        )

    def _exported(self, step: int) -> bytes:
        algorithm = self.algorithm
        encoder = algorithm.featurizer.image_encoder
        learner = Learner(encoder, algorithm.classifier, algorithm.objective)
        return learner.export(self._facts(step))

    def _facts(self, step: int) -> dict[str, Any]:
        """What a reader of model.safetensors must know to use it."""
        environments = self.store.environments
        image_encoder = self.algorithm.featurizer.image_encoder
        return {
            "encoder": image_encoder.name,
            "classes": environments.classes,
            "mean": image_encoder.mean.flatten().tolist(),
            "std": image_encoder.std.flatten().tolist(),
            "image_size": environments.image_size,
            "transforms": "domainbed",
            "dataset": self.job.dataset,
            "method": self.job.algorithm,
            "targets": [environments.names[i] for i in self.job.test_envs],
            "seed": self.job.seed,
            "step": step,
        }


def _memory(device: torch.device) -> float:
    """Most memory that tensors took on the GPU, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
