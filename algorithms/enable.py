"""Switches the import hook on and off for every Python of this environment."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from core_tuning.errors import UserError

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
                from core_tuning.algorithms.import_hook import install
            except ModuleNotFoundError:
                return
            install()

sys.meta_path.insert(0, CoreTuningStarter())
"""
_LINE = f"import sys; exec({_STARTER!r}, {{}})\n"


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
