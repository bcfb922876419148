"""One fine-tuning run: train, select on validation, read the test set once."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from core_tuning.errors import UserError
from core_tuning.report.figures import save_confusion
from core_tuning.training import Evaluation, Learner, RunFolder, Settings, evaluate, fit
from core_tuning.training.settings import check_machine

from .build import Data, build_data, build_learner, encoder_name
from .options import HARMLESS
from .tensorboard import check_tensorboard, tensorboard_writer

NOT_IN_CONFIG = ("seeds", "output", "resume", "overwrite")


def run_config(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values."""
    config = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in NOT_IN_CONFIG
    }
    return {**config, "encoder": encoder_name(options), "seed": seed}


def run(
    options: argparse.Namespace, seed: int, path: Path, *, quiet: bool = False
) -> dict[str, Any]:
    """Fine-tune with one seed in one folder; return its result.

    A folder whose run is finished is left as it is when it is resumed. `quiet` leaves out what
    the encoder was loaded from, for whoever has said it already.
    """
    config = run_config(options, seed)
    folder = RunFolder(path)
    if options.resume and not folder.is_free():
        folder.resume(config, may_differ=HARMLESS)
        if folder.result_path.exists():
            return json.loads(folder.result_path.read_text())
        data, learner, origin = _build(options, seed)
    else:
        # Built first, so that a mistake leaves no folder behind.
        data, learner, origin = _build(options, seed)
        folder.start(config, overwrite=options.overwrite)
    if not quiet:
        print(f"{path}: seed {seed}, {config['encoder']}, {origin}")
    for warning in data.splits.warnings:
        print(f"warning: {warning}")
    _train(options, config, data, learner, folder)
    return _report(config, data, learner, folder)


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
) -> None:
    settings = Settings(
        **{name: config[name] for name in Settings.__dataclass_fields__ if name in config}
    )
    num_classes = len(data.splits.classes)
    validate = None
    if data.validation is not None:
        validate = partial(evaluate, learner, data.validation, num_classes)
    with tensorboard_writer(folder.path, options.tensorboard) as on_epoch:
        fit(
            learner,
            data.train,
            validate,
            settings,
            folder,
            facts=exported_facts(config, data, learner),
            on_epoch=on_epoch,
            label=f"{options.method} seed {config['seed']}",
        )


def exported_facts(config: dict[str, Any], data: Data, learner: Learner) -> dict[str, Any]:
    """What a reader of model.safetensors must know to use it."""
    image_encoder = learner.image_encoder
    return {
        "encoder": config["encoder"],
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
    config: dict[str, Any], data: Data, learner: Learner, folder: RunFolder
) -> dict[str, Any]:
    """Evaluate the selected model on the test set, and write result, table and figure."""
    learner.load_exported(load_file(folder.model_path))
    classes = data.splits.classes
    test = evaluate(learner, data.test, len(classes))
    lines = folder.read_metrics()
    selected = [line for line in lines if "validation" in line]
    best = max(selected, key=lambda line: line["validation"]["top1"], default=lines[-1])
    result = {
        "dataset": config["dataset"],
        "split": data.splits.split,
        "warnings": data.splits.warnings,
        "method": config["method"],
        "variant": config["variant"],
        "seed": config["seed"],
        "steps": lines[-1]["step"],
        "selected_epoch": best["epoch"],
        "selection": "best validation top-1" if selected else "last epoch",
        "validation": best.get("validation"),
        "test": test.summary(),
        "seconds": lines[-1]["seconds"],
    }
    write_confusion(folder, test, classes)
    folder.write_json(folder.result_path, result)
    return result


def write_confusion(folder: RunFolder, evaluation: Evaluation, classes: list[str]) -> None:
    """Write the confusion matrix as confusion.csv and figures/confusion.png."""
    counts = evaluation.confusion.tolist()
    rows = [["true \\ predicted", *classes]]
    rows += [[name, *row] for name, row in zip(classes, counts, strict=True)]
    folder.write_csv("confusion.csv", rows)
    save_confusion(evaluation.confusion.numpy(), classes, folder.path / "figures" / "confusion.png")


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
    if not options.resume:
        for seed in options.seeds:
            RunFolder(seed_folder(options, seed)).check_start(overwrite=options.overwrite)
