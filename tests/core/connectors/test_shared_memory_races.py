"""What happens between two system calls, made to happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from proxystore_core.connectors import _area, _directory, _segments
from proxystore_core.connectors._process import try_lock
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import ConnectorClosedError, ConnectorUnavailableError

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector(recycle="10 MB") as connector:
        yield connector


@pytest.fixture
def before_lock(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Do something when a reader has opened a segment and not yet locked it."""

    def install(act: Callable[[], object]) -> None:
        def wrapped(fd: int, *, exclusive: bool) -> bool:
            monkeypatch.setattr(_segments, "try_lock", try_lock)
            act()
            return try_lock(fd, exclusive=exclusive)

        monkeypatch.setattr(_segments, "try_lock", wrapped)

    return install


class TestReaderThatIsLate:
    def test_for_an_evicted_segment(self, store: SharedMemoryConnector, before_lock) -> None:
        key = store.put(b"1" * MB)
        before_lock(lambda: store.evict(key))
        found = store.get(key)
        assert found is None or found == b"1" * MB

    def test_for_a_dropped_segment(self, store: SharedMemoryConnector, before_lock) -> None:
        key = store.put(b"1" * MB)

        def drop() -> None:
            store.evict(key)
            store._channel._pool.drop_free()

        before_lock(drop)
        assert store.get(key) is None

    @pytest.mark.parametrize("size", [MB, 600_000])
    def test_for_a_segment_with_another_object(
        self, store: SharedMemoryConnector, before_lock, size: int, inode_of
    ) -> None:
        key = store.put(b"1" * MB)
        inode, again = inode_of(store, key), []

        def reuse() -> None:
            store.evict(key)
            again.append(store.put(b"2" * size))

        before_lock(reuse)
        assert store.get(key) is None
        assert inode_of(store, again[0]) == inode
        assert store.get(again[0]) == b"2" * size

    @pytest.mark.parametrize("through", ["_pool.copy_into", "_pool.write_all"])
    def test_for_a_segment_whose_next_writer_was_killed(
        self, store: SharedMemoryConnector, before_lock, through: str
    ) -> None:
        code = """
            import json, os, sys
            from proxystore_core.connectors import _pool
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            name = sys.argv[2].partition(".")[2]
            real = getattr(_pool, name)
            def half(*args):
                *rest, views = args
                real(*rest, [view[: len(view) // 2] for view in views])
                os.kill(os.getpid(), 9)
            setattr(_pool, name, half)
            if name == "write_all":
                _pool.WarmMaps.take = lambda *args: None
            store = SharedMemoryConnector.from_config(json.loads(sys.argv[1]))
            store.put(b"2" * 1_000_000)
        """
        key = store.put(b"1" * MB)

        def kill() -> None:
            store.evict(key)
            args = [
                sys.executable,
                "-c",
                textwrap.dedent(code),
                json.dumps(store.config()),
                through,
            ]
            assert subprocess.run(args, timeout=30).returncode == -9
            partial = list(Path(store.directory, "t").iterdir())
            assert len(partial) == 1
            with partial[0].open("rb") as file:  # half old, half new
                file.seek(64)
                assert len(set(file.read(MB))) == 2

        before_lock(kill)
        assert store.get(key) is None

    def test_for_a_small_object(self, store: SharedMemoryConnector, monkeypatch) -> None:
        key = store.put(b"small")
        fstat = os.fstat

        def wrapped(fd: int) -> os.stat_result:
            monkeypatch.setattr(os, "fstat", fstat)
            store.evict(key)
            return fstat(fd)

        monkeypatch.setattr(os, "fstat", wrapped)
        assert store.get(key) == b"small"
        assert store.get(key) is None

    def test_for_a_segment_set_anew(self, store: SharedMemoryConnector, before_lock) -> None:
        key = store.new_key()
        store.set(key, b"1" * MB)
        before_lock(lambda: (store.set(key, b"2" * MB), store._channel._pool.drop_free()))
        assert store.get(key) == b"2" * MB


class TestLockedSegment:
    def test_reader_waits_for_a_writer_that_just_published(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = store.put(bytes(MB))
        path = Path(store.directory, "o", key.object_id)
        with path.open("rb") as file:
            assert try_lock(file.fileno(), exclusive=True)
            calls = []

            def unlocked(fd: int, *, exclusive: bool) -> bool:
                calls.append(fd)
                if len(calls) == 3:
                    file.close()
                return try_lock(fd, exclusive=exclusive)

            monkeypatch.setattr(_segments, "try_lock", unlocked)
            assert store.get(key) == bytes(MB)
            assert len(calls) == 3

    def test_reader_gives_up_in_the_end(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backoff = _segments.Backoff
        monkeypatch.setattr(_segments, "Backoff", lambda seconds: backoff(0.01))
        key = store.put(bytes(MB))
        with Path(store.directory, "o", key.object_id).open("rb") as file:
            assert try_lock(file.fileno(), exclusive=True)
            with pytest.raises(ConnectorUnavailableError, match="locked"):
                store.get(key)


class TestWriter:
    @pytest.mark.parametrize("size", [100, MB])
    def test_interrupted(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        """Ctrl-C when the object is written, or just published, leaves nothing behind."""
        for module, name in ((_area, "write_all"), (os, "rename")):
            real = getattr(module, name)

            def interrupted(*args, module=module, name=name, real=real) -> None:
                monkeypatch.setattr(module, name, real)
                real(*args)
                raise KeyboardInterrupt

            monkeypatch.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.put(bytes(size))
            assert store.usage()[:2] == (0, 0)
            assert list(Path(store.directory, "t").iterdir()) == []
            with store._channel._ledger as books:
                assert books.used == books.free

    @pytest.mark.parametrize("size", [100, MB])
    def test_whose_store_goes(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        owner = SharedMemoryConnector()
        with SharedMemoryConnector.from_config(owner.config()) as writer:
            writer.put(b"first")
            real = _area.write_all

            def closing(*args) -> None:
                real(*args)
                owner.close()

            monkeypatch.setattr(_area, "write_all", closing)
            with pytest.raises(ConnectorClosedError):
                writer.put(bytes(size))
        assert not Path(owner.directory).exists()


class TestOwnership:
    def test_claims_no_store_that_took_the_place_of_a_dead_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = str(tmp_path / "store")
        first = SharedMemoryConnector(name)
        successor: list[SharedMemoryConnector] = []

        def replaced(fd: int, *, exclusive: bool) -> bool:
            monkeypatch.setattr(_directory, "try_lock", try_lock)
            first.close()
            successor.append(SharedMemoryConnector(name))
            return try_lock(fd, exclusive=exclusive)

        monkeypatch.setattr(_directory, "try_lock", replaced)
        assert _directory.claim(name) is None
        with successor[0] as store:
            assert store.get(store.put(b"data")) == b"data"

    def test_many_open_one_directory_at_once(self, tmp_path: Path) -> None:
        code = """
            import sys
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            sys.stdin.readline()
            store = SharedMemoryConnector(sys.argv[1])
            store.put(b"data")
            print(int(store._channel.owned), flush=True)
            sys.stdin.readline()
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        openers = [subprocess.Popen(command, **pipes) for _ in range(4)]
        for opener in openers:
            opener.stdin.write("\n")
            opener.stdin.flush()
        owners = [int(opener.stdout.readline()) for opener in openers]
        assert sorted(owners) == [0, 0, 0, 1]
        with SharedMemoryConnector(str(tmp_path / "store")) as store:
            assert store.usage().objects == 4
        for opener in openers:
            opener.communicate("\n", timeout=30)
        assert not tmp_path.joinpath("store").exists()


class TestMemoryOfSegmentsThatOthersRemove:
    def test_is_let_go(self, store: SharedMemoryConnector, inode_of) -> None:
        """A writer's warm mapping does not keep the pages of a segment that is gone."""
        for _ in range(2):
            key = store.put(bytes(MB))
            store.evict(key)
        key = store.put(bytes(MB))
        inode = inode_of(store, key)
        assert inode in store._channel._pool._warm
        Path(store.directory, "o", key.object_id).unlink()
        store.put(bytes(2 * MB))
        assert inode not in store._channel._pool._warm
