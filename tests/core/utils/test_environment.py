from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxystore_core.utils.environment import home_dir, hostname


def test_home_of_what_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROXYSTORE_HOME", "here")
    assert home_dir() == str(tmp_path / "here")
    monkeypatch.delenv("PROXYSTORE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home_dir() == str(tmp_path / "data" / "proxystore")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_dir() == str(tmp_path / ".local" / "share" / "proxystore")


def test_name_of_the_host() -> None:
    assert hostname() == socket.gethostname()
