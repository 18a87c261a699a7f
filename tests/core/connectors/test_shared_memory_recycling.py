"""How evicted segments are written again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from proxystore_core.connectors._segments import HEAD, PAGE, REUSABLE, charge_of
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector(recycle="10 MB") as connector:
        yield connector


def small_store(quota: int | str, **options) -> SharedMemoryConnector:
    return SharedMemoryConnector(quota=quota, spill=False, **options)


class TestRecycling:
    def test_writes_evicted_segments_again(
        self, store: SharedMemoryConnector, inode_of, check_books
    ) -> None:
        inodes = set()
        for turn in range(5):
            data = bytes([turn]) * (MB + turn)
            key = store.put_parts([data[:7], data[7:600_000], b"", data[600_000:]])
            inodes.add(inode_of(store, key))
            assert store.get(key) == data
            store.evict(key)
            assert store.usage() == (0, 0, charge_of(MB + HEAD), store.usage().limit)
        assert len(inodes) == 1
        check_books(store)

    def test_across_processes(self, store: SharedMemoryConnector, inode_of, check_books) -> None:
        key = store.put(bytes(MB))
        inode = inode_of(store, key)
        store.evict(key)
        code = """
            import json, sys
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            with SharedMemoryConnector.from_config(json.loads(sys.argv[1])) as store:
                for turn in range(3):
                    key = store.put(bytes([turn]) * 900_000)
                    if turn < 2:
                        store.evict(key)
                print(key.object_id)
        """
        args = [sys.executable, "-c", textwrap.dedent(code), json.dumps(store.config())]
        key = SharedMemoryKey(subprocess.check_output(args, text=True).strip())
        assert inode_of(store, key) == inode
        assert store.get(key) == b"\2" * 900_000
        check_books(store)

    @pytest.mark.parametrize("size", [MB // 2 + PAGE, 3 * MB // 4, MB])
    def test_nothing_is_left_of_the_last_object(
        self, store: SharedMemoryConnector, size: int, inode_of
    ) -> None:
        first = store.put(b"s" * MB)
        inode = inode_of(store, first)
        store.evict(first)
        key = store.put(bytes(size))
        assert inode_of(store, key) == inode
        assert store.get(key) == bytes(size)
        assert len(store.get_view(key)) == size
        assert store.usage().nbytes == size
        assert store.get(first) is None

    def test_not_while_somebody_reads(self, store: SharedMemoryConnector, inode_of) -> None:
        key = store.put(b"1" * MB)
        inode = inode_of(store, key)
        view = store.get(key)
        store.evict(key)
        second = store.put(b"2" * MB)
        assert inode_of(store, second) != inode
        store.evict(second)
        half = view[MB // 2 :]
        del view
        assert inode_of(store, store.put(b"3" * MB)) != inode
        assert half == b"1" * (MB // 2)
        del half
        assert inode_of(store, store.put(b"4" * MB)) == inode

    def test_not_while_a_forked_child_reads(self, store: SharedMemoryConnector, inode_of) -> None:
        key = store.put(b"1" * MB)
        inode = inode_of(store, key)
        view = store.get(key)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(write)
                os.read(read, 1)
                os._exit(0 if view == b"1" * MB else 1)
            except BaseException:
                os._exit(2)
        os.close(read)
        del view
        store.evict(key)
        second = store.put(b"2" * MB)
        assert inode_of(store, second) != inode
        os.close(write)
        assert os.waitpid(pid, 0)[1] == 0
        store.evict(second)
        inodes = {inode_of(store, store.put(b"3" * MB)) for _ in range(2)}
        assert inode in inodes

    def test_not_for_an_object_of_another_size(
        self, store: SharedMemoryConnector, inode_of
    ) -> None:
        key = store.put(bytes(MB))
        inode = inode_of(store, key)
        store.evict(key)
        for size in (MB + 2 * PAGE, MB // 2 - 2 * PAGE, 10):
            assert inode_of(store, store.put(bytes(size))) != inode

    def test_takes_the_tightest(self, store: SharedMemoryConnector, inode_of) -> None:
        keys = {size: store.put(bytes(size)) for size in (MB, 1_200_000, 1_500_000)}
        inodes = {size: inode_of(store, key) for size, key in keys.items()}
        for key in keys.values():
            store.evict(key)
        assert inode_of(store, store.put(bytes(1_100_000))) == inodes[1_200_000]

    def test_budget(self, inode_of, check_books) -> None:
        with small_store("100 MB", recycle=3_500_000) as store:
            keys = [store.put(bytes(MB)) for _ in range(6)]
            inodes = [inode_of(store, key) for key in keys]
            for key in keys:
                store.evict(key)
                assert store.usage().reserved <= 3_500_000
            check_books(store)
            kept = [inode_of(store, store.put(bytes(MB))) for _ in range(3)]
            assert set(kept) == set(inodes[-3:])
            large = store.put(bytes(4 * MB))
            store.evict(large)
            assert store.usage().reserved == 0
            check_books(store)

    def test_budget_of_many(self, check_books) -> None:
        with small_store("1 GB") as store:
            for key in [store.put(bytes(REUSABLE)) for _ in range(300)]:
                store.evict(key)
            assert len(list(Path(store.directory, "f").iterdir())) == 256
            check_books(store)

    def test_dropped_segments_free_their_memory_even_if_mapped_to_write(self) -> None:
        with small_store("100 MB", recycle="5 MB") as store:
            for _ in range(3):
                key = store.put(bytes(4 * MB))  # from the second on through a warm mapping
                store.evict(key)
            path = next(Path(store.directory, "f").iterdir())
            with path.open("rb") as file:
                store.evict(store.put(bytes(1_900_000)))  # too small to take it
                assert not path.exists()
                assert os.fstat(file.fileno()).st_blocks == 0

    def test_switched_off(self, check_books) -> None:
        with small_store("100 MB", recycle=0) as store:
            store.evict(store.put(bytes(MB)))
            assert store.usage().reserved == 0
            check_books(store)
