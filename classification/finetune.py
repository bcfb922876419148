"""`core-tuning finetune`: fine-tune a checkpoint on a data set, with one or several seeds."""

from __future__ import annotations

import argparse
from typing import Any

from .options import parse


def main(argv: list[str]) -> int:
    """Run the command; torch is imported after the options are checked."""
    options = parse(argv)
    from .run import check_output, run, seed_folder

    check_output(options)
    results = []
    for seed in options.seeds:
        folder = seed_folder(options, seed)
        result = run(options, seed, folder)
        results.append(result)
        print(_describe(result, folder))
    if len(results) > 1:
        _summarise(options, results)
    return 0


def _describe(result: dict[str, Any], folder: Any) -> str:
    test = result["test"]
    return (
        f"test of {result['dataset']} ({test['images']} images, {result['split']}): "
        f"top-1 {test['top1']:.2f}%, mean per class {test['mean_per_class']:.2f}% "
        f"(model of epoch {result['selected_epoch']}, {result['selection']}); see {folder}"
    )


def _summarise(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    from core_tuning.report.summary import summarise
    from core_tuning.training import RunFolder

    contents: dict[str, Any] = {"method": options.method, "seeds": options.seeds}
    for name in ("top1", "mean_per_class"):
        values = [result["test"][name] for result in results]
        summary = summarise(values)
        contents[name] = {**summary._asdict(), "values": values}
        label = "top-1" if name == "top1" else "mean per class"
        print(f"{label}: {summary} % over {summary.runs} seeds, mean ± standard error")
    folder = RunFolder(options.output)
    folder.write_json(options.output / "summary.json", contents)
