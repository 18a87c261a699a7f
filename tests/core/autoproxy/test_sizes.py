from __future__ import annotations

import datetime
import enum
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_core.autoproxy import size_of
from proxystore_core.autoproxy.sizes import ATOM, PROXY, UNKNOWN, kind_of, rough_size
from proxystore_core.proxy import Proxy, is_resolved


def test_arrays_and_bytes_tell_their_size() -> None:
    assert size_of(np.ones((10, 10))) == 800
    assert size_of(b"abc") == 3
    assert size_of(bytearray(5)) == 5
    assert size_of("abcd") == 4
    assert size_of(memoryview(np.ones(3))) == 24


def test_frames_tell_their_size() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.ones(1000), "b": ["x" * 100] * 1000})
    assert 100_000 < (size_of(frame) or 0) < 300_000
    assert size_of(frame["a"]) == 8000
    mixed = pandas.DataFrame(
        {
            "n": pandas.array([1, None], dtype="Int64"),
            "c": pandas.Categorical(["a", "b"]),
            "s": pandas.arrays.SparseArray([0, 1]),
            "o": pandas.Series([{"k": 1}, None], dtype=object),
        }
    )
    assert (size_of(mixed) or 0) > 0
    polars = pytest.importorskip("polars")
    assert size_of(polars.DataFrame({"a": range(1000)})) == 8000
    arrow = pytest.importorskip("pyarrow")
    assert size_of(arrow.table({"a": range(1000)})) == 8000


def test_what_only_serializing_tells_is_none() -> None:
    assert size_of([1, 2]) is None
    assert size_of(np.array([{}], dtype=object)) is None
    assert size_of(threading.Lock()) is None
    assert size_of(object()) is None


class Colour(enum.Enum):
    RED = 1


class Flag(enum.IntFlag):
    A = 1


@pytest.mark.parametrize(
    "value",
    [None, 1, 1.5, len, int, Colour.RED, Flag.A, sys, Path(), datetime.datetime.min, ValueError()],
)
def test_small_things_are_atoms(value: Any) -> None:
    assert kind_of(type(value)) is ATOM


def test_a_foreign_nbytes_may_fail() -> None:
    class Lazy:
        @property
        def nbytes(self) -> int:
            raise KeyError("not computed")

    class Known:
        nbytes = 123456

    assert size_of(Lazy()) is None
    assert size_of(Known()) == 123456


def test_proxies_are_not_resolved() -> None:
    proxy: Proxy[Any] = Proxy(lambda: np.ones(3))
    assert kind_of(type(proxy)) is PROXY
    assert size_of(proxy) is None
    assert not is_resolved(proxy)


class Model:
    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.name = "model"


class Slotted:
    __slots__ = ("weights",)


class Odd:
    def __reduce__(self) -> Any:
        return Odd, ()


def test_rough_sizes_look_into_plain_objects() -> None:
    size, complete = rough_size(Model(np.ones(10)), 10**6)
    assert complete
    assert 80 < size < 400
    size, _ = rough_size(Model([np.ones(10**6)]), 10**6)
    assert size >= 8 * 10**6
    assert rough_size(Model(threading.Lock()), 10**6)[1] is False
    assert rough_size(Slotted(), 10**6)[1] is False
    assert rough_size(Odd(), 10**6)[1] is False
    assert kind_of(Model) is UNKNOWN


def test_rough_sizes_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert rough_size(loop, 100)[1] is True
    assert rough_size([[i] for i in range(1000)], 10**6)[1] is False


def test_classes_made_on_the_fly_do_not_pile_up() -> None:
    from proxystore_core.autoproxy import sizes

    for i in range(5000):
        kind_of(type(f"Made{i}", (), {}))
    assert len(sizes._KINDS) <= sizes._TABLE_LIMIT
    assert kind_of(int) is ATOM
