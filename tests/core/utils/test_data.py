from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.utils.data import bytes_to_readable, chunk_bytes, readable_to_bytes


@given(st.binary(max_size=100), st.integers(1, 120))
def test_chunks_join_to_the_data(data: bytes, size: int) -> None:
    chunks = list(chunk_bytes(data, size))
    assert b"".join(chunks) == data
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(chunks)


def test_chunks_of_a_view_are_views() -> None:
    data = bytearray(b"abc")
    chunks = list(chunk_bytes(memoryview(data), 2))  # type: ignore[arg-type]
    data[0] = ord("x")
    assert bytes(chunks[0]) == b"xb"


@pytest.mark.parametrize("size", [0, -1])
def test_chunks_need_a_size(size: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        chunk_bytes(b"abc", size)


@pytest.mark.parametrize(
    ("size", "precision", "text"),
    [
        (0, 3, "0 B"),
        (1, 3, "1 B"),
        (999, 3, "999 B"),
        (1000, 3, "1 KB"),
        (1001, 3, "1.001 KB"),
        (1_234_567, 3, "1.235 MB"),
        (1_234_567, 1, "1.2 MB"),
        (1_234_567, 0, "1 MB"),
        (100_000_000, 3, "100 MB"),
        (100_000_000, 0, "100 MB"),
        (2_500_000_000, 3, "2.5 GB"),
        (7 * 10**12, 3, "7 TB"),
        (10**16, 3, "10000 TB"),
    ],
)
def test_sizes_for_people(size: int, precision: int, text: str) -> None:
    assert bytes_to_readable(size, precision) == text


def test_a_size_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        bytes_to_readable(-1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1e3", 1000),
        ("1.9", 1),
        ("1B", 1),
        ("1.2 KB", 1200),
        ("0.6 MiB", 629145),
        ("100kb", 100_000),
        (" 100  MB ", 100_000_000),
        ("1e2MB", 100_000_000),
        ("1 GiB", 2**30),
        (".5 TB", 5 * 10**11),
        ("2TiB", 2**41),
        (123, 123),
    ],
)
def test_sizes_from_people(text: str | int, size: int) -> None:
    assert readable_to_bytes(text) == size


@given(st.integers(0, 10**15))
def test_sizes_come_back_about_right(size: int) -> None:
    assert readable_to_bytes(bytes_to_readable(size, 15)) == pytest.approx(size, abs=1, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "MB", "1 2 MB", "1 XB", "one MB", "1,5 MB", "-1 MB", "1 MB/s"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"no unit|not a size"):
        readable_to_bytes(text)
