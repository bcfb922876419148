"""Recognises by its keys which format a checkpoint has, and takes its encoder out."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..encoders import Normalisation, split_heads
from ..errors import UserError, shown
from .formats import FORMATS, IMAGENET, NOT_ENCODER, STEM, WRAPPERS, Format
from .read import METADATA_KEY
from .tensors import check_kinds

RUN_METADATA_KEY = "core_tuning"
RUN_CHECKPOINT_KEY = "core_tuning_checkpoint"
RUN_CHECKPOINT_VERSION = 1
# Of mappings within mappings, below which no code base puts an encoder.
DEEPEST_SECTION = 5
# Of a mean or standard deviation of images, by far.
MOST = 1e6

# The tensors of each mapping in a file, by the mapping's dotted path; "" is the file itself.
Sections = Mapping[str, Mapping[str, Tensor]]


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
        UserError: no encoder is recognised, the format cannot be loaded, or the file may hold the
            encoder that its format prefers where none is expected.
    """
    if not isinstance(contents, Mapping):
        raise UserError(
            f"'{source}' holds a {type(contents).__name__}: expected a dictionary of tensors; "
            "save it with torch.save(encoder.state_dict(), FILE)."
        )
    sections = _sections(contents)
    if RUN_CHECKPOINT_KEY in contents:
        return _recognise_run_checkpoint(contents, sections, source)
    facts = run_facts(contents, source)
    if facts is not None:
        state, ignored = _split(sections, "", "", encoder_names)
        normalisation = facts_normalisation(facts, source)
        return _recognised_run("core-tuning model", state, ignored, normalisation, facts)
    resnet = sections.get("resnet", {})
    if resnet and "head" in contents and not any(re.search(STEM, name) for name in resnet):
        raise UserError(
            f"'{source}' is a SimCLR v2 checkpoint, whose ResNet has another stem, other names and "
            "selective kernels that no torchvision or timm encoder has: expected another method's "
            "checkpoint; pass, for example, SimCLR v1 or MoCo v2."
        )
    fitting = [row for row in FORMATS if _fits(row, contents, sections)]
    if not fitting:
        raise UserError(
            f"'{source}' has no encoder that is recognised among its keys "
            f"({shorten(contents)}): expected a self-supervised method's checkpoint or "
            "a state dict; save it with torch.save(encoder.state_dict(), FILE)."
        )
    chosen = fitting[0]
    state, ignored = _split(sections, chosen.section, chosen.prefix, encoder_names)
    if chosen.behind is not None:
        _refuse_another_encoder(sections, chosen, state, source)
    stem = state.get("patch_embed.proj.weight")
    notes = [chosen.note, _other_encoders(chosen, fitting)]
    return Recognised(
        chosen.name,
        state,
        ignored,
        chosen.normalisation,
        "; ".join(filter(None, notes)),
        heads=dict(chosen.heads).get(stem.shape[0]) if stem is not None and stem.ndim else None,
    )


def shorten(names: Iterable[object], at_most: int = 5) -> str:
    """Join the first names and say how many more there are."""
    listed = [shown(name) for name in names]
    more = len(listed) - at_most
    return ", ".join(listed[:at_most]) + (f" and {more} more" if more > 0 else "")


def _sections(contents: Mapping[Any, Any]) -> Sections:
    found: dict[str, dict[str, Tensor]] = {}
    left: deque[tuple[str, int, Mapping[Any, Any]]] = deque([("", 0, contents)])
    # A pickle may nest a mapping within itself, and refer to one from many places.
    searched = set()
    while left:
        path, depth, mapping = left.popleft()
        found[path] = {
            name: value
            for name, value in mapping.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        if id(mapping) in searched or depth == DEEPEST_SECTION:
            continue
        searched.add(id(mapping))
        left += [
            (f"{path}.{name}" if path else str(name), depth + 1, value)
            for name, value in mapping.items()
            if isinstance(value, Mapping)
        ]
    return found


def _encoder_name(name: str, prefix: str) -> str:
    """Return a tensor's name in the encoder, without wrappers and prefix; "" if it is not there."""
    inner = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return inner.removeprefix(prefix) if inner.startswith(prefix) else ""


def _fits(row: Format, contents: Mapping[str, Any], sections: Sections) -> bool:
    names = list(sections.get(row.section, ()))
    return (
        any(name.endswith(".weight") and _encoder_name(name, row.prefix) for name in names)
        and (not row.alone or set(contents) == {row.section})
        and (not row.arch or bool(re.match(row.arch, shown(contents.get("arch")))))
        and not (row.lacks and any(re.search(row.lacks, name) for name in names))
        and all(any(re.search(pattern, name) for name in names) for pattern in row.has)
    )


def _split(
    sections: Sections, section: str, prefix: str, encoder_names: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the encoder's tensors under its own names, and what else the file holds."""
    state = {}
    ignored = []
    for name, value in sections.get(section, {}).items():
        inner = _encoder_name(name, prefix)
        if inner and (inner in encoder_names or not NOT_ENCODER.match(inner)):
            state[inner] = value
        else:
            ignored.append(name)
    if section:
        holding = dict.fromkeys(path.split(".")[0] for path, held in sections.items() if held)
        ignored += [
            *sections[""],
            *(key for key in holding if key not in ("", section.split(".")[0])),
        ]
    return state, ignored


def _refuse_another_encoder(
    sections: Sections, chosen: Format, state: Mapping[str, Tensor], source: object
) -> None:
    """Raise a UserError where the file may hold the encoder that this format prefers.

    It does where there are tensors in the section that should hold that one, or where the names
    of most of the chosen encoder's weights come again behind another prefix.
    """
    weights = [name for name in state if name.endswith(".weight")]
    for section, tensors in sections.items():
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


def _place(row: Format) -> str:
    return f"{row.section}/{row.prefix}*"


def _other_encoders(chosen: Format, fitting: list[Format]) -> str:
    places = dict.fromkeys(_place(row) for row in fitting if row.prefix)  # a set has no order
    places.pop(_place(chosen), None)
    return f"took {_place(chosen)} and not {', '.join(places)}" if places else ""


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


def _recognise_run_checkpoint(
    contents: Mapping[str, Any], sections: Sections, source: object
) -> Recognised:
    version = contents[RUN_CHECKPOINT_KEY]
    if type(version) is not int or version != RUN_CHECKPOINT_VERSION:
        raise UserError(
            f"'{source}' is a core-tuning run's checkpoint of version {shown(version)}: expected "
            f"version {RUN_CHECKPOINT_VERSION}; use the core-tuning that wrote it."
        )
    tensors = sections.get("image_encoder", {})
    # All of it is the encoder's: the run keeps its classifier in a section of its own.
    inner = {name.removeprefix("encoder.") for name in tensors}
    state, ignored = _split(sections, "image_encoder", "encoder.", inner)
    if not state or not {"mean", "std"} <= tensors.keys():
        raise UserError(
            f"'{source}' is a core-tuning run's checkpoint without an encoder, 'mean' or 'std' in "
            "'image_encoder': expected all three; write the file again."
        )
    numbers = {name: tensors[name] for name in ("mean", "std")}
    check_kinds(numbers, source, dict.fromkeys(numbers, torch.zeros(3)))
    stated = {name: _numbers(value) for name, value in numbers.items()}
    config = contents.get("config")
    classifier = [value for value in sections.get("classifier", {}).values() if value.ndim == 2]
    facts = {
        **(config if isinstance(config, Mapping) else {}),
        "step": contents.get("step"),
        "class_count": classifier[-1].shape[0] if classifier else None,
    }
    return _recognised_run(
        "core-tuning run checkpoint",
        state,
        [name for name in ignored if name not in stated],
        facts_normalisation(stated, source),
        facts,
    )


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
    classes = facts.get("classes")
    notes = {
        "encoder": stated,
        "method": facts.get("method"),
        "classes": len(classes) if isinstance(classes, list) else facts.get("class_count"),
        "image size": facts.get("image_size"),
        "step": facts.get("step"),
    }
    note = ", ".join(
        f"{name} {shown(value)}" for name, value in notes.items() if isinstance(value, (str, int))
    )
    return Recognised(name, state, ignored, normalisation, note, encoder, heads)


def _numbers(values: Tensor) -> tuple[float, ...]:
    if values.numel() != 3:
        return ()
    # By way of text, because 0.485 in single precision is 0.4850000143 in double.
    return tuple(float(str(value)) for value in np.asarray(values.flatten().float()))
