"""`enable` and `disable` in a virtual environment, where plain commands know the names."""

from __future__ import annotations

import sys

import pytest

from core_tuning.algorithms import enable, import_hook
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
    with (fake_domainbed / "domainbed" / "algorithms.py").open("a") as file:
        file.write("class CoreTuning: pass\n")
    run(python, "-m", "core_tuning", "domainbed", "enable")
    failed = run(python, *TRAIN, cwd=fake_domainbed)
    assert failed.returncode == 1
    assert failed.stdout.startswith("core-tuning: error: domainbed.algorithms has a 'CoreTuning'")
    assert "Traceback" not in failed.stdout


def test_nothing_heavy_is_imported_at_startup(environment, run):
    python = environment / "python"
    run(python, "-m", "core_tuning", "domainbed", "enable")
    program = (
        "import sys; print('core_tuning.algorithms.import_hook' in sys.modules, "
        "sorted({'torch', 'numpy', 'argparse'} & set(sys.modules)))"
    )
    assert run(python, "-c", program).stdout.strip() == "True []"


@pytest.mark.parametrize("leftover", [False, True])
def test_an_uninstalled_package_is_no_error(environment, run, leftover):
    python = environment / "python"
    run(python, "-m", "core_tuning", "domainbed", "enable")
    parent = next(environment.parent.glob("lib/python*/site-packages/_parent.pth"))
    parent.unlink()
    if leftover:
        (parent.parent / "core_tuning" / "__pycache__").mkdir(parents=True)
    done = run(python, "-c", "print('quiet')")
    assert (done.returncode, done.stdout) == (0, "quiet\n")


def test_the_file_is_written_into_site_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(enable, "site_folder", lambda: tmp_path)
    assert not enable.is_enabled()
    assert main(["domainbed", "enable"]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert enable.is_enabled()
    text = (tmp_path / enable.FILE).read_text()
    assert text.startswith("import ")
    assert text.count("\n") == 1
    assert enable.disable()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    # A file in the place of the folder, because an administrator may write everywhere.
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    monkeypatch.setattr(enable, "site_folder", lambda: occupied)
    for function in (enable.enable, enable.disable):
        with pytest.raises(UserError, match=f"{occupied} cannot be written .*virtual environment"):
            function()


def test_the_hook_patches_each_module_as_it_is_imported(fake_domainbed):
    import_hook.install()
    import_hook.install()
    assert [type(finder).__name__ for finder in sys.meta_path].count("_Finder") == 1
    from domainbed import algorithms, hparams_registry

    assert "CETuning" in algorithms.ALGORITHMS
    assert hparams_registry.default_hparams("CETuning", "PACS")["freeze_bn"] is True
    assert "domainbed.datasets" not in sys.modules
