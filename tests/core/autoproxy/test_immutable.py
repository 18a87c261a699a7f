from __future__ import annotations

import numpy as np
import pytest

from proxystore_core.autoproxy.immutable import is_frozen, is_immutable


def test_bytes_and_strings_cannot_change() -> None:
    assert is_immutable(b"a")
    assert is_immutable("a")
    assert not is_immutable(bytearray(b"a"))
    assert not is_immutable([1])


def test_arrays_are_immutable_down_to_their_memory() -> None:
    owner = np.ones(4)
    view = owner[1:]
    view.flags.writeable = False
    assert not is_immutable(view)  # its owner can still be written
    assert is_frozen(view)
    owner.flags.writeable = False
    assert is_immutable(owner)
    assert is_immutable(owner[1:])
    assert is_immutable(np.frombuffer(b"12345678"))
    assert not is_immutable(np.frombuffer(bytearray(8)))
    locked = np.frombuffer(memoryview(bytearray(8)).toreadonly())
    assert is_frozen(locked)
    assert not is_immutable(locked)


def test_arrays_of_objects_and_subclasses_are_not() -> None:
    boxes = np.array([[1]], dtype=object)
    boxes.flags.writeable = False
    assert not is_immutable(boxes)
    masked = np.ma.masked_array([1, 2])
    assert not is_immutable(masked)


def test_memoryviews() -> None:
    assert is_immutable(memoryview(b"abc"))
    assert not is_immutable(memoryview(bytearray(3)))
    assert not is_immutable(memoryview(bytearray(3)).toreadonly())


def test_arrow_is_frames_are_not() -> None:
    arrow = pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    assert is_immutable(arrow.table({"a": [1]}))
    assert is_immutable(arrow.array([1]))
    assert not is_immutable(pandas.DataFrame({"a": [1]}))
