"""Estimates what a run computes, by counting forward passes; a backward pass counts as two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.presets import preset

from .paper import read_table
from .plan import DOMAINBED, Run, Stage

Options = Mapping[str, Any]
# GFLOP of a forward pass of one image (two for a multiplication and addition), and at how many
# pixels a side; it grows with the area.
_GFLOP = {
    "resnet18": (3.6, 224),
    "resnet34": (7.3, 224),
    "resnet50": (8.2, 224),
    "resnet101": (15.6, 224),
    "resnet152": (23.0, 224),
    "small_resnet": (0.039, 48),
    "small_resnet_2x": (0.157, 48),
}
_SIZES = {"cifar10": 256, "cifar100": 256, "aircraft": 256, "emoji_domains": 48, "EmojiDomains": 32}
# Of `finetune`, and of the commands that leave a domain out.
_EMBEDDED = ("emoji_domains", "EmojiDomains")
_LEAVING_OUT = ("dg", DOMAINBED)
_EMOJI = {"train": 2463, "test": 821}
_EMOJI_DOMAINS = (4, 3284)
_TRAIN = 3  # forward passes that a step on an image is worth
_DG_STEPS, _DG_BATCH, _DG_EVERY = 5001, 32, 300
_DEFAULT_N = 1000
_DEFAULT_ATTACKS = ["pgd10", "pgd50x10", "square", "autoattack"]
# Of one image that withstands; those that do not cost less. AutoAttack: APGD-CE, APGD-T and FAB-T
# on 9 classes with 100 steps each, and Square.
_ATTACK = {"fgsm": 3, "pgd10": 21, "pgd50x10": 1010, "square": 5000, "autoattack": 9000}
_MASKING, _MASKING_IMAGES = 2000, 200


def forwards(stages: Sequence[Stage]) -> float | None:
    """Forward passes of one image that a run costs; None for a data set of unknown size."""
    train = stages[0]
    if train.command in _LEAVING_OUT:
        return _domains(train.options)
    sizes = _images(str(train.options.get("dataset", "emoji_domains")))
    if sizes is None:
        return None
    total = _training(train.options, sizes, train.command == "robust train")
    return total + sum(_evaluation(stage.options, sizes["test"]) for stage in stages[1:])


def _training(options: Options, sizes: Mapping[str, int], adversarial: bool) -> float:
    values = {**preset(str(options.get("dataset", "emoji_domains"))), **options}
    epochs = _number(values, "epochs")
    validation = _number(options, "validation", 0.1)
    images = sizes["train"] * _number(options, "fraction", 1)
    step, look = float(_TRAIN), 1.0
    if adversarial:
        attack = 2 * _number(options, "attack_steps", 10)
        # Clean and adversarial images are joined, and both are looked at.
        step = attack + _TRAIN * (1 if options.get("adversarial_only") else 2)
        look = attack + 2
    trained = images * (1 - validation) * epochs
    batch = _number(values, "batch_size")
    if "steps" in options:
        trained = _number(options, "steps") * batch
    if "limit_steps" in options:
        trained = min(trained, _number(options, "limit_steps") * batch)
    evaluations = trained / (images * (1 - validation))
    if "eval_every" in options:
        evaluations = trained / batch / max(1, _number(options, "eval_every"))
    looked = images * validation * evaluations + sizes["test"]
    return step * trained + look * looked


def _evaluation(evaluate: Options, test: int) -> float:
    wanted = evaluate.get("n", _DEFAULT_N)
    images = test if wanted == "all" else min(test, _number(evaluate, "n", _DEFAULT_N))
    costs = [_ATTACK.get(name, 0) for name in evaluate.get("attacks", _DEFAULT_ATTACKS)]
    budgets = sum(len(evaluate.get(norm, [])) for norm in evaluate["norm"])
    checks = evaluate.get("masking_checks", True)
    masking = _MASKING * min(images, _MASKING_IMAGES) * len(evaluate["norm"]) if checks else 0
    return images * (1 + sum(costs) * budgets) + masking


def _domains(options: Options) -> float | None:
    found = _samples(str(options.get("dataset", "EmojiDomains")))
    if found is None:
        return None
    domains, images = found
    steps = _number(options, "steps", _DG_STEPS)
    batch = _number(options.get("hparams", {}), "batch_size", _DG_BATCH)
    every = options.get("eval_every", options.get("checkpoint_freq", _DG_EVERY))
    evaluations = steps // max(1, _number({"eval_every": every}, "eval_every")) + 1
    share = 1 - 0.8 * (domains - 1) / domains if options.get("skip_training_splits") else 1
    return _TRAIN * steps * batch * (domains - 1) + evaluations * images * share


def _number(options: Options, name: str, default: float | None = None) -> float:
    value = options.get(name, default)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"The option {name} is {value!r}: expected a number.") from None


def _images(dataset: str) -> Mapping[str, int] | None:
    if dataset == "emoji_domains":
        return _EMOJI
    name = "flowers" if dataset == "flowers_kaggle" else dataset
    rows = [row for row in read_table("table10_datasets.csv") if row["dataset"] == name]
    return {part: int(rows[0][part]) for part in ("train", "test")} if rows else None


def _samples(dataset: str) -> tuple[int, int] | None:
    """Number of domains and of images of a data set for domain generalisation."""
    if dataset == "EmojiDomains":
        return _EMOJI_DOMAINS
    names = {"PACS": "pacs", "VLCS": "vlcs", "OfficeHome": "office_home"}
    rows = [row for row in read_table("table12_dg_datasets.csv")
            if row["dataset"] == names.get(dataset)]  # fmt: skip
    return (int(rows[0]["domains"]), int(rows[0]["samples"])) if rows else None


class Cost(NamedTuple):
    """Of several runs: floating-point operations, and how many runs could not be estimated."""

    flop: float
    unknown: int

    def hours(self, tflops: float) -> float:
        """Hours at so many TFLOP/s."""
        return self.flop / (tflops * 1e12) / 3600


def cost_of(runs: list[Run]) -> Cost:
    """Add up what runs cost."""
    flops = [flop(run) for run in runs]
    return Cost(sum(each for each in flops if each is not None), flops.count(None))


def flop(run: Run) -> float | None:
    """Floating-point operations of a run; None if its data set's or encoder's are unknown."""
    stage = run.stages[0]
    given, hparams = stage.options, stage.options.get("hparams", {})
    dataset = given.get("dataset", _EMBEDDED[stage.command in _LEAVING_OUT])
    pretrained = hparams.get("checkpoint") or given.get("pretrained")
    is_small = pretrained == "embedded" or (dataset in _EMBEDDED and pretrained is None)
    encoder = hparams.get("encoder") or given.get("encoder")
    encoder = encoder or ("small_resnet" if is_small else "resnet50")
    if run.forwards is None or encoder not in _GFLOP:
        return None
    gflop, pixels = _GFLOP[encoder]
    size = _number(given, "image_size", _SIZES.get(dataset, 224))
    return run.forwards * gflop * 1e9 * (size / pixels) ** 2
