"""What one leave-one-domain-out run is, and on what machine it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.pretrained import EMBEDDED, default_encoder

from .hyperparameters import check_hparams, default_hparams, own_hparams, random_hparams
from .seeds import seed_hash


@dataclass(frozen=True)
class Job:
    """One run: DomainBed's arguments, and what this runner has beyond them.

    Attributes:
        dataset: a key of `environments.DATASETS` or the name of a folder in `data_dir`.
        data_dir: where it lies; None for EmojiDomains.
        algorithm: a key of `algorithm.CLASSES`.
        test_envs: numbers of the target domains, which are not trained on.
        hparams: hyper-parameters given by the user.
        hparams_seed: 0 for the default hyper-parameters, else the seed of random ones.
        trial_seed: of the splits.
        seed: of everything else.
        steps: of training.
        evaluate_every: steps between evaluations; DomainBed's checkpoint_freq.
        holdout_fraction: share of each domain that validates.
        image_size: side in pixels that images are brought to.
        augmented_validation: evaluate source images augmented, as DomainBed does.
        skip_sources_inside: do not evaluate the images that are trained on.
    """

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    steps: int
    evaluate_every: int
    image_size: int
    data_dir: Path | None = None
    hparams: Mapping[str, Any] = field(default_factory=dict)
    hparams_seed: int = 0
    trial_seed: int = 0
    seed: int = 0
    holdout_fraction: float = 0.2
    augmented_validation: bool = False
    skip_sources_inside: bool = False

    def all_hparams(self) -> dict[str, Any]:
        """Hyper-parameters of the run, by DomainBed's rules.

        Raises:
            UserError: one that was given is unknown or out of range.
        """
        check_hparams(self.algorithm, self.hparams)
        if self.hparams_seed == 0:
            values = default_hparams(self.algorithm, self.dataset, steps=self.steps)
        else:
            seed = seed_hash(self.hparams_seed, self.trial_seed)
            values = random_hparams(self.algorithm, self.dataset, seed, steps=self.steps)
        if self.hparams.get("checkpoint") == EMBEDDED:
            # No other encoder fits it.
            values["encoder"] = default_encoder(EMBEDDED)
        return {**values, **own_hparams(self.algorithm, self.hparams)}

    def config(self, machine: Machine) -> dict[str, Any]:
        """Everything that decides the result, as plain values, by the names of the options."""
        values = asdict(self)
        values["checkpoint_freq"] = values.pop("evaluate_every")
        values["skip_training_splits"] = values.pop("skip_sources_inside")
        values["precision"] = machine.precision
        values["test_envs"] = list(self.test_envs)
        values["data_dir"] = None if self.data_dir is None else str(self.data_dir)
        values["hparams"] = self.all_hparams()
        return values

    def arguments(self, folder: Path, machine: Machine) -> dict[str, Any]:
        """The `args` of a line of results.jsonl: those of DomainBed's train.py."""
        return {
            "algorithm": self.algorithm,
            "checkpoint_freq": self.evaluate_every,
            "data_dir": None if self.data_dir is None else str(self.data_dir),
            "dataset": self.dataset,
            "holdout_fraction": self.holdout_fraction,
            "hparams": json.dumps(dict(self.hparams)) if self.hparams else None,
            "hparams_seed": self.hparams_seed,
            "output_dir": str(folder),
            "save_model_every_checkpoint": machine.save_every_model,
            "seed": self.seed,
            "skip_model_save": not machine.save_models,
            "steps": self.steps,
            "task": "domain_generalization",
            "test_envs": list(self.test_envs),
            "trial_seed": self.trial_seed,
            "uda_holdout_fraction": 0,
        }


@dataclass(frozen=True)
class Machine:
    """What changes nothing, or next to nothing, in a run's result.

    Attributes:
        device: "auto", "cpu" or "cuda".
        precision: "fp32", or "bf16" for the autocast of the training steps.
        workers: processes that read and augment images.
        memory: GiB of images that are kept in memory, decoded and ready for evaluation each.
        checkpoint_minutes: most minutes between checkpoints, 0 for one after every step.
        save_models: whether models are written.
        save_every_model: write one at each evaluation.
    """

    device: str = "auto"
    precision: str = "fp32"
    workers: int = 1
    memory: float = 2.0
    checkpoint_minutes: float = 10.0
    save_models: bool = True
    save_every_model: bool = False


def parse_hparams(text: str | None) -> dict[str, Any]:
    """Read the JSON of --hparams.

    Raises:
        UserError: it is not a JSON object, or a number in it is not finite.
    """
    if text is None:
        return {}
    try:
        values = json.loads(text)
    # Brackets in brackets in brackets exhaust Python's stack.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"--hparams is {text[:80]!r}, which is not JSON ({error}): expected an object such as "
            """'{"eta": 1.0, "batch_size": 16}'."""
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"""--hparams is {text[:80]!r}: expected a JSON object such as '{{"eta": 1.0}}'."""
        )
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"The hyper-parameter {name} is {value}: expected a finite number.")
    return values
