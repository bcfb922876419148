"""Fine-tuning for classification: train, select on validation, read the test set once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader

from core_tuning.checkpoints.read import METADATA_KEY, read_checkpoint
from core_tuning.config import Training
from core_tuning.data.loading import EpochSampler, SeededTransform
from core_tuning.files import field as field_of
from core_tuning.files import require_file, write_json
from core_tuning.methods import METHODS
from core_tuning.report.run import WorstImages, write_run_report
from core_tuning.report.summary import summarise

from .build import Data, EpochBatches, Initial, build_data, build_learner, keep_in_memory
from .evaluate import Classified, Evaluated, Evaluation, evaluate
from .folder import RunFolder, write_marked
from .learner import Learner
from .loop import BatchChange, Evaluator, fit
from .optimisation import check_machine, share_cores
from .run import Built, Planned, RunRecorder, check_tensorboard, run_all
from .state import TrainingState

_SAID_OF_A_RESULT = {"dataset": str, "split": str, "selection": str, "selected_step": int,
                     "test": dict}  # fmt: skip


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
        own = replace(options, seeds=[seed], output=path)
        build = partial(_build, own, seed, kind)
        plans.append(Planned(kind.command, RunFolder(path), seed, own, build))
    results = run_all(
        kind.command, output, plans, options,
        lambda plan, result: _describe(result, plan.folder, kind),
        beside=["summary.json"] if len(plans) > 1 else [],
    )  # fmt: skip
    if len(results) > 1:
        _summarise(options, output, [result["test"] for result in results], kind.figures)
    return results


def _summarise(
    options: Training, output: Path, tests: list[dict[str, Any]], figures: Mapping[str, str]
) -> None:
    contents: dict[str, Any] = {"method": options.method, "seeds": options.seeds}
    for name, label in figures.items():
        values = [test[name] for test in tests]
        summary = summarise(values)
        contents[name] = {**summary._asdict(), "values": values}
        print(f"{label}: {summary} % over {summary.runs} seeds, mean ± standard error")
    write_marked(output / "summary.json", contents)


def _describe(result: dict[str, Any], folder: RunFolder, kind: Kind) -> str:
    path = folder.result_path
    for name, of in _SAID_OF_A_RESULT.items():
        field_of(result, name, of, path)
    test = result["test"]
    for name in ("images", *kind.figures):
        field_of(test, name, (int, float), path)
    figures = ", ".join(f"{label} {test[name]:.2f}%" for name, label in kind.figures.items())
    said = (
        f"test of {result['dataset']} ({test['images']} images, {result['split']}): {figures} "
        f"(model of step {result['selected_step']}, {result['selection']}); see "
        f"{folder.path / 'report.html'}"
    )
    return "\n".join([said, *([kind.advice.format(folder.path)] if kind.advice else [])])


def _build(options: Training, seed: int, kind: Kind) -> Built:
    check_machine(options.device, options.precision)
    check_tensorboard(options.tensorboard)
    data = build_data(options, seed)
    classes = len(data.splits.classes)
    learner, initial = build_learner(
        options, options.method, options.hyperparameters, classes, data.image_size, seed
    )
    train = partial(_train, options, seed, kind, data, learner, initial)
    return Built(data.splits.fingerprint, initial, train)


def _train(
    options: Training,
    seed: int,
    kind: Kind,
    data: Data,
    learner: Learner,
    initial: Initial,
    folder: RunFolder,
) -> dict[str, Any]:
    splits = data.splits
    share_cores(options.workers, data.image_size)
    sampler = EpochSampler(len(splits.train), options.batch_size, seed)
    batches = EpochBatches(data.train, sampler, options.total_steps(len(sampler)), options.workers)
    validation = data.validation
    measure = None
    if validation is not None:

        def measure(model: Learner, step: int) -> Evaluated:
            return kind.evaluate(model, validation, len(splits.classes))

    print(_announce(options, seed, data, batches, initial, folder), flush=True)
    for warning in splits.warnings:
        print(f"warning: {warning}")
    keep_in_memory([data.train, *([] if validation is None else [images_of(validation)])],
                   options.memory)  # fmt: skip
    facts = {**_facts(options, seed, data, learner), **kind.facts}
    with ExitStack() as stack:
        state = fit(
            learner,
            batches,
            Evaluator(measure, options.eval_every or len(sampler)),
            options,
            RunRecorder(folder, facts, options, stack),
            seed=seed,
            change=None if kind.change is None else kind.change(learner),
            label=f"{options.method} seed {seed}",
        )
    return _report(options, seed, data, learner, folder, kind, state)


def images_of(loader: DataLoader) -> SeededTransform:
    """The data set of an `evaluation_loader`."""
    assert isinstance(loader.dataset, SeededTransform)
    return loader.dataset


def _announce(
    options: Training,
    seed: int,
    data: Data,
    batches: EpochBatches,
    initial: Initial,
    folder: RunFolder,
) -> str:
    splits = data.splits
    chosen = {
        **options.hyperparameters,
        **{
            name: getattr(options, name)
            for name in ("batch_size", "lr", "optimizer", "schedule", "weight_decay", "precision")
        },
    }
    counts = [f"{len(splits.train)} training"]
    counts += [f"{len(splits.validation)} validation"] if len(splits.validation) else []
    counts += [f"{len(splits.test)} test images of {len(splits.classes)} classes"]
    return "\n".join([
        f"{folder.path}: seed {seed}, {options.encoder}, {initial.loaded}",
        f"{options.dataset}: {', '.join(counts)}; {data.image_size}x{data.image_size} pixels",
        f"{options.method}: {', '.join(f'{name} {value}' for name, value in chosen.items())}",
        f"{batches.steps} steps ({batches.epoch(batches.steps):.3g} epochs) on "
        f"{check_machine(options.device, options.precision)}",
    ])  # fmt: skip


def _facts(options: Training, seed: int, data: Data, learner: Learner) -> dict[str, Any]:
    """What a reader of model.safetensors must know to use it."""
    return {
        **encoder_facts(learner),
        "classes": data.splits.classes,
        "image_size": data.image_size,
        "transforms": data.recipe,
        "dataset": options.dataset,
        "method": options.method,
        "seed": seed,
    }


def encoder_facts(learner: Learner) -> dict[str, Any]:
    """What a reader of a model's file must know of its encoder."""
    encoder = learner.image_encoder
    return {
        "encoder": encoder.name,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }


def _report(
    options: Training,
    seed: int,
    data: Data,
    learner: Learner,
    folder: RunFolder,
    kind: Kind,
    state: TrainingState,
) -> dict[str, Any]:
    """Evaluate the selected model on the test set, and write result and report."""
    require_file(folder.model_path)
    model = read_checkpoint(folder.model_path)
    learner.load_exported({name: model[name] for name in model if name != METADATA_KEY})
    classes = data.splits.classes
    test = kind.evaluate(learner, data.test, len(classes))
    lines = folder.read_metrics()
    best = next(line for line in lines if line["step"] == state.best_step)
    selected = f"best validation {kind.selection}" if "validation" in best else "last step"
    result = {
        "dataset": options.dataset,
        "split": data.splits.split,
        "warnings": data.splits.warnings,
        "method": options.method,
        "seed": seed,
        "steps": state.step,
        "selected_step": state.best_step,
        "selection": selected,
        "validation": best.get("validation"),
        "test": test.summary(),
        "seconds": lines[-1]["seconds"],
        **kind.facts,
    }
    # Written first: whatever goes wrong with the rest, what the run has found is kept.
    write_json(folder.result_path, result)
    title = kind.title.format(METHODS[options.method].title)
    shown = {
        "method": title,
        **{f"test {label} (%)": test.summary()[name] for name, label in kind.figures.items()},
        "model": f"of step {state.best_step}, {selected}",
        "encoder": learner.image_encoder.name,
        "seconds": lines[-1]["seconds"],
    }
    write_run_report(
        folder.path,
        title=f"{title} on {options.dataset}, seed {seed}",
        command=folder.command(),
        facts=shown,
        metrics=lines,
        test=test.plain,
        classes=classes,
        worst=worst_images(test.plain, data.test),
    )
    return result


def worst_images(evaluation: Evaluation, loader: DataLoader) -> WorstImages | None:
    """The images of an evaluation that the model is most confidently wrong about."""
    if not evaluation.mistakes:
        return None
    images = images_of(loader)
    shown = [images[mistake.image, None][0] for mistake in evaluation.mistakes]
    pixels = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image in shown]
    _, true, predicted, confidence = zip(*evaluation.mistakes, strict=True)
    return WorstImages(np.stack(pixels), true, predicted, confidence)
