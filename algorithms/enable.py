"""Switches the import hook on and off for every Python of this environment."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from core_tuning.errors import UserError

SWITCH = "CORE_TUNING_DOMAINBED"
FILE = "core_tuning_domainbed.pth"
# Python runs this line at every start, so it must neither fail nor do anything where Core-tuning
# was uninstalled; the parent packages are looked up first because an uninstall can leave folders
# behind, which Python would take for empty packages.
_LINE = (
    "import importlib.util, os; "
    f"os.environ.get('{SWITCH}') != '0' "
    "and importlib.util.find_spec('core_tuning') "
    "and importlib.util.find_spec('core_tuning.algorithms') "
    "and importlib.util.find_spec('core_tuning.algorithms.import_hook') "
    "and __import__('core_tuning.algorithms.import_hook', fromlist=['install']).install()\n"
)


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
