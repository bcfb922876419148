"""DomainBed for tests: a real checkout where there is one, a fake one, and environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import ImageFile

from core_tuning.cache import cache_folder

# Here, because later the tests' own cache takes the place of the user's.
CANDIDATES = [Path(os.environ.get("DOMAINBED_ROOT", "nowhere")), cache_folder() / "DomainBed"]

Run = Callable[..., subprocess.CompletedProcess]

FAKE = {
    "__init__.py": "",
    "algorithms.py": "ALGORITHMS = ['ERM']\nclass ERM: pass\n",
    "command_launchers.py": "REGISTRY = {'local': print}\n",
    "datasets.py": (
        "DATASETS = ['Debug28']\n"
        "class MultipleDomainDataset:\n    N_STEPS, N_WORKERS, ENVIRONMENTS = 5001, 8, None\n"
        "class Debug28(MultipleDomainDataset): ENVIRONMENTS = ['0', '1', '2']\n"
        "class Long(Debug28): N_STEPS = 15001\n"
        "class MultipleEnvironmentImageFolder(MultipleDomainDataset):\n"
        "    def __init__(self, root, test_envs, augment, hparams): self.read = root\n"
        "class Pairs(MultipleEnvironmentImageFolder): ENVIRONMENTS = ['a', 'b', 'c']\n"
    ),
    "hparams_registry.py": (
        "def _hparams(algorithm, dataset, random_seed):\n"
        "    return {'dataset': (dataset, random_seed), 'batch_size': (64, random_seed)}\n"
        "def default_hparams(algorithm, dataset):\n"
        "    return {k: d for k, (d, r) in _hparams(algorithm, dataset, 0).items()}\n"
        "def random_hparams(algorithm, dataset, seed):\n"
        "    return {k: r for k, (d, r) in _hparams(algorithm, dataset, seed).items()}\n"
    ),
    "networks.py": "def Featurizer(input_shape, hparams):\n    return 'stock'\n",
    "lib/__init__.py": "",
    "lib/fast_data_loader.py": (
        "class InfiniteDataLoader:\n"
        "    def __init__(self, dataset, weights, batch_size, num_workers):\n"
        "        self.batch_size = batch_size\n"
    ),
    "scripts/__init__.py": "",
    "scripts/train.py": (
        "import argparse\nfrom domainbed import algorithms, hparams_registry\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--algorithm')\nparser.add_argument('--steps', type=int)\n"
        "args = parser.parse_args()\n"
        "if not hasattr(algorithms, args.algorithm):\n"
        "    raise SystemExit(f'unknown: {args.algorithm}')\n"
        "print(hparams_registry.default_hparams(args.algorithm, 'Debug28')['total_steps'])\n"
    ),
}


def forget_domainbed() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "domainbed"]:
        del sys.modules[name]


@pytest.fixture
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no module, path or argument of a DomainBed behind."""
    forget_domainbed()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    # DomainBed sets it for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    monkeypatch.delenv("DOMAINBED_ROOT", raising=False)
    monkeypatch.delenv("CORE_TUNING_CHECKPOINT", raising=False)
    yield
    forget_domainbed()


@pytest.fixture
def fake_domainbed(tmp_path: Path, clean_process: None, monkeypatch) -> Path:
    """Write a package with DomainBed's interface and nothing behind it; return its root."""
    root = tmp_path / "fake"
    for name, text in FAKE.items():
        file = root / "domainbed" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(root))
    return root


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the real DomainBed, whose own tests write into their tree; return the copy's root."""
    for candidate in CANDIDATES:
        if (candidate / "domainbed" / "algorithms.py").is_file():
            pytest.importorskip("wilds", reason="pip install 'core-tuning[domainbed]'")
            copy = tmp_path_factory.mktemp("checkout")
            shutil.copytree(candidate / "domainbed", copy / "domainbed")
            datasets = copy / "domainbed" / "datasets.py"
            # Nine loaders of eight processes each would take a small machine a minute a job.
            datasets.write_text(datasets.read_text().replace("N_WORKERS = 8", "N_WORKERS = 0"))
            return copy
    pytest.skip("no DomainBed: set DOMAINBED_ROOT or run 'core-tuning domainbed install'")


@pytest.fixture
def domainbed(checkout: Path, clean_process: None, monkeypatch, tmp_path: Path) -> Path:
    """Let this process find the real DomainBed from an empty working folder."""
    monkeypatch.setenv("DOMAINBED_ROOT", str(checkout))
    monkeypatch.chdir(tmp_path)
    return checkout


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Make a virtual environment that sees this one's packages; return its folder of programs."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    parent = sysconfig.get_path("purelib")
    # addsitedir runs the .pth files of editable installs, which PYTHONPATH does not.
    (packages / "_parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
    return folder / "bin"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program with the tests' cache; its output, both streams together, is text."""

    def call(*arguments: object, cwd: Path = tmp_path, **variables: str):
        return subprocess.run(
            [str(argument) for argument in arguments],
            cwd=cwd,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    return call
