"""How the shared-memory connector reads: mapped, checked, and as many as you like."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from proxystore_core.connectors import _pool
from proxystore_core.connectors._segments import HEAD, make_head
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import (
    CorruptObjectError,
)

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector() as connector:
        yield connector


class TestReading:
    def test_is_aligned(self, store: SharedMemoryConnector) -> None:
        view = store.get_view(store.put(bytes(MB)))
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % 64 == 0

    def test_maps_what_is_large_and_reads_what_is_small(self, store: SharedMemoryConnector) -> None:
        assert isinstance(store.get(store.put(bytes(1000))), bytes)
        large = store.get(store.put(bytes(MB)))
        assert isinstance(large.obj, mmap.mmap)

    def test_ten_thousand_mapped_with_few_descriptors(self, run) -> None:
        code = """
            import os, resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            with SharedMemoryConnector() as store:
                keys = [store.put(bytes(200_000) + bytes([n])) for n in range(20)]
                views = [store.get(keys[n % 20]) for n in range(10_000)]
                print(all(view[-1] == n % 20 for n, view in enumerate(views)))
        """
        assert run(code) == "True\n"

    def test_counts_no_foreign_file(self, store: SharedMemoryConnector) -> None:
        Path(store.directory, "o", "lease.abc").write_bytes(b"x")
        assert list(store.keys()) == []
        assert store.usage()[:2] == (0, 0)

    def test_keeps_descriptors_where_the_lock_needs_them(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = store.put(bytes(MB))
        for outlives, more in ((True, 0), (False, 3)):
            monkeypatch.setattr(_pool, "lock_outlives_descriptor", lambda path, it=outlives: it)
            before = len(list(Path("/dev/fd").iterdir()))
            views = [store.get(key) for _ in range(3)]
            assert len(list(Path("/dev/fd").iterdir())) == before + more
            del views

    def test_more_mapped_than_there_are_descriptors(self, run) -> None:
        """Where every mapping needs one, what is got beyond that is a copy."""
        code = """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            from proxystore_core.connectors import _mapping
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            _mapping.overlay_works = lambda: False
            with SharedMemoryConnector() as store:
                keys = [store.put(bytes(200_000) + bytes([n])) for n in range(20)]
                views = [store.get(keys[n % 20]) for n in range(200)]
                print(len({type(view.obj) for view in views}))
                print(all(view[-1] == n % 20 for n, view in enumerate(views)))
        """
        assert run(code) == "2\nTrue\n"

    def test_no_memory_for_a_mapping(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = store.put(bytes(MB))
        lacking = Mock(side_effect=OSError(errno.ENOMEM, "no memory"))
        monkeypatch.setattr("proxystore_core.connectors._channel.map_private", lacking)
        assert store.get(key) == bytes(MB)
        monkeypatch.setattr("proxystore_core.connectors._channel.bytearray", lacking, raising=False)
        lacking.side_effect = [OSError(errno.ENOMEM, "no memory"), MemoryError]
        with pytest.raises(MemoryError, match="max_map_count"):
            store.get(key)

    def test_a_view_outlives_the_store(self) -> None:
        store = SharedMemoryConnector()
        data = os.urandom(MB)
        view = store.get_view(store.put(data))
        store.close()
        assert view == data
        view[:] = bytes(MB)

    @pytest.mark.parametrize("size", [1000, MB])
    def test_damaged(self, store: SharedMemoryConnector, size: int, path_of) -> None:
        data = os.urandom(size)
        for damage in (0, 5, 20, 59):
            key = store.put(data)
            with path_of(store, key).open("r+b") as file:
                file.seek(damage)
                byte = file.read(1)
                file.seek(damage)
                file.write(bytes([byte[0] ^ 1]))
            with pytest.raises(CorruptObjectError, match=key.object_id):
                store.get(key)
            with pytest.raises(CorruptObjectError):
                store.get_view(key)
            store.evict(key)
        assert store.usage().objects == 0

    @pytest.mark.parametrize("size", [1000, MB])
    @pytest.mark.parametrize("left", [0, 10, 64, 999, -1])
    def test_truncated(self, store: SharedMemoryConnector, size: int, left: int, path_of) -> None:
        key = store.put(os.urandom(size))
        os.truncate(path_of(store, key), left if left >= 0 else HEAD + size - 1)
        with pytest.raises(CorruptObjectError):
            store.get(key)
        store.evict(key)
        assert not store.exists(key)

    def test_another_objects_segment(self, store: SharedMemoryConnector, path_of) -> None:
        for size in (10, MB):
            key, other = store.put(bytes(size)), store.put(bytes(size))
            path_of(store, other).rename(path_of(store, key))
            with pytest.raises(CorruptObjectError, match=other.object_id):
                store.get(key)

    def test_of_a_later_release(self, store: SharedMemoryConnector, path_of) -> None:
        key = store.put(b"data")
        head = bytearray(make_head(key.object_id, 4))
        head[4] += 1
        import zlib

        head[56:60] = zlib.crc32(head[:56]).to_bytes(4, "little")
        path_of(store, key).write_bytes(bytes(head) + b"data")
        with pytest.raises(CorruptObjectError, match="format 2"):
            store.get(key)

    def test_cost_does_not_grow_with_size(self, store: SharedMemoryConnector) -> None:
        keys = [store.put(bytes(size)) for size in (200_000, 64 * MB)]
        store.get(keys[0])  # tries out what the file system can do
        took = []
        for key in keys:
            times = []
            for _ in range(50):
                started = time.thread_time()
                store.get(key)
                times.append(time.thread_time() - started)
            took.append(min(times))
        assert took[1] < 10 * took[0]
