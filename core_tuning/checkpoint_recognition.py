"""Recognises by its keys which format a checkpoint has, and takes its encoder out."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checkpoint_formats import FORMATS, IMAGENET, NOT_ENCODER, STEM, Format
from .checkpoint_tensors import check_kinds
from .encoders import Normalisation, split_heads
from .errors import UserError, shown

# safetensors reserves this name in its own header, so no tensor can have it.
METADATA_KEY = "__metadata__"
RUN_METADATA_KEY = "core_tuning"
RUN_CHECKPOINT_KEY = "core_tuning_checkpoint"
RUN_CHECKPOINT_VERSION = 1
# Of mappings within mappings, below which no code base puts an encoder.
DEEPEST_SECTION = 5
# Of a mean or standard deviation of images, by far.
MOST = 1e6


class Recognised(NamedTuple):
    """An encoder found in a checkpoint.

    Attributes:
        format: name of the format for people, such as "MoCo v2".
        state: the encoder's tensors under its library's names.
        ignored: names, as in the file, of the tensors and sections that are not the encoder's.
        normalisation: of images in [0, 1], as in pre-training.
        note: what was assumed or chosen, or the facts of a run; "" where there is none.
        encoder: the `--encoder` that the file itself names.
        heads: attention heads of its vision transformer, where they are known from elsewhere than
            the tensors.
    """

    format: str
    state: dict[str, Tensor]
    ignored: list[str]
    normalisation: Normalisation
    note: str
    encoder: str | None = None
    heads: int | None = None


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
    facts = run_facts(contents, source)
    if facts is not None:
        return _recognise_run_model(contents, facts, source, encoder_names)
    _refuse_simclr_v2(contents, source)
    fitting = [row for row in FORMATS if _fits(row, contents)]
    if not fitting:
        raise UserError(
            f"'{source}' has no encoder that is recognised among its keys "
            f"({shorten(contents)}): expected a self-supervised method's checkpoint or "
            "a state dict; save it with torch.save(encoder.state_dict(), FILE)."
        )
    chosen = fitting[0]
    state, ignored = _split(contents, chosen.section, chosen.prefix, encoder_names)
    if chosen.behind is not None:
        _refuse_another_encoder(contents, chosen, state, source)
    notes = [chosen.note, _other_encoders(chosen, fitting)]
    return Recognised(
        chosen.name,
        state,
        ignored,
        chosen.normalisation,
        "; ".join(filter(None, notes)),
        heads=_heads(chosen, state),
    )


def shorten(names: Iterable[object], at_most: int = 5) -> str:
    """Join the first names and say how many more there are."""
    listed = [shown(name) for name in names]
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


def _heads(row: Format, state: Mapping[str, Tensor]) -> int | None:
    stem = state.get("patch_embed.proj.weight")
    return None if stem is None or not stem.ndim else dict(row.heads).get(stem.shape[0])


def _refuse_another_encoder(
    contents: Mapping[str, Any], chosen: Format, state: Mapping[str, Tensor], source: object
) -> None:
    """Raise a UserError where the file may hold the encoder that this format prefers.

    It does where there are tensors in the section that should hold that one, or where the names
    of most of the chosen encoder's weights come again behind another prefix.
    """
    weights = [name for name in state if name.endswith(".weight")]
    for section, tensors in _sections(contents):
        taken = section == chosen.section
        names = [
            name for name in tensors if not (taken and _encoder_name(name, chosen.prefix) in state)
        ]
        prefixes = {
            name.removesuffix(weights[0])
            for name in names
            if weights and (name == weights[0] or name.endswith(f".{weights[0]}"))
        }
        again = any(
            2 * sum(prefix + weight in tensors for weight in weights) > len(weights)
            for prefix in prefixes
        )
        if again or (names and section == chosen.behind and not taken):
            raise UserError(
                f"'{source}' holds an encoder in {_place(chosen)} ({chosen.name}), and in "
                f"{section or 'the file itself'} what may be the one that is preferred to it, "
                f"under names that are not expected there ({shorten(names, 2)}): save the encoder "
                "that you want alone with torch.save(encoder.state_dict(), FILE), and pass that "
                "file."
            )


def _sections(contents: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the dotted path of each mapping and the tensors that it holds itself."""
    left: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), contents)]
    seen = set()
    while left:
        path, mapping = left.pop()
        if id(mapping) in seen or len(path) > DEEPEST_SECTION:
            continue
        seen.add(id(mapping))
        yield ".".join(path), _tensors(mapping, "")
        left += [
            ((*path, name), value)
            for name, value in mapping.items()
            if isinstance(name, str) and isinstance(value, Mapping)
        ]


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
    if row.arch and not re.match(row.arch, shown(contents.get("arch"))):
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
    # Without recursion, because a pickle may nest mappings for ever, even within themselves.
    left, seen = [value], set()
    while left:
        each = left.pop()
        if isinstance(each, Tensor):
            return True
        if isinstance(each, Mapping) and id(each) not in seen:
            seen.add(id(each))
            left += each.values()
    return False


def _place(row: Format) -> str:
    return f"{row.section}/{row.prefix}*"


def _other_encoders(chosen: Format, fitting: list[Format]) -> str:
    places = {
        _place(row): None  # a dict, because a set has no order
        for row in fitting
        if row.prefix
        and (row.section, row.prefix) != (chosen.section, chosen.prefix)
        # 'encoder.module.' is also under 'encoder.': the same tensors, not other ones.
        and not (row.section == chosen.section and chosen.prefix.startswith(row.prefix))
    }
    if not places:
        return ""
    return f"took {chosen.section}/{chosen.prefix}* and not {', '.join(places)}"


def run_facts(contents: Any, source: object) -> dict[str, Any] | None:
    """Return what a run exported along with its model's tensors, or None if no run made the file.

    Args:
        contents: what `read_checkpoint` returned.
        source: how messages name the file.

    Raises:
        UserError: it is damaged.
    """
    metadata = contents.get(METADATA_KEY) if isinstance(contents, Mapping) else None
    if not isinstance(metadata, Mapping) or RUN_METADATA_KEY not in metadata:
        return None
    text = metadata[RUN_METADATA_KEY]
    try:
        facts = json.loads(text)
    # Nested too deeply, for Python's stack, it is damage all the same.
    except (ValueError, TypeError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise UserError(
            f"'{source}' has the metadata '{RUN_METADATA_KEY}' '{shown(text)}': expected a JSON "
            "object with lists of numbers 'mean' and 'std'; write the file again."
        )
    return facts


def facts_normalisation(facts: Mapping[str, Any], source: object) -> Normalisation:
    """Return the normalisation that a run's facts state, ImageNet's if they state none.

    Raises:
        UserError: it is not three finite numbers each, with a std above 0.
    """
    mean, std = facts.get("mean", IMAGENET.mean), facts.get("std", IMAGENET.std)
    for name, values, above in (("mean", mean, -MOST), ("std", std, 0.0)):
        if not (
            isinstance(values, (list, tuple))
            and len(values) == 3
            and all(type(value) in (int, float) and above < value < MOST for value in values)
        ):
            raise UserError(
                f"'{source}' states the {name} {shown(values)} for its input: expected three "
                f"numbers above {above:g} and below {MOST:g}; write the file again."
            )
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def _recognise_run_model(
    contents: Mapping[str, Any],
    facts: Mapping[str, Any],
    source: object,
    encoder_names: Collection[str],
) -> Recognised:
    state, ignored = _split(contents, "", "", encoder_names)
    normalisation = facts_normalisation(facts, source)
    return _recognised_run("core-tuning model", state, ignored, normalisation, facts)


def _recognise_run_checkpoint(contents: Mapping[str, Any], source: object) -> Recognised:
    version = contents[RUN_CHECKPOINT_KEY]
    if type(version) is not int or version != RUN_CHECKPOINT_VERSION:
        raise UserError(
            f"'{source}' is a core-tuning run's checkpoint of version {shown(version)}: expected "
            f"version {RUN_CHECKPOINT_VERSION}; use the core-tuning that wrote it."
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
    numbers = {name: names[name] for name in ("mean", "std")}
    check_kinds(numbers, source, dict.fromkeys(numbers, torch.zeros(3)))
    stated = {name: _numbers(value) for name, value in numbers.items()}
    ignored = [name for name in ignored if name not in stated]
    config = contents.get("config")
    facts = dict(config) if isinstance(config, Mapping) else {}
    facts |= {"step": contents.get("step"), "class_count": _class_count(contents)}
    normalisation = facts_normalisation(stated, source)
    return _recognised_run("core-tuning run checkpoint", state, ignored, normalisation, facts)


def _recognised_run(
    name: str,
    state: dict[str, Tensor],
    ignored: list[str],
    normalisation: Normalisation,
    facts: Mapping[str, Any],
) -> Recognised:
    stated = facts.get("encoder")
    encoder = stated if isinstance(stated, str) else None
    heads = None if encoder is None else split_heads(encoder)[1]
    return Recognised(name, state, ignored, normalisation, _run_note(facts), encoder, heads)


def _class_count(contents: Mapping[str, Any]) -> int | None:
    weights = [value for value in _tensors(contents, "classifier").values() if value.ndim == 2]
    return weights[-1].shape[0] if weights else None


def _numbers(values: Tensor) -> tuple[float, ...]:
    if values.numel() != 3:
        return ()
    # By way of text, because 0.485 in single precision is 0.4850000143 in double.
    return tuple(float(str(value)) for value in np.asarray(values.flatten().float()))


def _run_note(facts: Mapping[str, Any]) -> str:
    classes = facts.get("classes")
    count = len(classes) if isinstance(classes, list) else facts.get("class_count")
    stated = {
        "encoder": facts.get("encoder"),
        "method": facts.get("method"),
        "classes": count,
        "image size": facts.get("image_size"),
        "step": facts.get("step"),
    }
    return ", ".join(
        f"{name} {shown(value)}" for name, value in stated.items() if isinstance(value, (str, int))
    )
