"""Values of many kinds arrive as in plain Dask."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import (
    Client,
    as_completed,
    fire_and_forget,
    futures_of,
)

from tests.integrations.dask_kit import (
    SIZE,
    THRESHOLD,
    empty,
    make,
    total,
    workers,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Leave what is watched to `cluster`, and the objects to `client`."""


@dataclass
class Record:
    values: Any
    label: str


class Pair(NamedTuple):
    one: Any
    two: Any


def masked() -> Any:
    return np.ma.masked_less(make(SIZE), 10)


def structured() -> Any:
    found = np.zeros(SIZE, dtype=[("x", "f8"), ("name", "U4")])
    found["x"] = make(SIZE)
    found["name"] = "ab"
    return found


def mapped() -> Any:
    path = Path(os.environ["PROXYSTORE_SHM_ROOT"]).with_suffix(".memmap")
    found = np.memmap(path, "f8", "w+", shape=(SIZE,))
    path.unlink()
    found[:] = make(SIZE)
    return found


def read_only() -> Any:
    found = make(SIZE)
    found.flags.writeable = False
    return found


def objects() -> Any:
    found = np.empty(20_000, dtype=object)
    found[:] = [f"text {i}" for i in range(20_000)]
    return found


def categories() -> Any:
    index = pd.MultiIndex.from_product([range(200), range(100)], names=["a", "b"])
    labels = pd.Categorical.from_codes(np.arange(20_000) % 3, ["x", "y", "z"])
    return pd.DataFrame({"label": labels, "when": pd.Timestamp("2026-01-01")}, index=index)


VALUES: dict[str, Callable[[], Any]] = {
    "Fortran order": lambda: np.asfortranarray(make(SIZE).reshape(400, -1)),
    "strided": lambda: make(SIZE * 2)[::2],
    "reversed": lambda: make(SIZE)[::-1],
    "matrix": lambda: make(SIZE).reshape(400, -1).T,
    "masked": masked,
    "structured": structured,
    "memory map": mapped,
    "read-only": read_only,
    "objects": objects,
    "big-endian": lambda: make(SIZE).astype(">f8"),
    "dates": lambda: np.arange(SIZE).astype("M8[s]"),
    "broadcast": lambda: np.broadcast_to(make(1000), (200, 1000)),
    "bytearray": lambda: bytearray(os.urandom(THRESHOLD * 2)),
    "set": lambda: set(range(50_000)),
    "dataclass": lambda: Record(make(SIZE), "label"),
    "named tuple": lambda: Pair(make(SIZE), [make(SIZE)]),
    "twice": lambda: [make(SIZE)] * 2,
    "frame": categories,
    "series": lambda: pd.Series(make(SIZE), name="x"),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.memmap):
        return same(np.asarray(one), other)  # plain Dask forgets that it was one
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        flags = "f_contiguous", "c_contiguous"
        alike = all(getattr(one.flags, flag) == getattr(other.flags, flag) for flag in flags)
        usable = one.flags.writeable or not other.flags.writeable
        return alike and usable and one.dtype == other.dtype and bool(np.all(one == other))
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return one.equals(other)
    if isinstance(one, Record):
        return one.label == other.label and same(one.values, other.values)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def describe(value: Any) -> Any:
    """Say what a task sees of a value."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.strides
    return type(value).__name__, len(value) if hasattr(value, "__len__") else None


@pytest.mark.parametrize("kind", VALUES)
def test_values_arrive_as_in_plain_dask(client: Client, plain: Client, kind: str) -> None:
    here, there = workers(client)
    value = VALUES[kind]()

    def course(one: Client) -> tuple[Any, ...]:
        future = one.submit(lambda x: x, value, workers=here, pure=False)
        moved = one.submit(lambda x: (describe(x), x), future, workers=there, pure=False)
        seen, back = moved.result()
        (scattered,) = one.scatter([value], hash=False)
        return seen, back, future.result(), one.submit(describe, value).result(), scattered.result()

    for ours, theirs in zip(course(client), course(plain), strict=True):
        assert same(ours, theirs), (ours, theirs)


def test_arguments_that_are_passed_on(client: Client) -> None:
    here, there = workers(client)
    value = make(SIZE)
    step = client.submit(lambda x: x, value, workers=here)
    for where in (there, here, there):
        step = client.submit(lambda x: x, step, workers=where, pure=False)
    assert np.array_equal(step.result(), value)
    part = client.submit(lambda x: x[10:], value, workers=here)  # of a mapping
    assert total(client.submit(lambda x: x[10:], part, workers=there).result()) == total(value[20:])

    def write(values: Any) -> Any:
        values[0] = 7
        return values

    written = client.submit(write, value, workers=here)
    again = client.submit(write, client.submit(lambda x: x * 0, written), workers=there)
    assert written.result()[0] == again.result()[0] == 7
    assert again.result()[1] == 0
    assert value[0] == 0
    twice = client.submit(lambda x: {"a": x, "b": [x]}, value).result()
    assert twice["a"] is twice["b"][0]


def test_nested_futures(client: Client) -> None:
    value = make(SIZE)
    futures = client.map(make, [SIZE] * 2, range(2))

    def add(found: Any, *, more: Any) -> float:
        return total(found["a"]["b"][0]) + total(more[0][1]) + total(found["c"]) + more[1]

    nested = {"a": {"b": [futures[0]]}, "c": value}
    expected = 2 * total(value) + total(make(SIZE, 1)) + 1
    assert client.submit(add, nested, more=[(1, futures[1]), 1]).result() == expected
    results = client.map(add, [nested] * 2, more=[(1, futures[1]), 1])
    assert client.gather(results) == [expected] * 2
    gathered = client.gather({"x": futures, "y": {"z": futures[1]}})
    assert np.array_equal(gathered["x"][1], gathered["y"]["z"])


def test_exceptions_that_hold_large_values(client: Client) -> None:
    here, there = workers(client)

    def fail(values: Any) -> None:
        raise ValueError("too large", values)

    failed = client.submit(fail, make(SIZE), workers=here)
    error = failed.exception()
    assert isinstance(error, ValueError)
    assert np.array_equal(error.args[1], make(SIZE))
    after = client.submit(total, failed, workers=there)
    assert isinstance(after.exception(), ValueError)
    returned = client.submit(lambda x: ValueError(x), make(SIZE)).result()
    assert np.array_equal(returned.args[0], make(SIZE))


class Unpicklable:
    def __init__(self) -> None:
        self.values = make(SIZE)
        self.nbytes = self.values.nbytes
        self.lock = threading.Lock()


def test_values_that_cannot_be_pickled(client: Client, plain: Client) -> None:
    errors = []
    for one in (client, plain):
        with pytest.raises(TypeError, match=r"pickle|serialize") as caught:
            one.submit(lambda x, y: 1, Unpicklable(), make(SIZE), pure=False)
        errors.append(str(caught.value).partition("(")[0])
    assert errors[0] == errors[1]
    assert empty(client)
    here, _ = workers(client)
    for one in (client, plain):  # a result may stay where it was made
        made = one.submit(Unpicklable, workers=here, pure=False)
        assert one.submit(lambda x: total(x.values), made, workers=here).result() == total(
            make(SIZE)
        )
        with pytest.raises(Exception, match=r"pickle|serialize|Could not"):
            made.result()
        del made


def test_delayed_iterators_and_futures_together(client: Client) -> None:
    value = make(SIZE)
    with pytest.raises(TypeError, match="Iterators"):
        client.map(total, (value + i for i in range(3)))
    sums = [client.submit(total, part) for part in (value + i for i in range(3))]
    lazy = dask.delayed(lambda parts, x: sum(map(float, parts)) + total(x))
    future = client.submit(make, SIZE)
    tree = lazy([dask.delayed(total)(value), dask.delayed(future)[1], 5], value)
    assert tree.compute() == 2 * total(value) + 1 + 5
    array = da.from_array(value, chunks=SIZE // 2)
    computed = dask.compute(tree, array.sum(), {"x": [array[:3]]}, 7)
    assert computed[0] == tree.compute()
    assert computed[1] == total(value)
    assert list(computed[2]["x"][0]) == [0, 1, 2]
    first, second = client.compute([tree, array + 1])
    assert first.result() == computed[0]
    assert np.array_equal(second.result(), value + 1)
    assert client.gather(sums) == [total(value + i) for i in range(3)]
    assert client.get({"x": (total, value), "y": (sum, ["x", "x"])}, "y") == 2 * total(value)
    fire_and_forget(lazy([1], value).persist())


def from_array() -> Any:
    x = make(SIZE).reshape(400, -1)
    whole = da.from_array(x, chunks=-1)
    inline = da.from_array(x, chunks=(100, -1), inline_array=True)
    return dask.compute(whole + 1, inline.T @ inline, da.from_array(x[::2], chunks=50).max())


def from_frame() -> Any:
    frame = pd.DataFrame({"x": make(SIZE), "g": np.arange(SIZE) % 5, "s": "text"})
    lazy = dd.from_pandas(frame, npartitions=3).persist()
    assert futures_of(lazy)
    return lazy.groupby("g").x.sum().compute().sort_index(), lazy.query("g == 2").compute()


def from_sequence() -> Any:
    items = [bytes([i]) * THRESHOLD * 2 for i in range(4)]
    lazy = db.from_sequence([*items, *items], npartitions=3)
    return lazy.map(len).sum().compute(), lazy.distinct().compute(), lazy.take(1)


def stacked() -> Any:
    parts = [dask.delayed(make)(SIZE, i) for i in range(3)]
    arrays = [da.from_delayed(part, (SIZE,), "f8") for part in parts]
    blocks = da.stack(arrays).map_blocks(lambda b, w: b * w[:, None][:1], np.arange(1.0, SIZE))
    return blocks.sum(axis=1).compute(), da.concatenate(arrays)[5:9].compute()


def from_delayed() -> Any:
    parts = [dask.delayed(pd.DataFrame)({"x": make(SIZE, i)}) for i in range(2)]
    lazy = dd.from_delayed(parts, meta=pd.DataFrame({"x": make(1)}))
    return lazy.x.sum().compute(), lazy.map_partitions(len).compute()


@pytest.mark.parametrize(
    "program",
    [from_array, from_frame, from_sequence, stacked, from_delayed],
)
def test_collections_of_large_values(
    client: Client, plain: Client, program: Callable[[], Any]
) -> None:
    with plain.as_current():
        expected = program()
    assert all(map(same, program(), expected))


def test_results_as_they_come(client: Client) -> None:
    futures = client.map(make, [SIZE] * 4, range(4))
    more = as_completed(futures, with_results=True)
    found = []
    for future, values in more:
        found.append(total(values))
        if len(futures) < 6:
            futures.append(client.submit(lambda x: x + 10, future, pure=False))
            more.add(futures[-1])
        future.release()
    assert len(found) == 6
    assert set(found) >= {total(make(SIZE, i)) for i in range(4)}
