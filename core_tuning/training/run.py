"""One fine-tuning run: train, select on validation, read the test set once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import DataLoader

from core_tuning.checkpoint_recognition import METADATA_KEY
from core_tuning.checkpoints import read_checkpoint
from core_tuning.data import check_same_images
from core_tuning.errors import UserError
from core_tuning.files import field as field_of
from core_tuning.files import read_json, require_file
from core_tuning.report.figures import save_confusion
from core_tuning.report.summary import summarise

from .batch_change import BatchChange
from .build import Data, build_data, build_learner, encoder_name
from .evaluation import Evaluated, Evaluation, evaluate
from .folder import RunFolder, check_marked, write_marked
from .learner import Learner
from .loop import fit
from .options import HARMLESS
from .settings import Settings, check_machine
from .state import TrainingState
from .tensorboard import check_tensorboard, tensorboard_writer

NOT_IN_CONFIG = ("seeds", "output", "resume", "overwrite")
_SAID_OF_A_RESULT = {"dataset": str, "split": str, "selection": str, "selected_epoch": int,
                     "test": dict}  # fmt: skip
# Above, a matrix takes more room than anyone reads.
MOST_CLASSES_IN_FULL = 300
CLASSES_OF_REDUCED_FIGURE = 40


class Measure(Protocol):
    """Measures a learner on batches of (images, labels)."""

    def __call__(self, model: Learner, loader: DataLoader, num_classes: int) -> Evaluated: ...


@dataclass(frozen=True)
class Kind:
    """What tells one kind of fine-tuning from another.

    Attributes:
        evaluate: measures on the validation split after an epoch, and on the test set at the end.
        selection: what the best model is selected by.
        change: makes what changes the batches of a learner.
        facts: about the kind, exported with the model and written into the result.
    """

    evaluate: Measure = evaluate
    selection: str = "top-1"
    change: Callable[[Learner], BatchChange] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


PLAIN = Kind()


def run_seeds(
    options: argparse.Namespace,
    kind: Kind,
    describe: Callable[[dict[str, Any], Path], str],
    figures: dict[str, str],
) -> None:
    """Make a run of each seed, and say what came of each and of all.

    Args:
        options: of the command line, checked.
        kind: of fine-tuning.
        describe: says in a few lines what came of a run, from its result and its folder.
        figures: of the test set's summary to average over seeds, and how to call them.
    """
    check_output(options)
    results = []
    images = None
    for seed in options.seeds:
        folder = seed_folder(options, seed)
        result = run(options, seed, folder, kind, images)
        images = RunFolder(folder).read_config().get("data")
        results.append(result)
        print(describe(result, folder))
    if len(results) > 1:
        _summarise(options, [result["test"] for result in results], figures)


def _summarise(
    options: argparse.Namespace, tests: list[dict[str, Any]], figures: dict[str, str]
) -> None:
    contents: dict[str, Any] = {"method": options.method, "seeds": options.seeds}
    for name, label in figures.items():
        values = [test[name] for test in tests]
        summary = summarise(values)
        contents[name] = {**summary._asdict(), "values": values}
        print(f"{label}: {summary} % over {summary.runs} seeds, mean ± standard error")
    write_marked(options.output / "summary.json", contents)


def run_config(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values."""
    config = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in NOT_IN_CONFIG
    }
    return {**config, "encoder": encoder_name(options), "seed": seed}


def run(
    options: argparse.Namespace,
    seed: int,
    path: Path,
    kind: Kind = PLAIN,
    images: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fine-tune with one seed in one folder; return its result.

    A folder whose run is finished is left as it is when it is resumed. `images` is the fingerprint
    of another seed's, with which a new run must agree.
    """
    config = run_config(options, seed)
    folder = RunFolder(path)
    if options.resume and not folder.is_free():
        # The options are compared first, and the images once they are read.
        config["data"] = folder.read_config().get("data")
        folder.check_resume(config, may_differ=HARMLESS)
        with folder.hold():
            # The last file that a run writes.
            if folder.result_path.exists() and _figure(folder).exists():
                return _read_result(folder)
            built = _build(options, seed)
            check_same_images(config["data"], built[0].splits.fingerprint, path)
            folder.resume(config, may_differ=HARMLESS)
            return _make(options, config, folder, kind, *built)
    folder.check_start(overwrite=options.overwrite)
    # Built first, so that a mistake leaves no folder behind.
    built = _build(options, seed)
    config["data"] = built[0].splits.fingerprint
    check_same_images(images or config["data"], config["data"], path.parent)
    with folder.hold():
        folder.start(config, overwrite=options.overwrite)
        return _make(options, config, folder, kind, *built)


def _read_result(folder: RunFolder) -> dict[str, Any]:
    path = folder.result_path
    result = read_json(path)
    for name, kind in _SAID_OF_A_RESULT.items():
        field_of(result, name, kind, path)
    for name in ("images", "top1", "mean_per_class"):
        field_of(result["test"], name, (int, float), path)
    return result


def _make(
    options: argparse.Namespace,
    config: dict[str, Any],
    folder: RunFolder,
    kind: Kind,
    data: Data,
    learner: Learner,
    origin: str,
) -> dict[str, Any]:
    print(f"{folder.path}: seed {config['seed']}, {config['encoder']}, {origin}")
    for warning in data.splits.warnings:
        print(f"warning: {warning}")
    state = _train(options, config, data, learner, folder, kind)
    return _report(config, data, learner, folder, kind, state.best_epoch)


def _build(options: argparse.Namespace, seed: int) -> tuple[Data, Learner, str]:
    check_machine(options.device, options.precision)
    check_tensorboard(options.tensorboard)
    data = build_data(options, seed)
    learner, origin = build_learner(options, len(data.splits.classes), seed)
    return data, learner, origin


def _train(
    options: argparse.Namespace,
    config: dict[str, Any],
    data: Data,
    learner: Learner,
    folder: RunFolder,
    kind: Kind,
) -> TrainingState:
    settings = Settings(
        **{name: config[name] for name in Settings.__dataclass_fields__ if name in config}
    )
    num_classes = len(data.splits.classes)
    validate = None
    if data.validation is not None:
        validate = partial(kind.evaluate, loader=data.validation, num_classes=num_classes)
    with tensorboard_writer(folder.path, options.tensorboard) as on_epoch:
        return fit(
            learner,
            data.train,
            validate,
            settings,
            folder,
            facts={**exported_facts(config, data, learner), **kind.facts},
            change=None if kind.change is None else kind.change(learner),
            on_epoch=on_epoch,
            label=f"{options.method} seed {config['seed']}",
        )


def exported_facts(config: dict[str, Any], data: Data, learner: Learner) -> dict[str, Any]:
    """What a reader of model.safetensors must know to use it."""
    image_encoder = learner.image_encoder
    return {
        "encoder": image_encoder.name,
        "classes": data.splits.classes,
        "mean": image_encoder.mean.flatten().tolist(),
        "std": image_encoder.std.flatten().tolist(),
        "image_size": data.image_size,
        "transforms": data.recipe,
        "dataset": config["dataset"],
        "method": config["method"],
        "variant": config["variant"],
        "seed": config["seed"],
    }


def _report(
    config: dict[str, Any],
    data: Data,
    learner: Learner,
    folder: RunFolder,
    kind: Kind,
    best_epoch: int,
) -> dict[str, Any]:
    """Evaluate the selected model on the test set, and write result, table and figure."""
    require_file(folder.model_path)
    model = read_checkpoint(folder.model_path)
    learner.load_exported({name: model[name] for name in model if name != METADATA_KEY})
    classes = data.splits.classes
    test = kind.evaluate(learner, data.test, len(classes))
    lines = folder.read_metrics()
    best = next(line for line in lines if line["epoch"] == best_epoch)
    result = {
        "dataset": config["dataset"],
        "split": data.splits.split,
        "warnings": data.splits.warnings,
        "method": config["method"],
        "variant": config["variant"],
        "seed": config["seed"],
        "steps": lines[-1]["step"],
        "selected_epoch": best["epoch"],
        "selection": f"best validation {kind.selection}" if "validation" in best else "last epoch",
        "validation": best.get("validation"),
        "test": test.summary(),
        "seconds": lines[-1]["seconds"],
        **kind.facts,
    }
    # Written first: whatever goes wrong with the rest, what the run has found is kept.
    folder.write_json(folder.result_path, result)
    write_confusion(folder, test.plain, classes)
    return result


def write_confusion(folder: RunFolder, evaluation: Evaluation, classes: list[str]) -> None:
    """Write the confusion matrix as confusion.csv and figures/confusion.png.

    Of many classes the table has a line for each pair that occurs, and the figure the classes
    with the most wrong images.
    """
    if len(classes) <= MOST_CLASSES_IN_FULL:
        rows: list[list[Any]] = [["true \\ predicted", *classes]]
        counts = evaluation.confusion().tolist()
        rows += [[name, *row] for name, row in zip(classes, counts, strict=True)]
        shown, title = list(range(len(classes))), ""
    else:
        pairs = zip(*(part.tolist() for part in evaluation[:3]), strict=True)
        rows = [["true", "predicted", "images"]]
        rows += [[classes[true], classes[predicted], count] for true, predicted, count in pairs]
        shown = evaluation.most_confused(CLASSES_OF_REDUCED_FIGURE)
        title = f"the {len(shown)} of {len(classes)} classes with the most wrong images"
    folder.write_csv("confusion.csv", rows)
    save_confusion(
        evaluation.confusion(shown).numpy(),
        [classes[label] for label in shown],
        _figure(folder),
        images=evaluation.per_class()[shown].numpy(),
        title=title,
    )


def _figure(folder: RunFolder) -> Path:
    return folder.path / "figures" / "confusion.png"


def seed_folder(options: argparse.Namespace, seed: int) -> Path:
    """Where a seed's run goes: the output folder itself, or one in it for each seed."""
    return options.output if len(options.seeds) == 1 else options.output / f"seed-{seed}"


def check_output(options: argparse.Namespace) -> None:
    """Refuse output folders that are taken, before anything is trained."""
    single = (options.output / "config.json").exists()
    several = options.output.is_dir() and any(options.output.glob("seed-*"))
    if (single and len(options.seeds) > 1) or (several and len(options.seeds) == 1):
        held = "a single run" if single else "runs of several seeds"
        raise UserError(
            f"The folder {options.output} holds {held}, not what --seeds "
            f"{' '.join(map(str, options.seeds))} makes: name another with --output."
        )
    if len(options.seeds) > 1:
        check_marked(options.output / "summary.json")
    if not options.resume:
        for seed in options.seeds:
            RunFolder(seed_folder(options, seed)).check_start(overwrite=options.overwrite)
