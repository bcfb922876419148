"""Finding a DomainBed checkout, and installing one from a local repository."""

from __future__ import annotations

import subprocess

import pytest

from core_tuning.algorithms import checkout
from core_tuning.cli import main
from core_tuning.errors import UserError


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def make_checkout(root, text="1"):
    (root / "domainbed").mkdir(parents=True, exist_ok=True)
    (root / "domainbed" / "algorithms.py").write_text(text)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DOMAINBED_ROOT", raising=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return tmp_path / "cache"


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits of a DomainBed; returns it and the two."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    commits = []
    for text in ("first", "second"):
        make_checkout(root, text)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", text)
        commits.append(git(root, "rev-parse", "HEAD"))
    return root, *commits


def test_the_working_folder_comes_first_then_the_variable_then_the_cache(
    cache, tmp_path, monkeypatch
):
    with pytest.raises(UserError, match="core-tuning domainbed install"):
        checkout.find_checkout()
    cached = make_checkout(cache / "DomainBed")
    assert checkout.find_checkout() == cached
    chosen = make_checkout(tmp_path / "chosen")
    monkeypatch.setenv("DOMAINBED_ROOT", str(chosen))
    assert checkout.find_checkout() == chosen
    here = make_checkout(tmp_path / "here")
    monkeypatch.chdir(here)
    assert checkout.find_checkout() == here


def test_a_wrong_variable_is_an_error_though_the_cache_has_one(cache, tmp_path, monkeypatch):
    make_checkout(cache / "DomainBed")
    monkeypatch.setenv("DOMAINBED_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"DOMAINBED_ROOT is .*nowhere.*unset it"):
        checkout.find_checkout()


def test_another_source_is_installed_at_its_head_or_the_commit_asked_for(cache, repository, capsys):
    source, first, second = repository
    assert main(["domainbed", "install", "--source", str(source)]) == 0
    assert f"commit {second}" in capsys.readouterr().out
    assert checkout.find_checkout() == cache / "DomainBed"
    assert checkout.install(str(source), first[:8], overwrite=True) == (cache / "DomainBed", first)
    assert (cache / "DomainBed" / "domainbed" / "algorithms.py").read_text() == "first"
    assert [path.name for path in cache.iterdir()] == ["DomainBed"]


def test_the_same_commit_is_installed_once_and_another_is_refused(cache, repository):
    source, first, second = repository
    checkout.install(str(source), first)
    mark = cache / "DomainBed" / "mark"
    mark.write_text("")
    assert checkout.install(str(source), first)[1] == first
    assert checkout.install(str(source), first[:7])[1] == first
    with pytest.raises(UserError, match=f"{first[:12]} where {second[:12]} .*--overwrite"):
        checkout.install(str(source), second)
    with pytest.raises(UserError, match="--overwrite"):
        checkout.install(str(source))
    with pytest.raises(UserError, match=r"holds a file of yours \(mark\)"):
        checkout.install(str(source), second, overwrite=True)
    assert mark.exists()


@pytest.mark.parametrize("wanted", ["0" * 40, "no-such-branch"])
def test_an_unknown_commit_leaves_nothing(cache, repository, wanted):
    with pytest.raises(UserError, match=f"has no commit '{wanted}'.*--commit"):
        checkout.install(str(repository[0]), wanted)
    assert not list(cache.iterdir())


def test_what_is_no_repository_is_refused(cache, tmp_path):
    with pytest.raises(UserError, match=r"cannot fetch .*nowhere \(fatal: .*--source"):
        checkout.install(str(tmp_path / "nowhere"))
    assert not list(cache.iterdir())


def test_a_repository_of_something_else_is_refused(cache, repository):
    source, *_ = repository
    git(source, "mv", "domainbed", "other")
    git(source, "commit", "--quiet", "-m", "other")
    with pytest.raises(UserError, match=r"has no domainbed.algorithms\.py"):
        checkout.install(str(source))
    assert not list(cache.iterdir())


def test_no_git_is_said(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        checkout.install()


def test_a_failed_replacement_keeps_the_old_checkout(cache, repository):
    source, first, _ = repository
    checkout.install(str(source), first)
    with pytest.raises(UserError):
        checkout.install(str(source), "0" * 40, overwrite=True)
    assert checkout.version_of(cache / "DomainBed") == (first, False)


def test_version_tells_changes_and_copies_inside_other_repositories(repository):
    source, _, second = repository
    assert checkout.version_of(source) == (second, False)
    (source / "domainbed" / "algorithms.py").write_text("mine")
    assert checkout.version_of(source) == (second, True)
    copy = make_checkout(source / "copy")
    assert checkout.version_of(copy) == (None, False)
