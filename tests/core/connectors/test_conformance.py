"""The shipped conformance class, over every connector."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.testing import ConnectorConformance


class TestLocal(ConnectorConformance):
    @pytest.fixture
    def connector(self):
        with LocalConnector() as connector:
            yield connector


class TestFile(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path: Path):
        with FileConnector(str(tmp_path / "store")) as connector:
            yield connector


class TestFileThatExpires(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path: Path):
        with FileConnector(str(tmp_path / "store"), ttl=3600) as connector:
            yield connector


class TestFileInAnExistingDirectory(ConnectorConformance):
    @pytest.fixture
    def connector(self, tmp_path: Path):
        tmp_path.joinpath("notes.txt").write_text("mine")
        with FileConnector(str(tmp_path)) as connector:
            yield connector
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestSharedMemory(ConnectorConformance):
    @pytest.fixture
    def connector(self):
        with SharedMemoryConnector() as connector:
            yield connector


class TestSharedMemoryOnDisk(ConnectorConformance):
    """As on macOS, or where there is no memory file system."""

    @pytest.fixture
    def connector(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(tmp_path / "root"))
        with SharedMemoryConnector(recycle="20 MB") as connector:
            yield connector


class TestSharedMemorySpilling(ConnectorConformance):
    """With so small a quota that all but the smallest objects go to disk."""

    @pytest.fixture
    def connector(self, tmp_path: Path):
        with SharedMemoryConnector(quota=16_384, spill_dir=str(tmp_path / "spill")) as connector:
            yield connector
        assert not list(tmp_path.glob("spill/*"))


class TestSharedMemoryWithoutOverlay(ConnectorConformance):
    """Where the kernel gives a lock back with the descriptor: macOS, overlay file systems."""

    @pytest.fixture
    def connector(self, monkeypatch: pytest.MonkeyPatch):
        from proxystore_core.connectors import _mapping

        monkeypatch.setattr(_mapping, "overlay_works", lambda: False)
        monkeypatch.setattr(_mapping, "_LEASES", {})
        with SharedMemoryConnector() as connector:
            yield connector


class TestSharedMemoryWithoutRecycling(ConnectorConformance):
    @pytest.fixture
    def connector(self):
        with SharedMemoryConnector(recycle=0) as connector:
            yield connector
