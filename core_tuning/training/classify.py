"""Fine-tuning for classification: train, select on validation, read the test set once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
from torch.utils.data import DataLoader

from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.config import Training
from core_tuning.data.loading import EpochSampler, SeededTransform
from core_tuning.files import damaged, write_json
from core_tuning.methods import METHODS
from core_tuning.report.run import WorstImages, write_run_report
from core_tuning.report.summary import summarise

from .build import EpochBatches, build_data, build_learner, keep_in_memory
from .evaluate import Classified, Evaluated, Evaluation, evaluate
from .folder import RunFolder, write_marked
from .learner import Learner
from .loop import BatchChange, Evaluator, fit
from .optimisation import check_machine, share_cores
from .recorder import RunRecorder
from .run import Built, Planned, run_all
from .state import TrainingState


class Measure(Protocol):
    """Measures a learner on batches of (images, labels)."""

    def __call__(self, model: Learner, loader: DataLoader, num_classes: int) -> Classified: ...


@dataclass(frozen=True)
class Kind:
    """What tells one kind of fine-tuning from another.

    Attributes:
        command: that it is.
        figures: of the test set's summary, in percent, and how to call them.
        title: of a method's title, in reports.
        selection: what the best model is selected by.
        evaluate: measures on the validation split, and on the test set at the end.
        change: makes what changes the batches of a learner.
        facts: about the kind, exported with the model and written into the result.
        advice: the last line of what is said of a run, with its folder for "{}".
    """

    command: str
    figures: Mapping[str, str]
    title: str = "{}"
    selection: str = "top-1"
    evaluate: Measure = evaluate
    change: Callable[[Learner], BatchChange] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    advice: str = ""


def run_classification(options: Training, kind: Kind) -> list[dict[str, Any]]:
    """Make a run of each seed, say what came of each and of all, and return their results."""
    output = options.output
    assert output is not None
    plans = []
    for seed in options.seeds:
        path = output if len(options.seeds) == 1 else output / f"seed-{seed}"
        run = Classification(replace(options, seeds=[seed], output=path), kind)
        plans.append(Planned(kind.command, RunFolder(path), seed, run.options, run.build))
    results = run_all(
        kind.command, output, plans, options,
        lambda plan, result: _describe(result, plan.folder, kind),
        beside=["summary.json"] if len(plans) > 1 else [],
    )  # fmt: skip
    if len(results) > 1:
        contents: dict[str, Any] = {"method": options.method, "seeds": options.seeds}
        for name, label in kind.figures.items():
            values = [result["test"][name] for result in results]
            summary = summarise(values)
            contents[name] = {**summary._asdict(), "values": values}
            print(f"{label}: {summary} % over {summary.runs} seeds, mean ± standard error")
        write_marked(output / "summary.json", contents)
    return results


def _describe(result: dict[str, Any], folder: RunFolder, kind: Kind) -> str:
    try:
        test = result["test"]
        figures = ", ".join(f"{label} {test[name]:.2f}%" for name, label in kind.figures.items())
        said = (
            f"test of {result['dataset']} ({test['images']} images, {result['split']}): {figures} "
            f"(model of step {result['selected_step']}, {result['selection']}); see "
            f"{folder.path / 'report.html'}"
        )
    # Of a run that was finished before.
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder.result_path, f"{type(error).__name__}: {error}") from error
    return f"{said}\n{kind.advice.format(folder.path)}".rstrip()


class Classification:
    """One run: its options, then its data and learner, then what came of it."""

    def __init__(self, options: Training, kind: Kind) -> None:
        self.options = options
        self.kind = kind
        [self.seed] = options.seeds

    def build(self) -> Built:
        """Read data and checkpoint."""
        options = self.options
        self.device = check_machine(options.device, options.precision)
        self.data = build_data(options, self.seed)
        self.splits = self.data.splits
        self.learner, self.initial = build_learner(
            options, options.method, options.hyperparameters, len(self.splits.classes),
            self.data.image_size, self.seed,
        )  # fmt: skip
        return Built(self.splits.fingerprint, self.initial, self.train)

    def train(self, folder: RunFolder) -> dict[str, Any]:
        """Train in a folder that is held, write the report, and return the result."""
        options, kind, data = self.options, self.kind, self.data
        share_cores(options.workers, data.image_size)
        sampler = EpochSampler(len(data.train), options.batch_size, self.seed)
        steps = options.total_steps(len(sampler))
        batches = EpochBatches(data.train, sampler, steps, options.workers)
        print(self._announce(folder, steps, batches.epoch(steps)), flush=True)
        for warning in self.splits.warnings:
            print(f"warning: {warning}")
        seen_often = [data.train]
        if data.validation is not None:
            seen_often.append(images_of(data.validation))
        # Tried out, a command need not read all images.
        keep_in_memory(seen_often, options.memory if options.limit_steps is None else 0)
        facts = {
            **encoder_facts(self.learner),
            "classes": self.splits.classes,
            "image_size": data.image_size,
            "transforms": data.recipe,
            "dataset": options.dataset,
            "method": options.method,
            "seed": self.seed,
            **kind.facts,
        }
        state = fit(
            self.learner,
            batches,
            Evaluator(
                None if data.validation is None else self._validate,
                options.eval_every or len(sampler),
            ),
            options,
            RunRecorder(folder, facts, options),
            seed=self.seed,
            change=None if kind.change is None else kind.change(self.learner),
            label=f"{options.method} seed {self.seed}",
        )
        return self._report(folder, state)

    def _validate(self, model: Learner, step: int) -> Evaluated:
        assert self.data.validation is not None
        return self.kind.evaluate(model, self.data.validation, len(self.splits.classes))

    def _announce(self, folder: RunFolder, steps: int, epochs: float) -> str:
        options, splits, side = self.options, self.splits, self.data.image_size
        names = ("batch_size", "lr", "optimizer", "schedule", "weight_decay", "precision")
        chosen = {**options.hyperparameters, **{name: getattr(options, name) for name in names}}
        counts = [f"{len(splits.train)} training"]
        counts += [f"{len(splits.validation)} validation"] if len(splits.validation) else []
        counts += [f"{len(splits.test)} test images of {len(splits.classes)} classes"]
        return "\n".join([
            f"{folder.path}: seed {self.seed}, {options.encoder}, {self.initial.loaded}",
            f"{options.dataset}: {', '.join(counts)}; {side}x{side} pixels",
            f"{options.method}: {', '.join(f'{name} {value}' for name, value in chosen.items())}",
            f"{steps} steps ({epochs:.3g} epochs) on {self.device}",
        ])  # fmt: skip

    def _report(self, folder: RunFolder, state: TrainingState) -> dict[str, Any]:
        """Evaluate the selected model on the test set, and write result and report."""
        options, kind, data, learner = self.options, self.kind, self.data, self.learner
        classes = self.splits.classes
        learner.load_exported(read_checkpoint(folder.model_path))
        test = kind.evaluate(learner, data.test, len(classes))
        figures = test.summary()
        lines = folder.read_metrics()
        best = next(line for line in lines if line["step"] == state.best_step)
        selected = f"best validation {kind.selection}" if "validation" in best else "last step"
        result = {
            "dataset": options.dataset,
            "split": self.splits.split,
            "warnings": self.splits.warnings,
            "method": options.method,
            "seed": self.seed,
            "steps": state.step,
            "selected_step": state.best_step,
            "selection": selected,
            "validation": best.get("validation"),
            "test": figures,
            "seconds": lines[-1]["seconds"],
            **kind.facts,
        }
        # Written first: whatever goes wrong with the rest, what the run has found is kept.
        write_json(folder.result_path, result)
        title = kind.title.format(METHODS[options.method].title)
        write_run_report(
            folder.path,
            title=f"{title} on {options.dataset}, seed {self.seed}",
            command=folder.command(),
            facts={
                "method": title,
                **{f"test {label} (%)": figures[name] for name, label in kind.figures.items()},
                "model": f"of step {state.best_step}, {selected}",
                "encoder": learner.image_encoder.name,
                "seconds": lines[-1]["seconds"],
            },
            metrics=lines,
            test=test.plain,
            classes=classes,
            worst=worst_images(test.plain, data.test),
        )
        return result


def images_of(loader: DataLoader) -> SeededTransform:
    """The data set of an `evaluation_loader`."""
    return cast(SeededTransform, loader.dataset)


def encoder_facts(learner: Learner) -> dict[str, Any]:
    """What a reader of a model's file must know of its encoder."""
    encoder = learner.image_encoder
    return {
        "encoder": encoder.name,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }


def worst_images(evaluation: Evaluation, loader: DataLoader) -> WorstImages | None:
    """The images of an evaluation that the model is most confidently wrong about."""
    worst = evaluation.worst()
    if not len(worst):
        return None
    images = images_of(loader)
    shown = [images[number, None][0] for number in worst.tolist()]
    pixels = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image in shown]
    labels = (evaluation.true[worst], evaluation.predicted[worst], evaluation.confidence[worst])
    return WorstImages(np.stack(pixels), *(each.tolist() for each in labels))
