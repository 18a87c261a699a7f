"""Room in shared memory that is filled in place: what is left of it, whatever happens."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    InvalidKeyError,
    ReservationError,
    StorageFullError,
)

MB = 1_000_000


def partial(store: SharedMemoryConnector) -> list[Path]:
    return list(Path(store.directory, "t").iterdir())


def reserving(quota: int | str, **options) -> SharedMemoryConnector:
    return SharedMemoryConnector(quota=quota, **{"spill": False, **options})


def test_fills_the_segment_in_place(path_of, inode_of) -> None:
    with reserving("40 MB", recycle="20 MB") as store:
        key = store.new_key()
        room = store.reserve(key, 5 * MB)
        inode = partial(store)[0].stat().st_ino
        left, right = socket.socketpair()
        data = os.urandom(5 * MB)
        sender = threading.Thread(target=left.sendall, args=(data,))
        sender.start()
        done = 0
        while done < len(data):
            done += right.recv_into(room.buffer[done:])
        room.publish()
        sender.join()
        left.close()
        right.close()
        assert inode_of(store, key) == inode
        assert store.get(key) == data


def test_takes_evicted_segments(inode_of, check_books) -> None:
    with reserving("40 MB", recycle="20 MB") as store:
        first, second = store.new_key(), store.new_key()
        with store.reserve(first, 5 * MB) as room:
            room.buffer[:] = b"f" * (5 * MB)
            room.publish()
        inode = inode_of(store, first)
        store.evict(first)
        with store.reserve(second, 4 * MB) as room:
            assert store.usage().reserved == 0
            room.buffer[:] = b"s" * (4 * MB)
            room.publish()
        assert inode_of(store, second) == inode
        assert store.get(second) == b"s" * (4 * MB)
        check_books(store)


def test_mapped_segments_are_left_to_their_readers(check_books) -> None:
    with reserving("40 MB", recycle="20 MB") as store:
        key = store.put(b"a" * MB)
        held = store.get(key)
        store.evict(key)
        with store.reserve(store.new_key(), MB) as room:
            room.buffer[:] = b"b" * MB
            assert held == b"a" * MB
            room.publish()
        assert held == b"a" * MB
        check_books(store)


def test_room_counts_from_the_start(check_books) -> None:
    with reserving("10 MB") as store:
        room = store.reserve(store.new_key(), 8 * MB)
        for size in (3 * MB, 100 * MB):
            with pytest.raises(StorageFullError) as caught:
                store.reserve(store.new_key(), size)
            assert caught.value.nbytes == size
        with pytest.raises(StorageFullError):
            store.put(bytes(3 * MB))
        room.abandon()
        check_books(store)
        assert store.get(store.put(bytes(8 * MB))) == bytes(8 * MB)


def test_what_is_collected_gives_its_room_back(check_books) -> None:
    with reserving("10 MB") as store:
        part = store.reserve(store.new_key(), 8 * MB).buffer[10:20]
        gc.collect()
        part[:] = bytes(10)
        store.put(bytes(8 * MB))
        check_books(store)


def test_writing_late_kills_nobody(check_books) -> None:
    """A thread that still receives when its transfer was given up."""
    with reserving("10 MB", recycle="10 MB") as store:
        room = store.reserve(store.new_key(), 4 * MB)
        late = room.buffer[:]
        room.abandon()
        with pytest.raises(ValueError, match="released"):
            room.buffer[0]
        key = store.put(b"n" * 4 * MB)
        late[:] = b"l" * len(late)
        assert store.get(key) == b"n" * 4 * MB
        check_books(store)


def test_the_first_of_many_threads_counts() -> None:
    with reserving("10 MB") as store:
        key = store.new_key()
        room = store.reserve(key, MB)
        room.buffer[:] = b"x" * MB
        start, outcomes = threading.Barrier(6), []

        def work(number: int) -> None:
            start.wait(30)
            try:
                (room.publish if number % 2 else room.abandon)()
                outcomes.append(number)
            except ReservationError:
                pass

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        published = [number for number in outcomes if number % 2]
        assert len(published) <= 1
        assert store.exists(key) == bool(published)
        assert partial(store) == []


def test_refuses_what_is_no_key_and_no_size() -> None:
    with reserving("10 MB") as store:
        with pytest.raises(InvalidKeyError):
            store.reserve(SharedMemoryKey("../x"), 10)
        with pytest.raises(ValueError, match="0 bytes or more"):
            store.reserve(store.new_key(), -1)
        assert partial(store) == []


def test_of_a_closed_store() -> None:
    store = reserving("10 MB")
    room = store.reserve(store.new_key(), MB)
    small = store.reserve(store.new_key(), 10)
    store.close()
    room.buffer[:] = bytes(MB)
    for one in (room, small):
        with pytest.raises(ConnectorClosedError):
            one.publish()
    with pytest.raises(ConnectorClosedError):
        store.reserve(SharedMemoryKey("aaaaaaaa-1-1"), MB)
    assert not Path(store.directory).exists()


def test_spills(tmp_path: Path) -> None:
    with reserving("2 MB", spill=True, spill_dir=str(tmp_path)) as store:
        key, data = store.new_key(), os.urandom(5 * MB)
        store.set(key, b"in memory")
        with store.reserve(key, len(data)) as room:
            room.buffer[:] = data
            room.publish()
        assert next(tmp_path.glob("*/o/*")).name == key.object_id
        assert store.get(key) == data
        with store.reserve(key, 10) as room:
            room.buffer[:] = b"0123456789"
            room.publish()
        assert not list(tmp_path.glob("*/o/*"))
        assert store.get(key) == b"0123456789"
        store.reserve(key, 5 * MB).abandon()
        assert not list(tmp_path.glob("*/t/*"))


CHILD = """
import json, os, sys
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import StorageFullError
"""


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD + textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_of_a_killed_filler_comes_back(check_books) -> None:
    code = """
        store = SharedMemoryConnector.from_config(json.loads(sys.argv[1]))
        rooms = [store.reserve(store.new_key(), size) for size in (6_000_000, 2_000_000, 1000)]
        rooms[0].buffer[:1_000_000] = b"x" * 1_000_000
        os.kill(os.getpid(), 9)
    """
    with reserving("10 MB", recycle="3 MB") as store:
        store.evict(store.put(bytes(2 * MB)))  # one of the three takes this segment
        assert run(code, json.dumps(store.config())).returncode == -9
        assert len(partial(store)) == 3
        assert store.usage()[:2] == (0, 0)
        assert store.get(store.put(bytes(9 * MB))) == bytes(9 * MB)
        check_books(store)


def test_a_fork_leaves_it_to_the_parent() -> None:
    code = """
        with SharedMemoryConnector() as store:
            key = store.new_key()
            room = store.reserve(key, 1_000_000)
            if (pid := os.fork()) == 0:
                del room
                sys.exit(0)
            os.waitpid(pid, 0)
            room.buffer[:] = bytes(1_000_000)
            room.publish()
            print(store.get(key) == bytes(1_000_000))
    """
    done = run(code)
    assert done.stdout == "True\n", done.stderr


def test_a_limit_on_file_sizes() -> None:
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
        with SharedMemoryConnector(spill=False) as store:
            try:
                store.reserve(store.new_key(), 4_000_000)
            except StorageFullError as error:
                print(error.nbytes, os.listdir(f"{store.directory}/t"))
            store.reserve(store.new_key(), 2_000_000).publish()
            print(store.usage()[:2])
    """
    done = run(code)
    assert done.stdout == "4000000 []\n(1, 2000000)\n", done.stderr


def test_a_small_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_books) -> None:
    """All pages are set aside before anything is mapped: no write kills the process."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small tmpfs; see test_a_limit_on_file_sizes")
    try:
        monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(directory / "root"))
        with reserving("100 MB", recycle="50 MB") as store:
            rooms = []
            with pytest.raises(StorageFullError):
                while True:
                    rooms.append(store.reserve(store.new_key(), MB))
            with pytest.raises(StorageFullError):
                while True:  # below the size that the device is asked about first
                    rooms.append(store.reserve(store.new_key(), 131_072 - 64))
            for room in rooms:
                room.buffer[:] = b"x" * room.buffer.nbytes
                room.publish()
            assert all(bytes(store.get(key)[-5:]) == b"xxxxx" for key in store.keys())
            for key in store.keys():
                store.evict(key)
            store.reserve(store.new_key(), 6 * MB).abandon()
            check_books(store)
    finally:
        subprocess.run(["umount", str(directory)], check=True)
