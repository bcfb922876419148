"""Recognises by its keys which format a checkpoint has, and takes its encoder out."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .checkpoint_formats import FORMATS, IMAGENET, NOT_ENCODER, STEM, Format
from .encoders import Normalisation
from .errors import UserError

# safetensors reserves this name in its own header, so no tensor can have it.
METADATA_KEY = "__metadata__"
RUN_METADATA_KEY = "core_tuning"
RUN_CHECKPOINT_KEY = "core_tuning_checkpoint"
RUN_CHECKPOINT_VERSION = 1


class Recognised(NamedTuple):
    """An encoder found in a checkpoint.

    Attributes:
        format: name of the format for people, such as "MoCo v2".
        state: the encoder's tensors under its library's names.
        ignored: names, as in the file, of the tensors and sections that are not the encoder's.
        normalisation: of images in [0, 1], as in pre-training.
        note: what was assumed or chosen, or the facts of a run; "" where there is none.
        encoder: the `--encoder` that the file itself names.
    """

    format: str
    state: dict[str, Tensor]
    ignored: list[str]
    normalisation: Normalisation
    note: str
    encoder: str | None = None


def recognise(
    contents: Any, source: object = "the checkpoint", encoder_names: Collection[str] = ()
) -> Recognised:
    """Find the encoder in the contents of a checkpoint by its keys.

    Args:
        contents: what `read_checkpoint` returned.
        source: how messages name the file.
        encoder_names: tensors that are the encoder's even where they look like a head's.

    Raises:
        UserError: no encoder is recognised, or the format cannot be loaded.
    """
    if not isinstance(contents, Mapping):
        raise UserError(
            f"'{source}' holds a {type(contents).__name__}: expected a dictionary of tensors; "
            "save it with torch.save(encoder.state_dict(), FILE)."
        )
    if RUN_CHECKPOINT_KEY in contents:
        return _recognise_run_checkpoint(contents, source)
    metadata = contents.get(METADATA_KEY)
    if isinstance(metadata, Mapping) and RUN_METADATA_KEY in metadata:
        return _recognise_run_model(contents, source, encoder_names)
    _refuse_simclr_v2(contents, source)
    fitting = [row for row in FORMATS if _fits(row, contents)]
    if not fitting:
        raise UserError(
            f"'{source}' has no encoder that is recognised among its keys "
            f"({shorten(map(str, contents))}): expected a self-supervised method's checkpoint or "
            "a state dict; save it with torch.save(encoder.state_dict(), FILE)."
        )
    chosen = fitting[0]
    state, ignored = _split(contents, chosen.section, chosen.prefix, encoder_names)
    notes = [chosen.note, _other_encoders(chosen, fitting)]
    return Recognised(
        chosen.name, state, ignored, chosen.normalisation, "; ".join(filter(None, notes))
    )


def shorten(names: Iterable[str], at_most: int = 5) -> str:
    """Join the first names and say how many more there are."""
    listed = list(names)
    more = len(listed) - at_most
    return ", ".join(listed[:at_most]) + (f" and {more} more" if more > 0 else "")


def _refuse_simclr_v2(contents: Mapping[str, Any], source: object) -> None:
    names = _tensors(contents, "resnet")
    if names and "head" in contents and not any(re.search(STEM, name) for name in names):
        raise UserError(
            f"'{source}' is a SimCLR v2 checkpoint, whose ResNet has another stem, other names and "
            "selective kernels that no torchvision or timm encoder has: expected another method's "
            "checkpoint; pass, for example, SimCLR v1 or MoCo v2."
        )


def _tensors(contents: Any, section: str) -> dict[str, Tensor]:
    for key in filter(None, section.split(".")):
        if not isinstance(contents, Mapping) or key not in contents:
            return {}
        contents = contents[key]
    if not isinstance(contents, Mapping):
        return {}
    return {
        name: value
        for name, value in contents.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _encoder_name(name: str, prefix: str) -> str | None:
    inner = name.removeprefix("module.")
    return inner.removeprefix(prefix) if inner.startswith(prefix) else None


def _fits(row: Format, contents: Mapping[str, Any]) -> bool:
    names = list(_tensors(contents, row.section))
    if not any(name.endswith(".weight") and _encoder_name(name, row.prefix) for name in names):
        return False
    if row.alone and set(contents) != {row.section}:
        return False
    if row.lacks and any(re.search(row.lacks, name) for name in names):
        return False
    return all(any(re.search(pattern, name) for name in names) for pattern in row.has)


def _split(
    contents: Mapping[str, Any], section: str, prefix: str, encoder_names: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    state = {}
    ignored = []
    for name, value in _tensors(contents, section).items():
        inner = _encoder_name(name, prefix)
        if inner and (inner in encoder_names or not NOT_ENCODER.match(inner)):
            state[inner] = value
        else:
            ignored.append(name)
    if section:
        top = section.split(".")[0]
        ignored += [key for key, value in contents.items() if key != top and _holds_tensor(value)]
    return state, ignored


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensor(item) for item in value.values())
    return isinstance(value, Tensor)


def _other_encoders(chosen: Format, fitting: list[Format]) -> str:
    places = {
        f"{row.section}/{row.prefix}*": None  # a dict, because a set has no order
        for row in fitting
        if row.prefix
        and (row.section, row.prefix) != (chosen.section, chosen.prefix)
        # 'encoder.module.' is also under 'encoder.': the same tensors, not other ones.
        and not (row.section == chosen.section and chosen.prefix.startswith(row.prefix))
    }
    if not places:
        return ""
    return f"took {chosen.section}/{chosen.prefix}* and not {', '.join(places)}"


def _recognise_run_model(
    contents: Mapping[str, Any], source: object, encoder_names: Collection[str]
) -> Recognised:
    text = contents[METADATA_KEY][RUN_METADATA_KEY]
    try:
        facts = json.loads(text)
        normalisation = Normalisation(
            tuple(map(float, facts.get("mean", IMAGENET.mean))),
            tuple(map(float, facts.get("std", IMAGENET.std))),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{source}' has the metadata '{RUN_METADATA_KEY}' {str(text)[:80]!r}: expected a JSON "
            "object with lists of numbers 'mean' and 'std'; write the file again."
        ) from error
    state, ignored = _split(contents, "", "", encoder_names)
    return Recognised(
        "core-tuning model", state, ignored, normalisation, _run_note(facts), facts.get("encoder")
    )


def _recognise_run_checkpoint(contents: Mapping[str, Any], source: object) -> Recognised:
    version = contents[RUN_CHECKPOINT_KEY]
    if version != RUN_CHECKPOINT_VERSION:
        raise UserError(
            f"'{source}' is a core-tuning run's checkpoint of version {version}: expected version "
            f"{RUN_CHECKPOINT_VERSION}; use the core-tuning that wrote it."
        )
    names = _tensors(contents, "image_encoder")
    # All of it is the encoder's: the run keeps its classifier in a section of its own.
    inner = {name.removeprefix("encoder.") for name in names}
    state, ignored = _split(contents, "image_encoder", "encoder.", inner)
    if not state or not {"mean", "std"} <= names.keys():
        raise UserError(
            f"'{source}' is a core-tuning run's checkpoint without an encoder, 'mean' or 'std' in "
            "'image_encoder': expected all three; write the file again."
        )
    ignored = [name for name in ignored if name not in ("mean", "std")]
    config = contents.get("config")
    facts = dict(config) if isinstance(config, Mapping) else {}
    facts |= {"step": contents.get("step"), "class_count": _class_count(contents)}
    return Recognised(
        "core-tuning run checkpoint",
        state,
        ignored,
        Normalisation(_numbers(names["mean"]), _numbers(names["std"])),
        _run_note(facts),
        facts.get("encoder"),
    )


def _class_count(contents: Mapping[str, Any]) -> int | None:
    weights = [value for value in _tensors(contents, "classifier").values() if value.ndim == 2]
    return weights[-1].shape[0] if weights else None


def _numbers(values: Tensor) -> tuple[float, ...]:
    # By way of text, because 0.485 in single precision is 0.4850000143 in double.
    return tuple(float(str(value)) for value in np.asarray(values.flatten().float()))


def _run_note(facts: Mapping[str, Any]) -> str:
    classes = facts.get("classes")
    count = len(classes) if isinstance(classes, list) else facts.get("class_count")
    shown = {
        "encoder": facts.get("encoder"),
        "method": facts.get("method"),
        "classes": count,
        "image size": facts.get("image_size"),
        "step": facts.get("step"),
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)
