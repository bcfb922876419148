"""Folders from which DomainBed would read wrong labels without a word."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest

from core_tuning.algorithms import hook, register
from core_tuning.algorithms.folders import check_domains, count_images
from core_tuning.cli import main
from core_tuning.errors import UserError

DOMAINS = ("art", "cartoon", "photo", "sketch")


def write(root: Path, domains=DOMAINS, classes=("cat", "dog"), images=12) -> Path:
    for domain in domains:
        for name in classes:
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(images):
                (folder / f"{index}.JPG").touch()
    return root


def lacking(root):
    shutil.rmtree(root / "cartoon" / "dog")


def extra(root):
    write(root, ["photo"], ["emu"])


def empty(root):
    shutil.rmtree(root / "photo" / "cat")
    (root / "photo" / "cat").mkdir()
    (root / "photo" / "cat" / "notes.txt").touch()


def stray(root):
    write(root, ["backup"])


def no_classes(root):
    shutil.rmtree(root / "sketch")
    (root / "sketch").mkdir()


def hidden_domain(root):
    (root / "__MACOSX" / "art").mkdir(parents=True)


def hidden_class(root):
    write(root, classes=[".ipynb_checkpoints"], images=1)


FAULTS = [
    (lacking, "The folder .*cartoon and most beside it differ in their classes: it lacks 'dog';"),
    (extra, "The folder .*photo and most beside it differ in their classes: it has 'emu' besides;"),
    (empty, "The class folder .*photo.cat has no images"),
    (stray, r"PACS has 5 folders \(art, backup, .*\) where the data set has 4 domains"),
    (no_classes, "The folder .*sketch and most beside it differ.*it lacks 'cat', 'dog';"),
    (hidden_domain, "__MACOSX is no domain, but DomainBed takes every folder there for one"),
    (hidden_class, ".ipynb_checkpoints is no class, but DomainBed takes every folder there"),
]
faults = pytest.mark.parametrize(
    ("spoil", "said"), FAULTS, ids=lambda row: getattr(row, "__name__", "")
)


@pytest.fixture
def pacs(tmp_path) -> Path:
    return write(tmp_path / "data" / "PACS")


def test_right_folders_pass(pacs):
    check_domains(pacs, 4)
    check_domains(pacs)
    (pacs / "notes.txt").touch()
    check_domains(pacs, 4)


@faults
def test_faults_are_refused(pacs, spoil, said):
    spoil(pacs)
    with pytest.raises(UserError, match=said):
        check_domains(pacs, 4)


def test_images_are_counted_as_torchvision_finds_them(tmp_path):
    domain = write(tmp_path, ["art"]) / "art"
    (domain / "0.jpg").touch()  # in no class
    (domain / "cat" / "more").mkdir()
    (domain / "cat" / "more" / "0.png").touch()
    other = write(tmp_path / "other", ["elsewhere"], ["emu"])
    (domain / "emu").symlink_to(other / "elsewhere" / "emu", target_is_directory=True)
    assert count_images(domain) == 12 + 12 + 1 + 12
    folder = pytest.importorskip("torchvision.datasets").ImageFolder(str(domain))
    assert len(folder) == count_images(domain)


def refuse(capsys, *arguments):
    assert main(["domainbed", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@faults
def test_train_refuses(domainbed, pacs, capsys, spoil, said):
    spoil(pacs)
    job = ("--dataset", "PACS", "--data_dir", str(pacs.parent), "--output_dir", "out")
    assert re.search(said, refuse(capsys, "train", *job))
    assert not Path("out").exists()


def test_sweep_refuses(domainbed, pacs, capsys):
    lacking(pacs)
    said = refuse(
        capsys, "sweep", "launch", "--datasets", "PACS", "--algorithms", "ERM", "--n_hparams", "1",
        "--n_trials", "1", "--data_dir", str(pacs.parent), "--output_dir", "out",
        "--command_launcher", "dummy", "--skip_confirmation",
    )  # fmt: skip
    assert "cartoon and most beside it differ in their classes: it lacks 'dog'" in said
    assert not Path("out").exists()


def test_doctor_says_so(fake_domainbed, pacs, capsys, monkeypatch):
    monkeypatch.setenv("DOMAINBED_ROOT", str(fake_domainbed))
    lacking(pacs)
    assert main(["domainbed", "doctor", "--data_dir", str(pacs.parent)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "4 domains: art 24, cartoon 12" in said
    assert "it lacks 'dog'" in said


@pytest.mark.parametrize("route", [register, hook.install])
def test_plain_domainbed_refuses(fake_domainbed, tmp_path, route):
    route()
    data_set = importlib.import_module("domainbed.datasets").Pairs
    root = write(tmp_path / "pairs", "abc")
    assert data_set(f"{root}/", [0], True, {}).read == f"{root}/"
    lacking_class = root / "b" / "dog"
    shutil.rmtree(lacking_class)
    with pytest.raises(UserError, match="b and most beside it differ in their classes"):
        data_set(root=str(root), test_envs=[0], augment=True, hparams={})
    # Of a class that names no environments, any number is right.
    write(root, "b", ["dog"])
    write(root, "d")
    importlib.import_module("domainbed.datasets").MultipleEnvironmentImageFolder(root, [], True, {})
    with pytest.raises(UserError, match="has 4 folders"):
        data_set(root, [], True, {})


def test_the_real_data_sets_refuse(domainbed, pacs, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(domainbed), *sys.path])
    register()
    data_set = importlib.import_module("domainbed.datasets").PACS
    hparams = {"data_augmentation": True}
    assert [len(domain) for domain in data_set(str(pacs.parent), [0], hparams)] == [24] * 4
    lacking(pacs)
    with pytest.raises(UserError, match="cartoon and most beside it"):
        data_set(str(pacs.parent), [0], hparams)
