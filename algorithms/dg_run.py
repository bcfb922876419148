"""One leave-one-domain-out run on the training loop: its batches, its recorder and its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader

from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.data.loading import Key, SeededTransform, evaluation_loader, image_loader
from core_tuning.data.splits import seeded_generator
from core_tuning.files import append_line, write_atomically, write_json
from core_tuning.methods import METHODS
from core_tuning.report.run import write_run_report
from core_tuning.training.build import Initial
from core_tuning.training.classify import encoder_facts, worst_images
from core_tuning.training.evaluate import Evaluated, Evaluation, evaluate
from core_tuning.training.folder import RunFolder
from core_tuning.training.learner import Learner
from core_tuning.training.loop import Evaluator, fit
from core_tuning.training.optimisation import check_machine, share_cores
from core_tuning.training.recorder import RunRecorder, keep_lines
from core_tuning.training.state import TrainingState

from .algorithm import CLASSES
from .environments import Split, split_environment
from .evaluation import DomainAccuracies, Protocol, Store, measure
from .protocol import RESULTS, One, read_records, records_of
from .saved import save_model

# A stream apart from every other that is drawn from the run's seed.
_STEPS = 20


class DomainBatches:
    """Keys of the batches of a run, from a step on: `batch_size` of each source, one after another.

    As in DomainBed, images are drawn with replacement, uniformly or with equal weight for each
    class; what a step draws depends on the seed and the step alone.

    Args:
        labels: of the training images of each source domain; their indices run on from one domain
            to the next.
        batch_size: images a domain.
        seed: of the run.
        steps: of the whole run.
        start: first step that is wanted.
        class_balanced: whether classes weigh the same.
    """

    def __init__(
        self,
        labels: Sequence[Sequence[int]],
        batch_size: int,
        seed: int,
        *,
        steps: int,
        start: int = 0,
        class_balanced: bool = False,
    ) -> None:
        self.sizes = [len(part) for part in labels]
        self.weights = [_balanced(part) if class_balanced else None for part in labels]
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.start = start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        return (self.batch(step) for step in range(self.start, self.steps))

    def batch(self, step: int) -> list[Key]:
        """Return the keys (index, seed of the augmentation) of one step."""
        generator = seeded_generator(self.seed, _STEPS, step)
        indices = []
        first = 0
        for size, weights in zip(self.sizes, self.weights, strict=True):
            chosen = generator.choice(size, size=self.batch_size, p=weights)
            indices += (first + chosen).tolist()
            first += size
        seeds = generator.integers(2**63, size=len(indices)).tolist()
        return list(zip(indices, seeds, strict=True))


def _balanced(labels: Sequence[int]) -> np.ndarray:
    counts = Counter(labels)
    weights = np.array([1 / counts[label] for label in labels])
    return weights / weights.sum()


class SourceBatches:
    """Batches of as many images of each source domain.

    Args:
        one: the run.
        store: of the images.
        splits: of each domain.
        sources: numbers of those that are trained on.
    """

    def __init__(self, one: One, store: Store, splits: list[Split], sources: list[int]) -> None:
        self.one, self.store, self.splits, self.sources = one, store, splits, sources
        self.steps: int = one.hparams["total_steps"]

    def loader(self, start: int) -> DataLoader:
        """Load the batches from a step on."""
        one, store = self.one, self.store
        parts = [store.images[i].subset(self.splits[i].inside) for i in self.sources]
        batches = DomainBatches(
            [part.labels for part in parts],
            one.options.batch_size,
            one.seed,
            steps=self.steps,
            start=start,
            class_balanced=one.hparams["class_balanced"],
        )
        transforms = store.transforms
        augment = transforms.train if one.hparams["data_augmentation"] else transforms.evaluate
        return image_loader(
            SeededTransform(ConcatDataset(parts), augment), batches, one.options.workers
        )

    def epoch(self, step: int) -> float:
        """Return DomainBed's epoch: of the smallest domain, a target among them."""
        return step * self.one.options.batch_size / min(len(split.inside) for split in self.splits)


class DomainBedRecorder(RunRecorder):
    """Writes what DomainBed's train.py writes, besides what every run does.

    Its steps are counted from 0 and name the step that was taken last.
    """

    def __init__(
        self, one: One, store: Store, batches: SourceBatches, folder: RunFolder,
        facts: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(folder, facts, one.options)
        self.one, self.store, self.batches = one, store, batches
        self.results = folder.path / RESULTS
        algorithm = METHODS[one.method].domainbed
        self.reported = CLASSES[algorithm].reported
        self.arguments = _arguments(one, algorithm, folder.path)

    def restore(self, state: TrainingState) -> None:
        """Go back to what was saved last, and drop the lines that will be written again."""
        super().restore(state)
        records = [line for line in records_of(self.results) if line["step"] < state.recorded]
        keep_lines(self.results, records, state)

    def keep_model(self, learner: Learner, step: int, *, best: bool, last: bool) -> None:
        """Write the files of the models that are to be kept."""
        options = self.one.options
        if options.skip_model_save:
            return
        super().keep_model(learner, step, best=best, last=last)
        size = self.store.environments.image_size
        every = options.save_model_every_checkpoint
        names = {"best_iid.pkl": best, "model.pkl": last, f"model_step{step - 1}.pkl": every}
        for name in (name for name, wanted in names.items() if wanted):
            save_model(
                self.folder.path / name, learner, step, self.arguments, self.one.hparams,
                (3, size, size), len(self.batches.sources),
            )  # fmt: skip

    def record(self, line: dict[str, Any], measured: Evaluated | None) -> str:
        """Add a line to metrics.jsonl, and one to results.jsonl."""
        assert isinstance(measured, DomainAccuracies)
        super().record(line, measured)
        device = check_machine(self.one.options.device, self.one.options.precision)
        last = line["step"] - 1
        record = {
            "step": last,
            "epoch": self.batches.epoch(last),
            **{name: line["train"][name] for name in self.reported},
            **measured.accuracies,
            "step_time": line["step_time"],
            "mem_gb": _memory(device),
            "hparams": self.one.hparams,
            "args": self.arguments,
        }
        append_line(self.results, record)
        shown = [f"loss {record['loss']:.3f}"]
        for number, name in enumerate(self.store.environments.names):
            role = "target" if number in self.one.targets else "source"
            shown.append(f"{name} ({role}) {100 * record[f'env{number}_out_acc']:.1f}%")
        return ", ".join(shown)


def _arguments(one: One, algorithm: str, folder: Path) -> dict[str, Any]:
    """The `args` of a line of results.jsonl: those of DomainBed's train.py."""
    options, given = one.options, one.asked.given_hparams()
    return {
        "algorithm": algorithm,
        "checkpoint_freq": options.eval_every,
        "data_dir": None if options.data_dir is None else str(options.data_dir),
        "dataset": options.dataset,
        "holdout_fraction": options.holdout_fraction,
        "hparams": json.dumps(given) if given else None,
        "hparams_seed": options.hparams_seed[0],
        "output_dir": str(folder),
        "save_model_every_checkpoint": options.save_model_every_checkpoint,
        "seed": one.seed,
        "skip_model_save": options.skip_model_save,
        "steps": one.hparams["total_steps"],
        "task": "domain_generalization",
        "test_envs": list(one.targets),
        "trial_seed": one.seed,
        "uda_holdout_fraction": 0,
    }


def _memory(device: torch.device) -> float:
    """Most memory that tensors took on the GPU, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def train(
    one: One, store: Store, learner: Learner, initial: Initial, folder: RunFolder
) -> dict[str, Any]:
    """Train in a folder that is held; return the result, which is written there with a report."""
    options, environments = one.options, store.environments
    share_cores(options.workers, environments.image_size)
    splits = [
        split_environment(len(images), options.holdout_fraction, one.seed, number)
        for number, images in enumerate(environments.images)
    ]
    sources = [number for number in range(len(splits)) if number not in one.targets]
    batches = SourceBatches(one, store, splits, sources)
    # As in DomainBed, nothing is augmented where training images are not.
    augmented = options.augmented_validation and one.hparams["data_augmentation"]
    protocol = Protocol(
        [_limited(split, options.limit_steps, options.batch_size) for split in splits],
        sources, one.seed, augmented, options.skip_training_splits,
    )  # fmt: skip
    targets = [environments.names[number] for number in one.targets]
    print(_announce(one, store, batches, targets, initial, folder), flush=True)
    facts = {
        **encoder_facts(learner),
        "classes": environments.classes,
        "image_size": environments.image_size,
        "transforms": "domainbed",
        "dataset": options.dataset,
        "method": one.method,
        "targets": targets,
        "domains": environments.folder,
        "turn": environments.turn,
        "seed": one.seed,
    }
    state = fit(
        learner,
        batches,
        Evaluator(
            lambda model, step: measure(model, step - 1, store=store, protocol=protocol),
            options.eval_every or 1,
            first=True,
        ),
        options,
        DomainBedRecorder(one, store, batches, folder, facts),
        seed=one.seed,
        label=f"{one.method}, target {','.join(targets)}, seed {one.seed}",
    )
    result = _report(one, store, protocol, learner, folder, state)
    # What DomainBed's sweep takes for the sign that a job is done.
    write_atomically(folder.path / "done", b"done")
    return result


def _limited(split: Split, steps: int | None, batch_size: int) -> Split:
    most = None if steps is None else steps * batch_size
    return Split(split.inside[:most], split.outside[:most])


def _announce(
    one: One, store: Store, batches: SourceBatches, targets: list[str], initial: Initial,
    folder: RunFolder,
) -> str:  # fmt: skip
    options, environments = one.options, store.environments
    counts = [
        f"{len(images)} {name}"
        for name, images in zip(environments.names, environments.images, strict=True)
    ]
    size = environments.image_size
    return "\n".join([
        f"{folder.path}: seed {one.seed}, target {', '.join(targets)}, {options.encoder}, "
        f"{initial.loaded}",
        f"{options.dataset}: {', '.join(counts)} images of {len(environments.classes)} classes; "
        f"{size}x{size} pixels",
        f"{one.method}: {', '.join(f'{name} {value}' for name, value in one.hparams.items())}",
        f"{batches.steps} steps on {check_machine(options.device, options.precision)}",
    ])  # fmt: skip


def _report(
    one: One, store: Store, protocol: Protocol, learner: Learner, folder: RunFolder,
    state: TrainingState,
) -> dict[str, Any]:  # fmt: skip
    """Write result.json, and report.html of the best model on the targets' in-splits."""
    lines, records = folder.read_metrics(), read_records(folder.path)
    best = next(line for line in lines if line["step"] == state.best_step)
    record = next(each for each in records if each["step"] == state.best_step - 1)
    names = store.environments.names
    result = {
        "dataset": one.options.dataset,
        "method": one.method,
        "targets": [names[number] for number in one.targets],
        "hparams": one.hparams,
        "seed": one.seed,
        "steps": state.step,
        "selected_step": state.best_step,
        "selection": "best source validation",
        "validation": best["validation"],
        "test": {"top1": 100 * record[f"env{one.targets[0]}_in_acc"]},
        "seconds": lines[-1]["seconds"],
    }
    write_json(folder.result_path, result)
    test, worst = None, None
    if folder.model_path.exists():
        test, loader = _classify_targets(one, store, protocol, learner, folder)
        worst = worst_images(test, loader)
    title = METHODS[one.method].title
    targets = ", ".join(result["targets"])
    write_run_report(
        folder.path,
        title=f"{title} on {one.options.dataset} without {targets}, seed {one.seed}",
        command=folder.command(),
        facts={
            "method": title,
            "target": targets,
            "target top-1 (%)": result["test"]["top1"],
            "model": f"of step {state.best_step}, {result['selection']}",
            "encoder": learner.image_encoder.name,
            "seconds": result["seconds"],
        },
        metrics=lines,
        test=test,
        classes=store.environments.classes,
        worst=worst,
        split="target",
    )
    return result


def _classify_targets(
    one: One, store: Store, protocol: Protocol, learner: Learner, folder: RunFolder
) -> tuple[Evaluation, DataLoader]:
    learner.load_exported(read_checkpoint(folder.model_path))
    number = one.targets[0]
    images = store.images[number].subset(protocol.splits[number].inside)
    loader = evaluation_loader(SeededTransform(images, store.transforms.evaluate), 256, 0)
    return evaluate(learner, loader, len(store.environments.classes)), loader
