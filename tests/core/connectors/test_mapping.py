"""Mappings and their leases."""

from __future__ import annotations

import mmap
import os
import threading
import time
from pathlib import Path

import pytest

from proxystore_core.connectors import _mapping
from proxystore_core.connectors._mapping import (
    copy_into,
    is_memory_file_system,
    is_safe_to_map,
    lock_outlives_descriptor,
    map_private,
    overlay_works,
)
from proxystore_core.connectors._process import try_lock
from proxystore_core.connectors._warm import WarmMaps

LINUX = pytest.mark.skipif(not _mapping._LINUX, reason="macOS keeps the descriptor instead")


@pytest.fixture
def file(tmp_path: Path):
    with tmp_path.joinpath("file").open("w+b", buffering=0) as file:
        file.write(b"0123456789" * 1000)
        yield file


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@LINUX
def test_a_mapping_holds_the_lock_and_no_descriptor(file) -> None:
    fd = os.open(file.name, os.O_RDONLY)
    before = descriptors()
    assert try_lock(fd, exclusive=False)
    mapping = map_private(fd, 10_000, keep_open=False)
    os.close(fd)
    assert descriptors() == before - 1
    assert not try_lock(file.fileno(), exclusive=True)
    assert mapping[:] == b"0123456789" * 1000
    del mapping
    assert try_lock(file.fileno(), exclusive=True)


def test_a_mapping_that_keeps_its_descriptor_holds_the_lock(file) -> None:
    fd = os.open(file.name, os.O_RDONLY)
    assert try_lock(fd, exclusive=False)
    mapping = map_private(fd, 10_000, keep_open=True)
    os.close(fd)
    assert not try_lock(file.fileno(), exclusive=True)
    del mapping
    assert try_lock(file.fileno(), exclusive=True)


@pytest.mark.parametrize("keep_open", [True, False])
def test_changes_stay_private(file, keep_open: bool) -> None:
    mapping = map_private(file.fileno(), 5000, keep_open=keep_open)
    mapping[:4] = b"mine"
    assert mapping[:10] == b"mine456789"
    assert os.pread(file.fileno(), 10, 0) == b"0123456789"


@LINUX
def test_a_file_system_that_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overlay_works()
    monkeypatch.setattr(_mapping, "_LEASES", {})
    assert lock_outlives_descriptor(str(tmp_path))
    monkeypatch.setattr(_mapping, "_LEASES", {})
    monkeypatch.setattr(_mapping, "_map", lambda fd, nbytes, flags: mmap.mmap(-1, nbytes))
    assert not lock_outlives_descriptor(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_kinds_of_file_systems(tmp_path: Path) -> None:
    assert not is_memory_file_system("/proc")
    assert not is_safe_to_map("/proc")
    if Path("/dev/shm").is_dir():
        assert is_memory_file_system("/dev/shm")
        assert is_safe_to_map("/dev/shm")


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20, 3_000_001])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_copying(size: int, kind: type) -> None:
    mapping = mmap.mmap(-1, 8_000_000)
    data = kind(os.urandom(size))
    copy_into(mapping, 64, [memoryview(b"head"), memoryview(data), memoryview(data)])
    assert mapping[: 68 + 2 * size + 10] == bytes(64) + b"head" + data + data + bytes(10)


def test_copying_too_much() -> None:
    mapping = mmap.mmap(-1, 2_000_000)
    for size in (1000, 2_000_000):
        with pytest.raises(ValueError, match="too short"):
            copy_into(mapping, 2_000_000 - size + 1, [memoryview(bytes(size))])
    assert mapping[:] == bytes(2_000_000)


def test_copying_lets_other_threads_run() -> None:
    mapping = mmap.mmap(-1, 1 << 26)
    data = memoryview(bytes(1 << 26))
    done, turns = threading.Event(), []

    def count() -> None:
        while not done.wait(1e-4):
            turns.append(time.perf_counter())

    thread = threading.Thread(target=count)
    thread.start()
    during = 0
    deadline = time.monotonic() + 20
    while during < 5 and time.monotonic() < deadline:
        started = time.perf_counter()
        copy_into(mapping, 0, [data])
        ended = time.perf_counter()
        during += sum(started < turn < ended for turn in turns)
    done.set()
    thread.join()
    assert during >= 5


@LINUX
class TestWarm:
    @pytest.fixture
    def warm(self):
        warm = WarmMaps(100_000)
        yield warm
        warm.clear()

    def test_writes_the_file(self, file, warm: WarmMaps) -> None:
        mapping = warm.take(file.fileno(), 1, 10_000)
        mapping[:4] = b"file"
        assert os.pread(file.fileno(), 6, 0) == b"file45"
        assert warm.take(file.fileno(), 1, 10_000) is mapping
        assert 1 in warm

    def test_keeps_no_more_than_it_may(self, file, warm: WarmMaps) -> None:
        os.truncate(file.fileno(), 200_000)
        before = descriptors()
        for inode in range(5):
            assert len(warm.take(file.fileno(), inode, 40_000)) == 40_000
        assert [inode in warm for inode in range(5)] == [False, False, False, True, True]
        assert descriptors() == before + 2
        assert warm.take(file.fileno(), 9, 100_001) is None
        for inode in range(100, 300):
            warm.take(file.fileno(), inode, 100)
        assert descriptors() <= before + 64
        warm.clear()
        assert descriptors() == before

    def test_maps_anew_what_has_another_size(self, file, warm: WarmMaps) -> None:
        warm.take(file.fileno(), 1, 5000)
        assert len(warm.take(file.fileno(), 1, 10_000)) == 10_000

    def test_forgets_what_is_gone(self, file, warm: WarmMaps) -> None:
        warm.take(file.fileno(), 1, 10_000)
        warm.purge()
        assert 1 in warm
        Path(file.name).unlink()
        warm.purge()
        assert 1 not in warm
        warm.drop(1)

    def test_leaves_the_parents_mappings(self, file, warm: WarmMaps) -> None:
        before = descriptors()
        warm.take(file.fileno(), 1, 10_000)
        warm.after_fork()
        assert 1 not in warm
        assert descriptors() == before
