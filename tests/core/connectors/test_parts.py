"""Writing the parts of an object, however many and large."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_core.connectors import _parts
from proxystore_core.connectors._parts import byte_view, byte_views, read_all, write_all
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import CorruptObjectError


@pytest.fixture
def file(tmp_path: Path):
    with tmp_path.joinpath("file").open("w+b", buffering=0) as file:
        yield file


def written(file) -> bytes:
    data = bytearray(os.fstat(file.fileno()).st_size)
    read_all(file.fileno(), data)
    return bytes(data)


def test_more_parts_than_one_call_takes(file) -> None:
    parts = [str(number).encode() for number in range(5000)]
    write_all(file.fileno(), parts)
    assert written(file) == b"".join(parts)


def test_more_bytes_than_one_call_takes(file, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "_MAX_WRITE", 1000)
    parts = [memoryview(os.urandom(size)) for size in (0, 1, 999, 1000, 1001, 12_345, 3)]
    write_all(file.fileno(), parts)
    assert written(file) == b"".join(parts)


@given(
    sizes=st.lists(st.integers(0, 40), max_size=30),
    most=st.integers(1, 50),
    vector=st.integers(1, 5),
    taken=st.integers(1, 17),
)
@settings(max_examples=150)
def test_calls_that_take_a_part_of_it(sizes, most, vector, taken) -> None:
    out = bytearray()

    def writev(fd: int, batch) -> int:
        assert len(batch) <= vector
        assert 0 < sum(map(len, batch)) <= most
        some = b"".join(batch)[:taken]
        out.extend(some)
        return len(some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parts, "_MAX_WRITE", most)
        patch.setattr(_parts, "_MAX_VECTOR", vector)
        patch.setattr(_parts.os, "writev", writev)
        parts = [os.urandom(size) for size in sizes]
        write_all(0, [memoryview(part) for part in parts])
    assert out == b"".join(parts)


def test_views() -> None:
    views, nbytes = byte_views([b"ab", array("d", [1.0, 2.0]), memoryview(bytearray(3))])
    assert [view.format for view in views] == ["B"] * 3
    assert nbytes == 2 + 16 + 3
    assert byte_view(memoryview(bytes(8)).cast("d")[:0]).nbytes == 0
    assert byte_view(array("d")).nbytes == 0


def test_no_views() -> None:
    for wrong, match in (("text", "not str"), (memoryview(b"abcdef")[::-1], "contiguous")):
        with pytest.raises(TypeError, match=match):
            byte_view(wrong)


def test_reading_too_little(file) -> None:
    file.write(b"123")
    with pytest.raises(CorruptObjectError, match="2 bytes"):
        read_all(file.fileno(), bytearray(5))


@pytest.mark.soak
def test_more_than_two_gigabytes() -> None:
    """What upstream truncated silently."""
    block = os.urandom(1 << 20)
    size = (2 << 30) + 12_345
    data = block * (size // len(block) + 1)
    with SharedMemoryConnector(quota="6 GB", recycle="3 GB") as store:
        for _ in range(3):  # fresh, written again, through a warm mapping
            key = store.put_parts([b"head", memoryview(data)[:size]])
            found = store.get(key)
            assert len(found) == size + 4
            assert found[4:] == memoryview(data)[:size]
            del found
            store.evict(key)
