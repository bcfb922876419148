"""`core-tuning evaluate`: measure the model of a finished run again, or on another data set."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from core_tuning.errors import UserError, shown
from core_tuning.files import field, write_json

from .config import Evaluate

if TYPE_CHECKING:
    from core_tuning.data import LabelledImages
    from core_tuning.training.folder import RunFolder

# What is read of a run's options, and its type.
_READ = {"data_dir": (str,), "fraction": (int, float), "validation": (int, float)}


def main(options: Evaluate) -> None:
    """Run the command; torch is imported after the options are checked."""
    if not options.run.exists():
        raise UserError(
            f"{shown(str(options.run), 300)} does not exist: name a run's folder or its "
            "model.safetensors."
        )
    seeds = sorted(options.run.glob("seed-*")) if options.run.is_dir() else []
    if seeds and options.output is not None:
        raise UserError(f"{options.run} holds several runs: evaluate one of them with --output.")
    if options.output is not None:
        from core_tuning.training.folder import RunFolder

        RunFolder(options.output).check_start()
    for run in seeds or [options.run]:
        _evaluate(options, run)


def _evaluate(options: Evaluate, run: Path) -> None:
    from core_tuning.data.loading import SeededTransform, evaluation_loader
    from core_tuning.report.run import write_run_report
    from core_tuning.training.classify import worst_images
    from core_tuning.training.evaluate import evaluate
    from core_tuning.training.exported import load_model
    from core_tuning.training.folder import RunFolder, environment
    from core_tuning.training.optimisation import choose_device

    model, facts = load_model(run)
    # A model may lie anywhere, without the folder that it was made in.
    made_in = RunFolder(run if run.is_dir() else run.parent)
    stored = _stored(made_in) if made_in.marker_path.exists() else {}
    if stored and not made_in.result_path.exists():
        print(f"warning: the run in {made_in.path} is not finished: this is its best model so far.")
    dataset = options.dataset or facts["dataset"]
    chosen = _chosen(options, dataset, stored, facts)
    if chosen.images.classes != facts["classes"]:
        raise UserError(
            f"The classes of {dataset} ({', '.join(chosen.images.classes[:3])}, ...) are not the "
            f"model's ({', '.join(facts['classes'][:3])}, ...): evaluate it on a data set with "
            "the same class names."
        )
    if not len(chosen.images):
        raise UserError(f"The {options.split} split of {dataset} is empty: name another --split.")
    loader = evaluation_loader(
        SeededTransform(chosen.images, facts.transform), options.batch_size, options.workers
    )
    model.to(choose_device(options.device))
    evaluation = evaluate(model, loader, len(facts["classes"]))
    print(
        f"{run}: {options.split} of {dataset} ({chosen.said}), {evaluation.images} images: "
        f"top-1 {evaluation.top1:.2f}%, mean per class {evaluation.mean_per_class:.2f}%"
    )
    if options.output is None:
        return
    folder = RunFolder(options.output)
    made_of = {"run": str(run), "dataset": dataset, "split": options.split}
    with folder.hold():
        folder.start({"command": "evaluate", "options": made_of, "data": chosen.fingerprint})
        write_json(folder.result_path, {"evaluation": evaluation.summary()})
        write_run_report(
            folder.path,
            title=f"{run} on {dataset}",
            command=environment()["command"],
            facts={**made_of, **evaluation.summary()},
            metrics=[],
            test=evaluation,
            classes=facts["classes"],
            worst=worst_images(evaluation, loader),
            split=options.split,
        )


class _Chosen(NamedTuple):
    """Images to evaluate on, what is said of their split, and their data set's fingerprint."""

    images: LabelledImages
    said: str
    fingerprint: dict[str, Any]


def _stored(folder: RunFolder) -> dict[str, Any]:
    stored = folder.read_run()
    for name, kind in _READ.items():
        field({name: None, **stored["options"]}, name, (*kind, NoneType), folder.marker_path)
    return stored


def _chosen(
    options: Evaluate, dataset: str, stored: dict[str, Any], facts: dict[str, Any]
) -> _Chosen:
    """Choose the images of a split, divided as the run divided them if the data set is its own."""
    from core_tuning.data import describe_change, load_splits

    is_own = dataset == facts["dataset"]
    run = stored.get("options", {}) if is_own else {}
    data_dir = options.data_dir or run.get("data_dir")
    data_dir = None if data_dir is None else Path(data_dir)
    if is_own and "targets" in facts:
        chosen = _targets(options, data_dir, facts)
    else:
        splits = load_splits(
            dataset,
            data_dir,
            fraction=run.get("fraction", 1.0),
            validation=run.get("validation", 0.1) if is_own else 0.0,
            seed=facts["seed"],
        )
        chosen = _Chosen(getattr(splits, options.split), splits.split, splits.fingerprint)
    if is_own and stored.get("data") is not None:
        change = describe_change(stored["data"], chosen.fingerprint)
        if change is not None:
            print(f"warning: the images are not those of the run: {change}.")
    return chosen


def _targets(options: Evaluate, data_dir: Path | None, facts: dict[str, Any]) -> _Chosen:
    """All images of the domains that a run of `dg` has left out."""
    from core_tuning.data import fingerprint, load_domains

    if options.split != "test":
        raise UserError(
            f"--split is {options.split}, and of a run of 'core-tuning dg' the domains that were "
            "left out are measured: leave --split out."
        )
    domains = load_domains(facts["domains"], data_dir, turn=facts["turn"])
    parts = [domains[name] for name in facts["targets"] if name in domains]
    if len(parts) < len(facts["targets"]):
        raise UserError(
            f"The domains {', '.join(facts['targets'])} are not all among {', '.join(domains)}: "
            "name the folder that the run had with --data-dir."
        )
    images = parts[0].joined(parts[1:])
    return _Chosen(images, f"all images of {', '.join(facts['targets'])}", fingerprint(domains))
