"""Finds a DomainBed checkout, and installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from core_tuning.cache import cache_folder
from core_tuning.errors import UserError

from .config import Install

ROOT_VARIABLE = "DOMAINBED_ROOT"
DEFAULT_SOURCE = Install.source
# Of 2024-12-31; what Core-tuning is tested with.
DEFAULT_COMMIT = "b93c22a1cfc3b2428398272c1a116c8de1f4139e"
_EVIDENCE = Path("domainbed", "algorithms.py")


class Version(NamedTuple):
    """What git says of a checkout; `commit` is None where it has no history of its own."""

    commit: str | None
    modified: bool


def is_checkout(folder: Path) -> bool:
    """Whether a folder holds DomainBed's tree."""
    return (folder / _EVIDENCE).is_file()


def installed_checkout() -> Path:
    """Return where `install` puts its checkout, be it there or not."""
    return cache_folder() / "DomainBed"


def find_checkout() -> Path:
    """Return the root of the DomainBed to use.

    It is the working folder if that is a checkout, else $DOMAINBED_ROOT, else the cache's.

    Raises:
        UserError: there is none, or $DOMAINBED_ROOT is not one.
    """
    if is_checkout(Path.cwd()):
        return Path.cwd()
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        root = Path(chosen).expanduser().resolve()
        if not is_checkout(root):
            raise UserError(
                f"{ROOT_VARIABLE} is {chosen}, which has no {_EVIDENCE}: set it to the root of a "
                "DomainBed checkout, or unset it."
            )
        return root
    if is_checkout(installed_checkout()):
        return installed_checkout().resolve()
    raise UserError(
        f"No DomainBed is found (not in the working folder, {ROOT_VARIABLE} is not set, and "
        f"{installed_checkout()} is not there): run 'core-tuning domainbed install'."
    )


def version_of(root: Path) -> Version:
    """Say at which commit a checkout is, and whether files of it were changed."""
    # Copies of DomainBed's tree often lie inside another project's repository.
    if not (root / ".git").exists() or shutil.which("git") is None:
        return Version(None, False)
    commit = _git("-C", str(root), "rev-parse", "HEAD")
    if commit.returncode:
        return Version(None, False)
    status = _git("-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return Version(commit.stdout.strip(), bool(status.stdout.strip()))


def main(options: Install) -> None:
    """Run `core-tuning domainbed install`."""
    root, commit = install(options.source, options.commit, overwrite=options.overwrite)
    print(f"DomainBed is at {root}, commit {commit}.")


def install(
    source: str = DEFAULT_SOURCE, commit: str | None = None, *, overwrite: bool = False
) -> tuple[Path, str]:
    """Clone DomainBed into the cache, whole or not at all; the same commit is cloned once.

    Args:
        source: URL or path of a git repository.
        commit: to check out; by default b93c22a of DomainBed's own repository, and of any other
            source, which may be somebody's copy with algorithms of their own, its HEAD.
        overwrite: replace a checkout that is there.

    Returns:
        The checkout's root and its commit.

    Raises:
        UserError: git is missing or cannot fetch the commit, or there is another commit already,
            or one with files of the user's.
    """
    if shutil.which("git") is None:
        raise UserError("git is not installed, and DomainBed is fetched with it: install git.")
    wanted = commit or (DEFAULT_COMMIT if source == DEFAULT_SOURCE else None)
    target = installed_checkout()
    if target.exists() and not overwrite:
        return target, _same_commit(target, source, wanted)
    if target.exists():
        _check_unchanged(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".DomainBed-", dir=target.parent) as beside:
            fetched = Path(beside) / "new"
            _clone(source, wanted, fetched)
            if target.exists():
                target.replace(Path(beside) / "old")
            fetched.replace(target)
    except OSError as error:
        raise UserError(
            f"DomainBed cannot be written into {target.parent} ({error.strerror or error}): set "
            "CORE_TUNING_CACHE to a folder that can be written."
        ) from error
    return target, str(version_of(target).commit)


def _check_unchanged(target: Path) -> None:
    """Raise a UserError where replacing a checkout would cost the user a file."""
    status = _git("-C", str(target), "status", "--porcelain")
    changed = [line[3:] for line in status.stdout.splitlines() if "__pycache__" not in line]
    if status.returncode or changed:
        what = f"a file of yours ({changed[0]})" if changed else "something else than a checkout"
        raise UserError(
            f"{target} holds {what}, which --overwrite would delete: move it elsewhere first."
        )


def _same_commit(target: Path, source: str, wanted: str | None) -> str:
    present = version_of(target).commit
    if wanted is None:
        wanted = _head_of(source)
    if present is None or not present.startswith(wanted):
        raise UserError(
            f"{target} is there already, at commit {(present or 'unknown')[:12]} where "
            f"{wanted[:12]} was asked for: add --overwrite to replace it."
        )
    return present


def _head_of(source: str) -> str:
    listed = _git("ls-remote", "--", source, "HEAD")
    if listed.returncode or not listed.stdout.strip():
        raise _unreachable(source, listed.stderr)
    return listed.stdout.split()[0]


def _clone(source: str, commit: str | None, folder: Path) -> None:
    cloned = _git("clone", "--quiet", "--no-checkout", "--", source, str(folder))
    if cloned.returncode:
        raise _unreachable(source, cloned.stderr)
    # The suffix keeps git from taking a word for a path or a branch's name for a file.
    found = _git(
        "-C", str(folder), "rev-parse", "--verify", "--quiet", f"{commit or 'HEAD'}^{{commit}}"
    )
    if found.returncode:
        raise UserError(
            f"{source} has no commit '{commit or 'HEAD'}': give one of its commits with --commit."
        )
    checked_out = _git("-C", str(folder), "checkout", "--quiet", "--detach", found.stdout.strip())
    if checked_out.returncode:
        raise UserError(
            f"git cannot check out {commit or 'HEAD'} of {source} ({_last(checked_out.stderr)}): "
            "free some space, or give another --commit."
        )
    if not is_checkout(folder):
        raise UserError(
            f"{source} at commit {found.stdout.strip()[:12]} has no {_EVIDENCE}: give the URL or "
            "path of a DomainBed repository with --source."
        )


def _unreachable(source: str, complaint: str) -> UserError:
    return UserError(
        f"git cannot fetch {source} ({_last(complaint)}): check the network, or give the URL or "
        "path of a git repository of DomainBed with --source."
    )


def _last(complaint: str) -> str:
    """Return the line of git's complaint that gives the cause."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or ["no reason given"])[0].rstrip(".")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A question for a password would wait for ever where nobody looks.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, env=environment
    )
