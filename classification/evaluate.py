"""`core-tuning evaluate`: measure a run's model again."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any

from core_tuning.checks import check_options
from core_tuning.errors import UserError
from core_tuning.files import field
from core_tuning.options import Parser

# What is read of a run's configuration, and its type.
_READ = {"data_dir": (str,), "fraction": (int, float), "validation": (int, float)}


def build_parser() -> Parser:
    """Options of `core-tuning evaluate`."""
    parser = Parser(
        prog="core-tuning evaluate",
        description="Evaluate the model of a run, in float32, on the test set that it was made "
        "for or on another. Nothing is written unless --output says where.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="a run's folder, or its model.safetensors")
    parser.add_argument("--dataset", help="another data set, with the same classes")
    parser.add_argument("--data-dir", type=Path, help="where the data set lies")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test",
                        help="default: test")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=128, help="default: 128")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, help="folder for result and confusion matrix")
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    options = build_parser().parse_args(argv)
    check_options(options, ("batch_size", "workers"))
    seeds = sorted(options.run.glob("seed-*")) if options.run.is_dir() else []
    if seeds and options.output is not None:
        raise UserError(f"{options.run} holds several runs: evaluate one of them with --output.")
    if options.output is not None:
        from core_tuning.training import RunFolder

        RunFolder(options.output).check_start()
    for run in seeds or [options.run]:
        _evaluate(options, run)
    return 0


def _evaluate(options: Any, run: Path) -> None:
    from core_tuning.data import build_transforms, describe_change, load_splits
    from core_tuning.data.loading import SeededTransform, evaluation_loader
    from core_tuning.training import RunFolder, evaluate
    from core_tuning.training.exported import load_model
    from core_tuning.training.run import write_confusion
    from core_tuning.training.settings import choose_device

    model, facts = load_model(run)
    config = _stored_config(run)
    _warn_unfinished(run if run.is_dir() else run.parent)
    dataset = options.dataset or facts["dataset"]
    same = dataset == facts["dataset"]
    data_dir = options.data_dir or (config.get("data_dir") if same else None)
    splits = load_splits(
        dataset,
        None if data_dir is None else Path(data_dir),
        fraction=config.get("fraction", 1.0) if same else 1.0,
        validation=config.get("validation", 0.1) if same else 0.0,
        seed=facts["seed"],
    )
    if splits.classes != facts["classes"]:
        raise UserError(
            f"The classes of {dataset} ({', '.join(splits.classes[:3])}, ...) are not the "
            f"model's ({', '.join(facts['classes'][:3])}, ...): evaluate it on a data set with "
            "the same class names."
        )
    if same and config.get("data") is not None:
        change = describe_change(config["data"], splits.fingerprint)
        if change is not None:
            print(f"warning: the images are not those of the run: {change}.")
    transform = build_transforms(facts["transforms"], facts["image_size"]).evaluate
    images = getattr(splits, options.split)
    if not len(images):
        raise UserError(f"The {options.split} split of {dataset} is empty: name another --split.")
    dataset_images = SeededTransform(images, transform)
    loader = evaluation_loader(dataset_images, options.batch_size, options.workers)
    model.to(choose_device(options.device))
    evaluation = evaluate(model, loader, len(splits.classes))
    print(
        f"{run}: {options.split} of {dataset} ({splits.split}), {evaluation.images} images: "
        f"top-1 {evaluation.top1:.2f}%, mean per class {evaluation.mean_per_class:.2f}%"
    )
    if options.output is not None:
        folder = RunFolder(options.output)
        made_of = {"run": str(run), "dataset": dataset, "split": options.split}
        with folder.hold():
            folder.start({**made_of, "data": splits.fingerprint})
            folder.write_json(folder.result_path, {"evaluation": evaluation.summary()})
            write_confusion(folder, evaluation, splits.classes)


def _stored_config(run: Path) -> dict[str, Any]:
    from core_tuning.training import RunFolder

    folder = RunFolder(run if run.is_dir() else run.parent)
    # A model may lie anywhere, without the folder that it was made in.
    if not folder.config_path.exists():
        return {}
    config = folder.read_config()
    for name, kind in _READ.items():
        field({name: None, **config}, name, (*kind, NoneType), folder.config_path)
    return config


def _warn_unfinished(folder: Path) -> None:
    last = ("result.json", "done")  # of `finetune` and `robust train`, and of `dg`
    if (folder / "config.json").is_file() and not any((folder / name).exists() for name in last):
        print(f"warning: the run in {folder} is not finished: this is its best model so far.")
