"""`core-tuning domainbed doctor`: what a DomainBed run needs, what is there, and what to do."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from core_tuning.errors import UserError

from .checkout import DEFAULT_COMMIT, find_checkout, version_of
from .config import Doctor
from .domainbed import prepare
from .hook import SWITCH, is_enabled, site_folder

EXTRA = "pip install 'core-tuning[domainbed]'"
# What DomainBed's train imports, and what one algorithm or another command alone does.
NEEDED = ("torch", "torchvision", "timm", "numpy", "pillow", "tqdm", "wilds")
OPTIONAL = {
    "backpack-for-pytorch": "Fishr",
    "gdown": "domainbed.scripts.download",
    "imageio": "domainbed.scripts.save_images",
    "parameterized": "DomainBed's tests",
}
_TESTED = f"tested is an unchanged {DEFAULT_COMMIT[:7]}: 'core-tuning domainbed install'"


class Row(NamedTuple):
    """A line; `wrong` where nothing can be trained before `to_do` is done."""

    what: str
    found: str
    to_do: str = ""
    wrong: bool = False


def main(options: Doctor) -> int:
    """Print a line or two of each; return 1 if something that training needs is wrong, else 0."""
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise UserError(f"--data_dir is {options.data_dir}, which is not a folder: name another.")
    rows = [
        _checkout_row(),
        Row("Python", platform.python_version()),
        *(_package_row(name) for name in NEEDED),
        *(_package_row(name, user) for name, user in OPTIONAL.items()),
        _registration_row(),
        _hook_row(),
        _checkpoint_row(),
        *_dataset_rows(options.data_dir),
    ]
    for row in rows:
        print(f"{row.what:<22} {row.found}")
        if row.to_do:
            print(f"{'':<22} -> {row.to_do}")
    return int(any(row.wrong for row in rows))


def _checkout_row() -> Row:
    try:
        root = find_checkout()
    except UserError as error:
        return Row("DomainBed", "missing", str(error), wrong=True)
    version = version_of(root)
    commit = f"commit {version.commit[:7]}" if version.commit else "commit unknown"
    changed = ", changed files" if version.modified else ""
    differs = version.commit != DEFAULT_COMMIT or version.modified
    return Row("DomainBed", f"{root}, {commit}{changed}", _TESTED if differs else "")


def _package_row(name: str, user: str = "") -> Row:
    try:
        return Row(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        found = f"missing; {user} needs it" if user else "missing"
        return Row(name, found, EXTRA, wrong=not user)


def _registration_row() -> Row:
    what = "registration"
    # Here, because --help must not wait for torch.
    from .hyperparameters import ALGORITHMS, EMOJI

    try:
        prepare()
    except UserError as error:
        return Row(what, "fails", str(error), wrong=True)
    return Row(what, f"works: {', '.join((*ALGORITHMS, EMOJI))}")


def _hook_row() -> Row:
    what = "plain commands"
    if not is_enabled():
        return Row(
            what,
            "do not know our names: not enabled",
            "if they shall: 'core-tuning domainbed enable'",
        )
    if os.environ.get(SWITCH) == "0":
        return Row(what, f"enabled, but {SWITCH} is 0", f"unset {SWITCH}")
    return Row(what, f"know our names, through {site_folder()}")


def _checkpoint_row() -> Row:
    # Here, because --help must not wait for torch.
    from core_tuning.checkpoints.describe import describe
    from core_tuning.checkpoints.sources import EMBEDDED, RANDOM

    from .hyperparameters import CHECKPOINT_VARIABLE

    chosen = os.environ.get(CHECKPOINT_VARIABLE)
    if not chosen:
        return Row(
            CHECKPOINT_VARIABLE,
            "not set",
            "needed on all but EmojiDomains: set it, or give the hyper-parameter checkpoint",
        )
    if chosen in (EMBEDDED, RANDOM):
        return Row(CHECKPOINT_VARIABLE, chosen)
    try:
        return Row(CHECKPOINT_VARIABLE, "; ".join(describe(chosen)[:2]))
    except UserError as error:
        return Row(CHECKPOINT_VARIABLE, f"unusable: {chosen}", str(error), wrong=True)


def _dataset_rows(data_dir: Path | None) -> list[Row]:
    from .environments import DATASETS
    from .hyperparameters import EMOJI

    rows = []
    for name, layout in DATASETS.items():
        if name == EMOJI:
            rows.append(_emoji_row(name))
        elif data_dir is None:
            rows.append(Row(name, "not looked for", "name a folder by --data_dir"))
        else:
            rows.append(_dataset_row(name, data_dir / layout.folder))
    return rows


def _emoji_row(name: str) -> Row:
    from core_tuning.data.embedded import emoji_domains_folder

    try:
        folder = emoji_domains_folder()
    except UserError as error:
        return Row(name, "cannot be unpacked", str(error), wrong=True)
    return _dataset_row(name, folder)


def _dataset_row(name: str, folder: Path) -> Row:
    from .folders import check_domains, count_images, subfolders

    domains = subfolders(folder) if folder.is_dir() else []
    if not domains:
        return Row(name, "absent", f"put it there as {folder}/DOMAIN/CLASS/IMAGES")
    counts = ", ".join(f"{domain.name} {count_images(domain):,}" for domain in domains)
    found = f"{len(domains)} domains: {counts} images"
    # Not there if the checkout is missing, which another row says.
    data_set = getattr(sys.modules.get("domainbed.datasets"), name, None)
    try:
        check_domains(folder, len(getattr(data_set, "ENVIRONMENTS", ())))
    except UserError as error:
        return Row(name, found, str(error), wrong=True)
    return Row(name, found)
