"""Patches DomainBed's modules as they are imported, and never fails an import.

Other copies of DomainBed may lie in the same environment, whose users asked for nothing: one that
has not what is patched stays as it is, with one warning. `enable` switches the hook on for every
Python of this environment.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from core_tuning.errors import UserError

if TYPE_CHECKING:
    from .config import Disable, Enable

SWITCH = "CORE_TUNING_DOMAINBED"
FILE = "core_tuning_domainbed.pth"
# Python runs this at every start. So that it costs next to nothing and cannot fail, it imports
# nothing of Core-tuning, which may have been uninstalled since, before somebody imports DomainBed.
_STARTER = f"""
import os, sys

class CoreTuningStarter:
    def find_spec(self, name, path=None, target=None):
        if name == "domainbed" and os.environ.get("{SWITCH}") != "0":
            try:
                from core_tuning.algorithms.hook import install
            except ModuleNotFoundError:
                return
            install()

sys.meta_path.insert(0, CoreTuningStarter())
"""
_LINE = f"import sys; exec({_STARTER!r}, {{}})\n"
# DomainBed's modules, and the function of `registration` that patches each.
PATCHES = {
    "domainbed.algorithms": "patch_algorithms",
    "domainbed.command_launchers": "patch_command_launchers",
    "domainbed.hparams_registry": "patch_hparams_registry",
    "domainbed.datasets": "patch_datasets",
    "domainbed.networks": "patch_networks",
    "domainbed.lib.fast_data_loader": "patch_fast_data_loader",
}
# Folder of a copy of DomainBed -> what takes its patches back, None where it is left alone.
_copies: dict[str, ExitStack | None] = {}
_suspensions: list[None] = []


def install() -> None:
    """Patch DomainBed in this process from its next import on. May be called again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextmanager
def suspended() -> Iterator[None]:
    """Patch nothing that is imported in the meantime."""
    _suspensions.append(None)
    try:
        yield
    finally:
        _suspensions.pop()


class _Finder:
    """Finds DomainBed's modules where the other finders do, and has them patched."""

    def __init__(self) -> None:
        self._looking = threading.local()

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        # Another tool's finder may ask all finders too, and would be asked by this one for ever.
        if name not in PATCHES or _suspensions or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            return self._find(name, path, target)
        finally:
            self._looking.now = False

    def _find(self, name, path, target):  # type: ignore[no-untyped-def]
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is None:
                continue
            # A folder without __init__.py has none, and modules of old tools another kind.
            if hasattr(spec.loader, "create_module") and hasattr(spec.loader, "exec_module"):
                spec.loader = _Loader(spec)
            return spec
        return None


class _Loader:
    """Runs a module by its own loader and patches it; the module looks as if that had loaded it."""

    def __init__(self, spec):  # type: ignore[no-untyped-def]
        self._spec, self._loader = spec, spec.loader

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        # Without the test a copy of this object, which has no loader yet, would look for ever.
        if name.startswith("_loader"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        self._spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch(module)


def _patch(module: ModuleType) -> None:
    """Patch a module as a whole, or warn and take back what was patched in its copy."""
    folder = "DomainBed"
    try:
        folder = str(next(iter(sys.modules["domainbed"].__path__)))
        undo = _copies.setdefault(folder, ExitStack())
        if undo is None:
            return
        from . import registration

        registration.patch(module, undo)
        _report_mistakes_in_a_sentence(undo)
    # Whatever is wrong with this copy or with our own imports, theirs must not fail.
    except Exception as error:
        _leave_alone(folder, error)


def _leave_alone(folder: str, error: Exception) -> None:
    undo, _copies[folder] = _copies.get(folder), None
    if undo is not None:
        undo.close()
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    # Not by the module warnings, which can be told to raise what it is given.
    logging.getLogger("core_tuning").warning(
        "core-tuning: warning: %s is left as it is, without CoreTuning, CECon and CETuning (%s).",
        folder,
        reason.partition("\n")[0].rstrip("."),
    )


def _report_mistakes_in_a_sentence(undo: ExitStack) -> None:
    """Make Python print a user's mistake as `core-tuning domainbed train` does.

    A hook that another tool has set, such as one that reports crashes, stays.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _report
        undo.callback(_report_as_before)


def _report_as_before() -> None:
    if sys.excepthook is _report:
        sys.excepthook = sys.__excepthook__


def _report(kind, error, trace):  # type: ignore[no-untyped-def]
    if issubclass(kind, UserError):
        print(f"core-tuning: error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def site_folder() -> Path:
    """Return this environment's site-packages."""
    return Path(sysconfig.get_path("purelib"))


def is_enabled() -> bool:
    """Whether plain DomainBed commands of this environment know Core-tuning's names."""
    return (site_folder() / FILE).is_file()


def enable() -> Path:
    """Make `python -m domainbed.scripts.…` of this environment know Core-tuning's names.

    Python 3.15 and later read such lines from another kind of file.

    Returns:
        The file that does it.

    Raises:
        UserError: site-packages cannot be written.
    """
    file = site_folder() / FILE
    try:
        file.write_text(_LINE, encoding="utf-8")
    except OSError as error:
        raise _not_writable(error) from error
    return file


def disable() -> bool:
    """Undo `enable`; return whether there was anything to undo.

    Raises:
        UserError: site-packages cannot be written.
    """
    file = site_folder() / FILE
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _not_writable(error) from error
    return True


def _not_writable(error: OSError) -> UserError:
    return UserError(
        f"{site_folder()} cannot be written ({error.strerror or error}): use a virtual "
        "environment of your own, or 'core-tuning domainbed train', which needs no such change."
    )


def enable_command(options: Enable) -> None:
    """Run `core-tuning domainbed enable`."""
    print(
        f"Plain DomainBed commands of this environment know Core-tuning's names now, by {enable()}"
        f"; {SWITCH}=0 suspends it, 'core-tuning domainbed disable' ends it."
    )


def disable_command(options: Disable) -> None:
    """Run `core-tuning domainbed disable`."""
    undone = "not any more" if disable() else "as before: it was not enabled"
    print(
        f"Plain DomainBed commands of this environment do not know Core-tuning's names, {undone}."
    )
