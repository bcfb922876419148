"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

from core_tuning.cache import cache_folder


def test_cache_folder_precedence(monkeypatch):
    monkeypatch.setenv("CORE_TUNING_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("CORE_TUNING_CACHE")
    assert cache_folder() == Path("/b/core-tuning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/c/.cache/core-tuning")
