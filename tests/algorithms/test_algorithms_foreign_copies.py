"""The import hook and copies of DomainBed that it does not know: it leaves them as they are."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import inspect
import os
import pickle
import sys
from pathlib import Path

import pytest

from core_tuning.algorithms import hook, register, registration
from core_tuning.algorithms.names import ALGORITHMS
from core_tuning.errors import UserError

from .conftest import forget_domainbed

MODULES = [name.partition(".")[2] for name in hook.PATCHES]
# What khanrc/swad and khanrc/miro changed: packages for modules, and a random state for a seed.
SWAD = {
    "algorithms.py": None,
    "datasets.py": None,
    "command_launchers.py": "REGISTRY = {'local': print}\n",
    "algorithms/__init__.py": "from .algorithms import *\n",
    "algorithms/algorithms.py": (
        "from domainbed import networks, hparams_registry\n"
        "class ERM:\n"
        "    def __init__(self, hparams):\n"
        "        self.featurizer = networks.Featurizer((3, 224, 224), hparams)\n"
    ),
    "datasets/__init__.py": "from domainbed.datasets import datasets\n",
    "datasets/datasets.py": "DATASETS = ['PACS']\nclass MultipleDomainDataset: N_STEPS = 5001\n",
    "hparams_registry.py": (
        "import numpy as np\n"
        "def _hparams(algorithm, dataset, random_state):\n"
        "    return {'lr': (5e-5, 10 ** random_state.uniform(-5, -3.5))}\n"
        "def default_hparams(algorithm, dataset):\n"
        "    state = np.random.RandomState(0)\n"
        "    return {k: d for k, (d, r) in _hparams(algorithm, dataset, state).items()}\n"
        "def random_hparams(algorithm, dataset, seed):\n"
        "    state = np.random.RandomState(seed)\n"
        "    return {k: r for k, (d, r) in _hparams(algorithm, dataset, state).items()}\n"
    ),
}
UNKNOWN = {
    "tuple": {"algorithms.py": "ALGORITHMS = ('ERM',)\nclass ERM: pass\n"},
    "name taken": {
        "algorithms.py": "ALGORITHMS = ['ERM']\nclass ERM: pass\nclass CETuning: pass\n"
    },
    "launcher taken": {"command_launchers.py": "REGISTRY = {'core_ray': print}\n"},
    "no data sets": {"datasets.py": "class MultipleDomainDataset: pass\n"},
    "random state": {"hparams_registry.py": SWAD["hparams_registry.py"]},
    # A function in the place of this class could not be inherited.
    "class": {
        "networks.py": "class Featurizer:\n    def __init__(self, input_shape, hparams): pass\n",
        "algorithms.py": (
            "from domainbed import networks\nALGORITHMS = ['ERM']\nclass ERM: pass\n"
            "class Mine(networks.Featurizer): pass\n"
        ),
    },
    "other loader": {
        "lib/fast_data_loader.py": (
            "class InfiniteDataLoader:\n    def __init__(self, dataset, batch_size): pass\n"
        )
    },
}


def rewrite(root: Path, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        file = root / "domainbed" / name
        if text is None:
            file.unlink()
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    importlib.invalidate_caches()


def load(names=MODULES):
    return {name: importlib.import_module(f"domainbed.{name}") for name in names}


def contents(modules):
    """What a module holds, its values by what they print without an address."""

    def plain(value):
        return (type(value), getattr(value, "__wrapped__", None), str(value).split(" at 0x")[0])

    return {
        name: {key: plain(value) for key, value in vars(module).items() if key != "__builtins__"}
        for name, module in modules.items()
    }


@pytest.mark.parametrize("files", [SWAD, *UNKNOWN.values()], ids=["swad", *UNKNOWN])
def test_an_unknown_copy_stays_as_it_is(fake_domainbed, caplog, no_warnings, files):
    rewrite(fake_domainbed, files)
    plain = contents(load())
    forget_domainbed()
    hook.install()
    found = load()
    assert contents(found) == plain
    assert sys.excepthook is sys.__excepthook__
    [record] = caplog.records
    said = record.getMessage()
    assert said.startswith(f"core-tuning: warning: {fake_domainbed / 'domainbed'} is left as it is")
    assert "\n" not in said
    # Asked for, it is refused as ever, and the hook adds nothing.
    forget_domainbed()
    with pytest.raises(UserError):
        register()
    assert len(caplog.records) == 1
    assert contents(load()) == plain


def test_swads_erm_is_the_same(fake_domainbed, caplog):
    rewrite(fake_domainbed, SWAD)
    hook.install()
    found = load()
    registry = found["hparams_registry"]
    hparams = registry.random_hparams("ERM", "PACS", 3)
    assert hparams["lr"] == pytest.approx(10 ** (-5 + 1.5 * 0.5507979025745755))
    assert found["algorithms"].ERM({"checkpoint": "mine.pth"}).featurizer == "stock"


@pytest.mark.parametrize("failing", MODULES)
@pytest.mark.parametrize("kind", [ImportError, OSError, RecursionError, AssertionError])
def test_whatever_our_patching_raises_stays_inside(
    fake_domainbed, caplog, monkeypatch, failing, kind
):
    plain = contents(load())
    forget_domainbed()
    patch = registration.patch

    def fail(module, undo):
        patch(module, undo)
        if module.__name__ == f"domainbed.{failing}":
            raise kind("first line\nsecond line")

    monkeypatch.setattr(registration, "patch", fail)
    hook.install()
    assert contents(load()) == plain
    [record] = caplog.records
    assert f"({kind.__name__}: first line)" in record.getMessage()


def test_register_patches_all_modules_or_none(fake_domainbed):
    rewrite(fake_domainbed, UNKNOWN["other loader"])
    plain = contents(load())
    with pytest.raises(UserError, match="InfiniteDataLoader has no function '__init__' of dataset"):
        register()
    assert contents(load()) == plain


def test_what_a_foreign_module_raises_is_its_own(fake_domainbed):
    rewrite(fake_domainbed, {"networks.py": "raise KeyError('theirs')\n"})
    hook.install()
    with pytest.raises(KeyError, match="theirs"):
        importlib.import_module("domainbed.networks")


def test_folders_without_init_are_imported(fake_domainbed):
    rewrite(fake_domainbed, {"networks.py": None, "networks/notes.txt": "", "__init__.py": None})
    hook.install()
    found = load()
    assert found["networks"].__file__ is None
    assert "CoreTuning" in found["algorithms"].ALGORITHMS


class Asking(importlib.abc.MetaPathFinder):
    """Asks all other finders, as ours does."""

    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None


class Old:
    """A finder of the time before find_spec."""

    def find_module(self, name, path=None):
        return None


@pytest.mark.parametrize("first", [True, False])
def test_finders_of_other_tools_are_no_harm(fake_domainbed, monkeypatch, caplog, first):
    others = [Asking(), Old()]
    if first:
        sys.meta_path[:0] = others
        hook.install()
        sys.meta_path.remove(others[1])
    else:
        hook.install()
        sys.meta_path[:0] = others[:1]
    assert ["ERM", *ALGORITHMS] == load()["algorithms"].ALGORITHMS
    assert not caplog.records


def test_a_patched_module_looks_as_without_us(fake_domainbed):
    hook.install()
    spec = importlib.util.find_spec("domainbed.networks")
    assert "Featurizer" in spec.loader.get_source("domainbed.networks")
    networks = importlib.import_module("domainbed.networks")
    assert networks.__loader__ is networks.__spec__.loader
    assert type(networks.__loader__).__name__ == "SourceFileLoader"
    assert inspect.getsource(networks.Featurizer).startswith("def Featurizer(input_shape, hparams)")
    assert pickle.loads(pickle.dumps(networks.Featurizer)) is networks.Featurizer
    importlib.reload(networks)
    assert networks.Featurizer((3, 32, 32), {}) == "stock"
    algorithms = importlib.import_module("domainbed.algorithms")
    importlib.reload(algorithms)
    assert ["ERM", *ALGORITHMS] == algorithms.ALGORITHMS


def test_more_arguments_are_passed_on(fake_domainbed):
    rewrite(
        fake_domainbed,
        {
            "networks.py": "def Featurizer(input_shape, hparams, *, deep=False): return deep\n",
            "lib/fast_data_loader.py": (
                "class InfiniteDataLoader:\n"
                "    def __init__(self, dataset, weights=None, batch_size=2, seed=0):\n"
                "        self.given = weights, batch_size, seed\n"
            ),
        },
    )
    register()
    found = load()
    assert found["networks"].Featurizer((3, 32, 32), hparams={}, deep=True) is True
    loader = found["lib.fast_data_loader"].InfiniteDataLoader
    assert loader([1, 2], seed=3).given == (None, 2, 3)
    with pytest.raises(UserError, match="A domain has 1 images"):
        loader([1])


def test_an_excepthook_of_another_tool_stays(fake_domainbed, monkeypatch):
    def theirs(*_):
        pass

    monkeypatch.setattr(sys, "excepthook", theirs)
    hook.install()
    load()
    assert sys.excepthook is theirs


REAL = """
import sys
sys.path.insert(0, {stubs!r})
import torch
from domainbed import algorithms, hparams_registry, networks
class Hparams(dict):
    __getattr__ = dict.__getitem__
hparams = hparams_registry.default_hparams("ERM", "PACS")
print(sorted(hparams.items()))
print(hparams_registry.random_hparams("ERM", "PACS", 3))
print(algorithms.ERM.__mro__, networks.Featurizer.__qualname__, sorted(vars(algorithms)))
torch.manual_seed(0)
model = algorithms.ERM((3, 28, 28), 7, 3, Hparams(hparams, model="resnet50"))
for seed in range(2):
    torch.manual_seed(seed)
    print(model.update([torch.randn(4, 3, 28, 28)], [torch.randint(0, 7, (4,))]))
"""


@pytest.mark.parametrize("variable", ["SWAD_ROOT", "MIRO_ROOT"])
def test_real_copies_train_the_same(environment, run, tmp_path, variable):
    root = Path(os.environ.get(variable, "nowhere"))
    if not (root / "domainbed").is_dir():
        pytest.skip(f"{variable} is not a checkout")
    # MIRO imports CLIP's package, of which ERM needs nothing.
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "clip.py").touch()
    program = REAL.format(stubs=str(tmp_path / "stubs"))
    run(environment / "python", "-m", "core_tuning", "domainbed", "enable")
    without, with_us = (
        run(environment / "python", "-c", program, cwd=root, CORE_TUNING_DOMAINBED=switch)
        for switch in ("0", "1")
    )
    assert without.returncode == with_us.returncode == 0, with_us.stdout
    warning, *rest = with_us.stdout.splitlines()
    assert warning.startswith(f"core-tuning: warning: {root / 'domainbed'} is left as it is")
    assert rest == without.stdout.splitlines()
    refused = run(
        environment / "python", "-c", "from core_tuning.algorithms import register; register()",
        cwd=root,
    )  # fmt: skip
    assert refused.stdout.splitlines()[-1].startswith("core_tuning.errors.UserError: ")
