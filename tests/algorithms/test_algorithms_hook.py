"""`enable` and `disable` in a virtual environment, where plain commands know the names."""

from __future__ import annotations

import sys

import pytest

from core_tuning.algorithms import hook
from core_tuning.cli import main
from core_tuning.errors import UserError

TRAIN = ("-m", "domainbed.scripts.train", "--algorithm", "CECon", "--steps", "9")


def test_plain_train_knows_the_names_while_enabled(fake_domainbed, environment, run):
    python = environment / "python"

    def train(**variables):
        return run(python, *TRAIN, cwd=fake_domainbed, **variables).stdout.strip()

    assert train() == "unknown: CECon"
    for _ in range(2):
        done = run(python, "-m", "core_tuning", "domainbed", "enable")
        assert done.returncode == 0, done.stdout
    assert train() == "9"
    assert train(CORE_TUNING_DOMAINBED="0") == "unknown: CECon"
    assert run(python, "-m", "core_tuning", "domainbed", "disable").returncode == 0
    assert train() == "unknown: CECon"
    again = run(python, "-m", "core_tuning", "domainbed", "disable")
    assert again.returncode == 0
    assert "was not enabled" in again.stdout


def test_a_mistake_ends_plain_train_in_a_sentence(fake_domainbed, environment, run):
    python = environment / "python"
    with (fake_domainbed / "domainbed" / "scripts" / "train.py").open("a") as file:
        file.write(
            "from domainbed.lib.fast_data_loader import InfiniteDataLoader\n"
            "InfiniteDataLoader([1], None, 2, 0)\n"
        )
    run(python, "-m", "core_tuning", "domainbed", "enable")
    failed = run(python, *TRAIN, cwd=fake_domainbed)
    assert failed.returncode == 1
    # In either order: what is printed may wait in a buffer.
    (said,) = [line for line in failed.stdout.splitlines() if line != "9"]
    assert said.startswith("core-tuning: error: A domain has 1 images to train on")
    assert "Traceback" not in failed.stdout


def test_a_copy_with_a_name_of_ours_is_left_to_its_user(fake_domainbed, environment, run):
    python = environment / "python"
    with (fake_domainbed / "domainbed" / "algorithms.py").open("a") as file:
        file.write("class CoreTuning: pass\n")
    run(python, "-m", "core_tuning", "domainbed", "enable")
    warning, *rest = run(python, "-W", "error", *TRAIN, cwd=fake_domainbed).stdout.splitlines()
    assert warning.startswith(f"core-tuning: warning: {fake_domainbed / 'domainbed'} is left as it")
    assert "domainbed.algorithms has a 'CoreTuning' of its own" in warning
    assert rest == ["unknown: CECon"]


def test_nothing_is_imported_at_startup(environment, run):
    python = environment / "python"
    program = "import sys; print(sorted(sys.modules))"
    before = run(python, "-c", program).stdout
    run(python, "-m", "core_tuning", "domainbed", "enable")
    assert run(python, "-c", program).stdout == before


@pytest.mark.parametrize("leftover", [False, True])
def test_an_uninstalled_package_is_no_error(fake_domainbed, environment, run, leftover):
    python = environment / "python"
    run(python, "-m", "core_tuning", "domainbed", "enable")
    parent = next(environment.parent.glob("lib/python*/site-packages/_parent.pth"))
    parent.unlink()
    if leftover:
        (parent.parent / "core_tuning" / "__pycache__").mkdir(parents=True)
    program = "import domainbed.algorithms; print(domainbed.algorithms.ALGORITHMS)"
    done = run(python, "-c", program, cwd=fake_domainbed, PYTHONPATH="")
    assert (done.returncode, done.stdout) == (0, "['ERM']\n")


def test_the_file_is_written_into_site_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hook, "site_folder", lambda: tmp_path)
    assert not hook.is_enabled()
    assert main(["domainbed", "enable"]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert hook.is_enabled()
    text = (tmp_path / hook.FILE).read_text()
    assert text.startswith("import ")
    assert text.count("\n") == 1
    assert hook.disable()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    # A file in the place of the folder, because an administrator may write everywhere.
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    monkeypatch.setattr(hook, "site_folder", lambda: occupied)
    for function in (hook.enable, hook.disable):
        with pytest.raises(UserError, match=f"{occupied} cannot be written .*virtual environment"):
            function()


def test_the_hook_patches_each_module_as_it_is_imported(fake_domainbed):
    hook.install()
    hook.install()
    assert [type(finder).__name__ for finder in sys.meta_path].count("_Finder") == 1
    from domainbed import algorithms, hparams_registry

    assert "CETuning" in algorithms.ALGORITHMS
    assert "domainbed.datasets" not in sys.modules
    assert hparams_registry.default_hparams("CETuning", "PACS")["freeze_bn"] is True
