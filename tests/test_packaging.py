"""The wheel holds every subpackage and all data, and imports from somewhere else."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_COPIED = (
    ".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "shared", "tests", "venv*"
)  # fmt: skip
PACKAGES = {
    "core_tuning": "core_tuning",
    **{
        f"core_tuning.{name}": name
        for name in ("algorithms", "classification", "robustness", "sweeps")
        if (ROOT / name).is_dir()
    },
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None,
    reason="building a wheel without a network needs pip and setuptools here",
)


def run(*command, **options):
    finished = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy, because setuptools leaves folders in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--quiet", "--disable-pip-version-check", "--wheel-dir", folder, folder / "source",
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
        "--disable-pip-version-check", "--target", target, wheel,
    )  # fmt: skip
    return target


def run_installed(installed, program, folder):
    """Run a program that must find the installed copy before the editable one."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return run(sys.executable, "-c", program, cwd=folder, env=environment)


def test_every_source_file_is_inside(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            name = Path(*package.split("."), path.relative_to(ROOT / folder)).as_posix()
            assert name in inside


@pytest.mark.parametrize(
    "pattern",
    [
        "core_tuning/data/embedded/emoji_domains.zip",
        "core_tuning/data/embedded/small_resnet_moco_v2.safetensors",
        "core_tuning/data/embedded/NOTICE.txt",
        "core_tuning/paper_tables/table10_datasets.csv",
        "core_tuning/paper_tables/table11_hyperparameters.csv",
        "core_tuning/py.typed",
    ],
)
def test_data_are_inside(wheel, pattern):
    archive = zipfile.ZipFile(wheel)
    assert zlib.crc32((ROOT / pattern).read_bytes()) == archive.getinfo(pattern).CRC


def test_every_data_file_is_inside(wheel):
    """Whatever is added later, too."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    suffixes = {".csv", ".zip", ".safetensors", ".txt", ".json", ".toml", ".yaml"}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes:
                name = Path(*package.split("."), path.relative_to(ROOT / folder)).as_posix()
                assert name in inside


def test_licences_are_inside(wheel):
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" in name}
    assert {"LICENSE", "NOTICE", "METADATA", "entry_points.txt"} <= names


def test_nothing_else_is_inside(wheel):
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"core_tuning"}


def test_every_module_imports_from_the_wheel(installed, tmp_path):
    program = (
        "import importlib, pkgutil\n"
        "import core_tuning\n"
        "names = [m.name for m in pkgutil.walk_packages(core_tuning.__path__, 'core_tuning.')]\n"
        "for name in names:\n"
        "    if not name.endswith('__main__'):\n"
        "        module = importlib.import_module(name)\n"
        "        print(name, module.__file__)\n"
    )
    lines = run_installed(installed, program, tmp_path).splitlines()
    modules = dict(line.split(" ", 1) for line in lines)
    assert "core_tuning.training.loop" in modules
    assert set(PACKAGES) - {"core_tuning"} <= set(modules)
    for name, file in modules.items():
        assert Path(file).is_relative_to(installed), name


def test_the_command_runs_from_the_wheel(installed, tmp_path):
    """On the embedded data and encoder, which only come along if the wheel holds them."""
    program = (
        "import core_tuning, sys\n"
        "from core_tuning.cli import main\n"
        "print(core_tuning.__file__)\n"
        "sys.exit(main(['finetune', '--limit-steps', '1', '--fraction', '0.1', '--image-size',"
        " '16', '--batch-size', '16', '--workers', '0', '--output', 'run']))"
    )
    output = run_installed(installed, program, tmp_path)
    assert Path(output.splitlines()[0]).is_relative_to(installed)
    assert (tmp_path / "run" / "result.json").exists()
