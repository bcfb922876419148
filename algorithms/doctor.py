"""`core-tuning domainbed doctor`: what a DomainBed run needs, what is there, and what to do."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .checkout import DEFAULT_COMMIT, find_checkout, version_of
from .enable import SWITCH, is_enabled, site_folder
from .scripts import prepare

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
_WIDTH = 100


class Row(NamedTuple):
    """A line of the table; `wrong` where nothing can be trained before `to_do` is done."""

    what: str
    found: str
    to_do: str = ""
    wrong: bool = False


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 1 if something that training needs is wrong, else 0."""
    parser = Parser(
        prog="core-tuning domainbed doctor",
        description="Say what a DomainBed run needs, what of it is found, and what to do.",
    )
    parser.add_argument(
        "--data_dir", type=Path, help="folder of data sets, as DomainBed's --data_dir"
    )
    args = parser.parse_args(arguments)
    if args.data_dir is not None and not args.data_dir.is_dir():
        raise UserError(f"--data_dir is {args.data_dir}, which is not a folder: name another.")
    rows = [
        _checkout_row(),
        Row("Python", platform.python_version()),
        *(_package_row(name) for name in NEEDED),
        *(_package_row(name, user) for name, user in OPTIONAL.items()),
        _registration_row(),
        _hook_row(),
        _checkpoint_row(),
        *_dataset_rows(args.data_dir),
    ]
    print(_table(rows))
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
    from core_tuning.checkpoints import describe
    from core_tuning.pretrained import EMBEDDED, RANDOM

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


def _table(rows: Sequence[Row]) -> str:
    first = max(len(row.what) for row in rows) + 2
    second = (_WIDTH - first) // 2
    lines = [_line(Row("what", "found", "what to do"), first, second)]
    for row in rows:
        lines.append(_line(row, first, second))
    return "\n".join(lines)


def _line(row: Row, first: int, second: int) -> str:
    # A long path is broken in the second column alone, where it would hide the last one.
    found = textwrap.wrap(row.found, second - 2, break_on_hyphens=False) or [""]
    to_do = textwrap.wrap(
        row.to_do, _WIDTH - first - second, break_on_hyphens=False, break_long_words=False
    ) or [""]
    height = max(len(found), len(to_do))
    cells = zip(
        [row.what] + [""] * (height - 1),
        found + [""] * (height - len(found)),
        to_do + [""] * (height - len(to_do)),
        strict=True,
    )
    return "\n".join(
        f"{what:<{first}}{left:<{second}}{right}".rstrip() for what, left, right in cells
    )
