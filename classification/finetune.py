"""`core-tuning finetune`: fine-tune a checkpoint on a data set, with one or several seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_tuning.config import Finetune, check_places

if TYPE_CHECKING:
    from core_tuning.training.exported import Result

FIGURES = {"top1": "top-1", "mean_per_class": "mean per class"}


def main(options: Finetune) -> None:
    """Run the command; torch is imported after the options are checked."""
    check_places(options.data_dir, options.pretrained, download=options.download)
    from core_tuning.training.classify import Kind, run_classification

    run_classification(options, Kind("finetune", FIGURES))


def finetune(**options: object) -> Result:
    """Fine-tune a checkpoint, as `core-tuning finetune` does.

        result = finetune(dataset="emoji_domains", method="core_tuning", epochs=2)
        print(result.metrics["top1"], result.folder)

    Args:
        options: those of the command, with underscores; lists for those that take several values.

    Raises:
        UserError: an option is unknown or out of its range, or several seeds are given.
    """
    from core_tuning.errors import UserError
    from core_tuning.options import check_values
    from core_tuning.training.classify import Kind, run_classification
    from core_tuning.training.exported import Result

    checked = check_values("finetune", Finetune, options)
    if len(checked.seeds) > 1:
        raise UserError(f"seeds is {checked.seeds}: call finetune once for each of them.")
    [result] = run_classification(checked, Kind("finetune", FIGURES))
    assert checked.output is not None
    return Result(checked.output, result["test"])
