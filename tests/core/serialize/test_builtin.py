"""Bytes and text."""

from __future__ import annotations

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import dump, load

SIZES = [0, 1, 1000, 16383, 16384, 100_000]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_all_kinds(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for obj in (data, bytearray(data), memoryview(data)):
        parts = dump(obj)
        assert parts.serializer == type(obj).__name__
        loaded = load(parts.tobytes())
        assert type(loaded) is type(obj)
        assert loaded == obj


@given(st.text(st.characters(exclude_categories=[])))
def test_text_of_all_kinds(text: str) -> None:
    for obj in (text, text + "é" * 20_000):
        parts = dump(obj)
        assert parts.serializer == "str"
        assert load(parts.tobytes()) == obj


def test_large_bytes_are_not_copied() -> None:
    data = bytes(100_000)
    assert any(getattr(b, "obj", b) is data for b in dump(data).buffers)
    changing = bytearray(100_000)
    parts = dump(changing)
    changing[:] = b"x" * 100_000
    assert load(parts.tobytes()) == changing


@pytest.mark.parametrize("cls", [bytes, str, bytearray])
def test_subclasses_stay_subclasses(cls: type) -> None:
    made = SUBCLASSES[cls](b"abc" if cls is not str else "abc")
    made.note = "kept"
    loaded = load(dump(made).tobytes())
    assert type(loaded) is SUBCLASSES[cls]
    assert loaded == made
    assert loaded.note == "kept"


class Bytes(bytes):
    pass


class Text(str):
    __slots__ = ("note",)


class Bytearray(bytearray):
    pass


SUBCLASSES = {bytes: Bytes, str: Text, bytearray: Bytearray}


@pytest.mark.parametrize("shape", [(0,), (24,), (2, 12), (2, 3, 4)])
def test_memoryviews_keep_format_and_shape(shape: tuple[int, ...]) -> None:
    for form in "bBhHiIlLqQfd":
        items = array.array(form, range(24 if shape != (0,) else 0))
        view = memoryview(items).cast("B").cast(form, shape) if items else memoryview(items)
        for writable in (False, True):
            stored = dump([view, memoryview(bytes(5000))]).tobytes()
            nested, large = load(stored, writable=writable)
            assert large.readonly is not writable
            for loaded in (load(dump(view).tobytes(), writable=writable), nested):
                assert (loaded.format, loaded.shape) == (form, shape)
                assert loaded.readonly is not writable
                assert loaded.tolist() == view.tolist()


def test_memoryviews_with_gaps_and_without_axes() -> None:
    gaps = memoryview(b"abcdef")[::-2]
    assert load(dump(gaps).tobytes()) == b"fdb"
    single = memoryview(array.array("d", [2.5])).cast("B").cast("d", ())
    assert load(dump(single).tobytes()).tolist() == 2.5
    released = memoryview(b"x")
    released.release()
    with pytest.raises(SerializationError, match="memoryview"):
        dump(released)


def test_a_memoryview_of_records_is_refused() -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(SerializationError, match="memoryview"):
        dump(memoryview(np.zeros(3, [("a", "i4"), ("b", "f8")])))
