"""Patches DomainBed's modules as they are imported.

`core-tuning domainbed enable` runs `install` at every start of Python, so this imports nothing:
not even importlib.abc, whose interfaces are fulfilled without being named.
"""

from __future__ import annotations

import sys

# DomainBed's modules, and the function of `registration` that patches each.
PATCHES = {
    "domainbed.algorithms": "patch_algorithms",
    "domainbed.command_launchers": "patch_command_launchers",
    "domainbed.hparams_registry": "patch_hparams_registry",
    "domainbed.datasets": "patch_datasets",
    "domainbed.networks": "patch_networks",
    "domainbed.lib.fast_data_loader": "patch_fast_data_loader",
}


def install() -> None:
    """Patch DomainBed in this process from its next import on. May be called again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds DomainBed's modules where the other finders do, and has them patched."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A module's own loader, which patches the module after it has run."""

    def __init__(self, loader):  # type: ignore[no-untyped-def]
        self._loader = loader

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        return getattr(self._loader, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        self._loader.exec_module(module)
        from . import registration

        _report_mistakes_in_a_sentence()
        getattr(registration, PATCHES[module.__name__])(module)


def _report_mistakes_in_a_sentence() -> None:
    """Make Python print a user's mistake as `core-tuning domainbed train` does."""
    if getattr(sys.excepthook, "__module__", None) == __name__:
        return
    previous = sys.excepthook

    def report(kind, error, trace):  # type: ignore[no-untyped-def]
        from core_tuning.errors import UserError

        if issubclass(kind, UserError):
            print(f"core-tuning: error: {error}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    sys.excepthook = report
