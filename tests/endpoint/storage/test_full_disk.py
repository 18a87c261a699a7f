"""Full devices: what is there is read and evicted, and puts are refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxystore_core.exceptions import StorageFullError

MB = 1_000_000


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A device of 12 MB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small device; the quota's tests run for all")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(path: Path) -> None:
    """Take what is left of a device."""
    with open(path, "ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, 2), size)
            except OSError:
                size //= 2


@pytest.mark.parametrize("size", [1000, 60_000, 300_000])
@pytest.mark.parametrize("by", ["objects", "others"])
def test_durable(tiny: Path, make, size: int, by: str) -> None:
    storage = make(persist_dir=str(tiny / "persist"), spill=False, disk_quota="1 GB")
    data = {}

    def put(number: int) -> None:
        word = os.urandom(8) * (size // 8)
        storage.put(f"key{number}", [word])
        data[f"key{number}"] = word

    for number in range(10):
        put(number)
    if by == "others":
        fill(tiny / "filler")
    with pytest.raises(StorageFullError) as caught:
        for number in range(10, 100_000):
            put(number)
    assert str(tiny) in str(caught.value)
    for _ in range(3):
        with pytest.raises(StorageFullError), storage.reserve("room", size) as room:
            room.publish(durability="durable")
    fill(tiny / "filler2")
    for key, word in data.items():
        assert storage.open(key).view == word
        assert storage.digest(key)
    gone = list(data)[:-3]
    for key in gone:
        assert storage.evict(key)
        assert not storage.exists(key)
    assert storage.put("memory", [b"data"], durability="memory").durability == "memory"
    storage.close()
    storage = make(persist_dir=str(tiny / "persist"), spill=False, disk_quota="1 GB")
    assert storage.problems() == []
    assert set(storage.keys()) == set(data) - set(gone)
    for key in storage.keys():
        assert storage.open(key).view == data[key]
        storage.evict(key)
    (tiny / "filler").unlink(missing_ok=True)
    (tiny / "filler2").unlink()
    put(0)


def test_spill(tiny: Path, make) -> None:
    storage = make(memory_quota="2 MB", spill_dir=str(tiny / "spill"), disk_quota="1 GB")
    kept = []
    with pytest.raises(StorageFullError) as caught:
        for number in range(100):
            storage.put(f"key{number}", [bytes([number]) * MB])
            kept.append(number)
    assert len(kept) >= 10
    assert "tiny" in str(caught.value)
    with pytest.raises(StorageFullError):
        storage.reserve("room", MB)
    with pytest.raises(StorageFullError):
        storage.reserve_file("room", 3 * MB)
    assert not list(tiny.rglob(".partial*"))
    for number in kept:
        assert storage.open(f"key{number}").view == bytes([number]) * MB
        assert storage.evict(f"key{number}")
    assert storage.usage().disk == storage.usage().in_flight == 0
    storage.put("again", [bytes(3 * MB)])


def test_a_device_that_is_full_from_the_start(tiny: Path, make) -> None:
    fill(tiny / "filler")
    with pytest.raises((StorageFullError, OSError)):
        make(persist_dir=str(tiny / "persist"), spill=False)
    (tiny / "filler").unlink()
    storage = make(persist_dir=str(tiny / "persist"), spill=False)
    storage.put("key", [b"data"])
    assert storage.problems() == []
