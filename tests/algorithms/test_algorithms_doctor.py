"""`core-tuning domainbed doctor`: the table and its exit code."""

from __future__ import annotations

from importlib import metadata

import pytest

from core_tuning.algorithms import doctor
from core_tuning.algorithms.names import ALGORITHMS
from core_tuning.cli import main


def table(capsys, *arguments):
    """The exit code, and of each row what is found and what to do."""
    code = main(["domainbed", "doctor", *arguments])
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        what, said = line[:22].strip(), line[23:]
        if what:
            rows[what] = (said, "")
        else:
            last = next(reversed(rows))
            rows[last] = (rows[last][0], said.removeprefix("-> "))
    return code, rows


@pytest.fixture
def versions(monkeypatch):
    """Pretend that all packages are there, whatever this environment has."""
    missing = set()

    def version(name):
        if name in missing:
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(doctor.metadata, "version", version)
    return missing


@pytest.fixture
def found(fake_domainbed, versions, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOMAINBED_ROOT", str(fake_domainbed))
    return fake_domainbed


def test_what_is_fine_is_said_and_nothing_is_to_do(found, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "is_enabled", lambda: True)
    monkeypatch.setenv("CORE_TUNING_CHECKPOINT", "embedded")
    for domain, images in (("art", 2), ("photo", 3)):
        folder = tmp_path / "data" / "PACS" / domain / "dog"
        folder.mkdir(parents=True)
        for index in range(images):
            (folder / f"{index}.png").touch()
        (folder / "notes.txt").touch()
        # In no class folder, torchvision does not read it.
        (folder.parent / "0.png").touch()
    code, rows = table(capsys, "--data_dir", str(tmp_path / "data"))
    assert code == 0
    assert "commit unknown" in rows["DomainBed"][0]
    assert rows["registration"] == (f"works: {', '.join(ALGORITHMS)}, EmojiDomains", "")
    assert rows["PACS"] == ("2 domains: art 2, photo 3 images", "")
    assert rows["VLCS"][0] == "absent"
    assert "VLCS/DOMAIN/CLASS/IMAGES" in rows["VLCS"][1]
    assert "fluent 889" in rows["EmojiDomains"][0]
    assert rows["CORE_TUNING_CHECKPOINT"] == ("embedded", "")
    assert rows["wilds"] == ("1.2.3", "")


def test_missing_packages_are_wrong_where_training_needs_them(found, versions, capsys):
    versions.add("gdown")
    assert table(capsys)[0] == 0
    versions.add("wilds")
    code, rows = table(capsys)
    assert code == 1
    assert rows["wilds"] == ("missing", "pip install 'core-tuning[domainbed]'")
    assert "domainbed.scripts.download needs it" in rows["gdown"][0]


def test_no_checkout_is_wrong(clean_process, versions, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "cache"))
    code, rows = table(capsys)
    assert code == 1
    assert rows["DomainBed"][0] == "missing"
    assert "'core-tuning domainbed install'" in rows["DomainBed"][1]


def test_an_unusable_checkpoint_is_wrong(found, capsys, monkeypatch, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_text("no checkpoint")
    monkeypatch.setenv("CORE_TUNING_CHECKPOINT", str(broken))
    code, rows = table(capsys)
    assert code == 1
    assert "unusable" in rows["CORE_TUNING_CHECKPOINT"][0]


def test_a_checkout_that_cannot_be_imported_is_wrong(found, capsys):
    (found / "domainbed" / "networks.py").write_text("import numpy\nnumpy.no_such_name\n")
    code, rows = table(capsys)
    assert code == 1
    assert rows["registration"][0] == "fails"
    said = rows["registration"][1]
    assert "domainbed.networks cannot be imported (AttributeError: module 'numpy' has no" in said
    assert "networks.py, line 2)" in said


def test_the_kill_switch_is_seen(found, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "is_enabled", lambda: True)
    monkeypatch.setenv("CORE_TUNING_DOMAINBED", "0")
    assert "unset CORE_TUNING_DOMAINBED" in table(capsys)[1]["plain commands"][1]


def test_a_data_folder_that_is_none_is_refused(found, capsys, tmp_path):
    assert main(["domainbed", "doctor", "--data_dir", str(tmp_path / "nowhere")]) == 2
    assert "nowhere, which is not a folder" in capsys.readouterr().err
