"""The file connector: what it adds to the conformance class."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from proxystore_core.connectors import _file_owner
from proxystore_core.connectors import file as file_module
from proxystore_core.connectors.file import FileConnector, FileKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    ConnectorUnavailableError,
    InvalidKeyError,
    MissingReason,
)
from tests.conftest import wait_until

MB = 1_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(directory: Path):
    with FileConnector(str(directory)) as connector:
        yield connector


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.name != _file_owner.MARKER}


class TestClearing:
    def test_by_the_owner_takes_the_directory(self, directory: Path) -> None:
        store = FileConnector(str(directory))
        store.put(b"data")
        store.close()
        assert not directory.exists()
        store.close()

    def test_by_a_worker_takes_nothing(self, store: FileConnector, directory: Path) -> None:
        key = store.put(b"data")
        for worker in (
            FileConnector.from_config(store.config()),
            FileConnector(str(directory)),
            FileConnector(str(directory), clear=True),
        ):
            worker.put(b"of the worker")
            worker.close(clear=True)
        assert store.get(key) == b"data"
        assert store.usage().objects == 4

    def test_spares_what_no_store_wrote(self, directory: Path) -> None:
        directory.joinpath("sub").mkdir(parents=True)
        mine = {"notes.txt", "sub", "f" * 31, "3d2f1a4e-1111-2222-3333-444455556666", ".hidden"}
        for name in mine - {"sub"}:
            directory.joinpath(name).write_text("mine")
        with FileConnector(str(directory)) as store:
            store.put_batch([b"data"] * 3)
            assert store.usage().objects == 3
        assert {path.name for path in directory.iterdir()} == mine

    def test_spares_a_directory_with_a_new_file(self, store: FileConnector, directory: Path):
        store.put(b"data")
        directory.joinpath("notes.txt").write_text("mine")
        store.close()
        assert [path.name for path in directory.iterdir()] == ["notes.txt"]

    def test_only_when_asked(self, directory: Path) -> None:
        for options, arguments in (({"clear": False}, ()), ({}, (False,))):
            store = FileConnector(str(directory), **options)
            key = store.put(b"data")
            store.close(*arguments)
            with FileConnector(str(directory), clear=False) as later:
                assert later.get(key) == b"data"

    def test_takes_what_workers_wrote(self, store: FileConnector, directory: Path) -> None:
        with FileConnector.from_config(store.config()) as worker:
            worker.put(b"result")
        store.close()
        assert not directory.exists()

    def test_after_the_owner_was_killed(self, directory: Path) -> None:
        code = """
            import os, sys
            from proxystore_core.connectors.file import FileConnector
            store = FileConnector(sys.argv[1])
            store.put(b"left behind")
            os.kill(os.getpid(), 9)
        """
        args = [sys.executable, "-c", textwrap.dedent(code), str(directory)]
        assert subprocess.run(args, timeout=30).returncode == -9
        assert len(names(directory)) == 1
        FileConnector(str(directory)).close()
        assert not directory.exists()

    def test_not_where_the_owner_is_on_another_node(self, directory: Path) -> None:
        directory.mkdir()
        directory.joinpath(_file_owner.MARKER).write_text("elsewhere/1234\nmade\n")
        with FileConnector(str(directory)) as store:
            key = store.put(b"data")
        with FileConnector(str(directory)) as store:
            assert store.get(key) == b"data"

    def test_without_locks_the_first_one_owns_it(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(fd: int, *, exclusive: bool) -> bool:
            raise ConnectorUnavailableError("no locks here")

        monkeypatch.setattr(_file_owner, "try_lock", no_locks)
        monkeypatch.setattr(file_module, "try_lock", no_locks)
        first = FileConnector(str(directory))
        key = first.put(b"data")
        FileConnector(str(directory)).close()
        assert first.get(key) == b"data"
        first.close()
        assert not directory.exists()

    def test_not_by_a_forked_child(self, store: FileConnector) -> None:
        key = store.put(b"data")
        pid = os.fork()
        if pid == 0:
            try:
                store.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert store.get(key) == b"data"

    def test_a_forgotten_connector_clears_nothing(self, directory: Path) -> None:
        FileConnector(str(directory)).put(b"data")
        assert len(names(directory)) == 1


class TestFiles:
    def test_are_private(self, store: FileConnector, directory: Path) -> None:
        store.put(b"data")
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_hold_the_bytes_and_no_more(self, store: FileConnector, directory: Path) -> None:
        key = store.put_parts([b"plain ", b"bytes"])
        assert directory.joinpath(key.filename).read_bytes() == b"plain bytes"
        assert names(directory) == {key.filename}

    def test_large_ones_are_mapped_where_that_is_safe(
        self, store: FileConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = os.urandom(2 * MB)
        key = store.put(data)
        assert isinstance(store.get(key).obj, mmap.mmap)
        monkeypatch.setattr(file_module, "is_safe_to_map", lambda path: False)
        found = store.get(key)
        assert isinstance(found.obj, bytearray)
        assert found == data

    def test_a_write_that_is_killed_leaves_only_what_is_removed(self, directory: Path) -> None:
        code = """
            import os, sys
            from proxystore_core.connectors import file
            store = file.FileConnector(sys.argv[1], clear=False)
            def write(fd, parts):
                os.write(fd, b"half")
                os.kill(os.getpid(), 9)
            file.write_all = write
            store.put(b"halfhalf")
        """
        args = [sys.executable, "-c", textwrap.dedent(code), str(directory)]
        assert subprocess.run(args, timeout=30).returncode == -9
        (left,) = directory.iterdir()
        with FileConnector(str(directory)) as store:
            assert list(store.keys()) == []
            assert store.usage().objects == 0
            assert left.exists()  # it might belong to a writer that just began
            os.utime(left, (0, time.time() - 120))
            FileConnector(str(directory)).close()
            assert not left.exists()

    def test_a_write_that_goes_on_is_spared(self, store: FileConnector, directory: Path) -> None:
        partial = directory / f"{_file_owner.PARTIAL}0"
        partial.write_bytes(b"half")
        os.utime(partial, (0, time.time() - 120))
        with partial.open("rb") as file:
            assert file_module.try_lock(file.fileno(), exclusive=False)
            FileConnector(str(directory)).close()
            assert partial.exists()

    def test_a_failed_write_leaves_nothing(
        self, store: FileConnector, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for error in (OSError(5, "Input/output error"), KeyboardInterrupt()):

            def failing(fd: int, parts: object, error: BaseException = error) -> None:
                os.write(fd, b"half")
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(file_module, "write_all", failing)
                with pytest.raises((ConnectorUnavailableError, KeyboardInterrupt)):
                    store.put(b"data")
            assert names(directory) == set()
        assert store.get(store.put(b"data")) == b"data"


class TestKeys:
    @pytest.mark.parametrize("name", ["../secret", "secret", "", ".", "a/b", "0" * 33, "A" * 32])
    def test_outside_or_strange(self, store: FileConnector, directory: Path, name: str) -> None:
        directory.parent.joinpath("secret").write_text("secret")
        directory.joinpath("secret").write_text("secret")
        key = FileKey(name)
        for act in (
            store.get,
            store.exists,
            store.evict,
            store.expire,
            lambda k: store.set(k, b""),
        ):
            with pytest.raises(InvalidKeyError):
                act(key)
        assert directory.parent.joinpath("secret").read_text() == "secret"

    def test_of_another_type(self, store: FileConnector) -> None:
        for key in (("0" * 32,), "0" * 32, FileKey(3), None):
            with pytest.raises(InvalidKeyError):
                store.get(key)

    def test_reasons(self, store: FileConnector, directory: Path) -> None:
        key = store.put(b"data")
        store.evict(key)
        assert store.missing_reason(key) is MissingReason.EVICTED
        with FileConnector(str(directory.parent / "none"), clear=False) as away:
            assert away.missing_reason(key) is MissingReason.UNREACHABLE
        store.close()
        assert store.missing_reason(key) is MissingReason.STORE_CLOSED


class TestDirectory:
    def test_is_a_file(self, tmp_path: Path) -> None:
        tmp_path.joinpath("file").write_text("")
        for path in ("file", "file/deeper"):
            with pytest.raises(ConnectorUnavailableError):
                FileConnector(str(tmp_path / path))
            with FileConnector(str(tmp_path / path), clear=False) as store:
                with pytest.raises(ConnectorUnavailableError):
                    store.put(b"data")
                assert store.get(FileKey("0" * 32)) is None
                store.evict(FileKey("0" * 32))
                assert list(store.keys()) == []

    def test_is_not_made_to_read_from(self, directory: Path) -> None:
        with FileConnector.from_config({"store_dir": str(directory), "clear": False}) as store:
            assert store.get(FileKey("0" * 32)) is None
            assert not directory.exists()
            assert store.get(store.put(b"data")) == b"data"

    def test_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with FileConnector("store") as store:
            key = store.put(b"data")
            monkeypatch.chdir("/")
            assert store.get(key) == b"data"
            assert store.config()["store_dir"] == str(tmp_path / "store")

    def test_upstream_options(self, directory: Path) -> None:
        config = {"store_dir": str(directory), "clear": True, "buffering": 0}
        FileConnector.from_config(config).close()
        assert not directory.exists()

    def test_closed(self, store: FileConnector, directory: Path) -> None:
        key = store.put(b"data")
        store.close()
        for act in (store.get, store.exists, store.evict):
            with pytest.raises(ConnectorClosedError):
                act(key)
        with pytest.raises(ConnectorClosedError):
            store.put(b"data")
        assert not directory.exists()


class TestExpiring:
    def age(self, directory: Path) -> None:
        """Let the last look for what expired be long ago."""
        os.utime(directory / _file_owner.SWEPT, (1, 1))

    def test_names_tell_when(self, directory: Path) -> None:
        with FileConnector(str(directory), ttl=1000) as store:
            for key in (store.put(b"data"), store.new_key()):
                assert not _file_owner.has_expired(key.filename)
                until = int(key.filename.partition("t")[2], 16)
                assert 990 < until - time.time() < 1010
                assert _file_owner.is_object_name(key.filename)
            assert store.get(store.put(b"data")) == b"data"
            store.set(key, b"later")
            assert store.get(key) == b"later"
            assert len(list(store.keys())) == 3
            assert store.missing_reason(store.new_key()) is MissingReason.UNKNOWN

    def test_whoever_opens_the_directory_sweeps(self, directory: Path) -> None:
        FileConnector(str(directory)).close(clear=False)
        with FileConnector(str(directory), clear=False, ttl=1e-3) as store:
            old = store.put(b"data")
            kept = FileConnector(str(directory), clear=False).put(b"for good")
            young = FileConnector(str(directory), clear=False, ttl=1000).put(b"young")
            assert wait_until(lambda: _file_owner.has_expired(old.filename))
            FileConnector.from_config(store.config())  # somebody looked within the last hour
            assert store.exists(old)
            self.age(directory)
            FileConnector.from_config(store.config())
            assert not store.exists(old)
            assert store.get(kept) == b"for good"
            assert store.get(young) == b"young"
            assert store.missing_reason(old) is MissingReason.EXPIRED
            self.age(directory)
            again = store.put(b"data")
            assert wait_until(lambda: _file_owner.has_expired(again.filename))
            FileConnector(str(directory), clear=False)  # one that lets nothing expire
            assert store.exists(again)

    def test_the_owner_clears_them_too(self, directory: Path) -> None:
        with FileConnector(str(directory), ttl=1000) as store:
            store.put(b"data")
        assert not directory.exists()

    def test_by_the_command_line(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from proxystore_core.cli import main

        with FileConnector(str(directory), clear=False, ttl=1e-3) as store:
            kept = FileConnector(str(directory), clear=False).put(b"for good")
            FileConnector.from_config(store.config())  # looks, and not again within the hour
            old = store.put(b"data")
            assert wait_until(lambda: _file_owner.has_expired(old.filename))
            assert main(["gc", str(directory), "--dry-run"]) == 0
            assert store.exists(old)
            assert main(["gc", str(directory)]) == 0
            assert "expired object" in capsys.readouterr().out
            assert not store.exists(old)
            assert store.exists(kept)

    @pytest.mark.parametrize("ttl", [0, -1, "1", True, float("inf"), float("nan")])
    def test_times_are_checked(self, directory: Path, ttl: Any) -> None:
        with pytest.raises(ConnectorConfigError, match="ttl"):
            FileConnector(str(directory), ttl=ttl)
        assert not directory.exists()

    def test_the_time_travels(self, directory: Path) -> None:
        with FileConnector(str(directory), ttl=5) as store:
            assert store.config() == {"store_dir": str(directory), "clear": False, "ttl": 5}
            assert FileConnector.from_config(store.config()).ttl == 5
