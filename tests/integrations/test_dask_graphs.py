"""Large arguments that Dask does not look into, and how they are taken out of graphs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from dask._expr import LLGExpr
from dask._task_spec import Alias, List, Task, parse_input
from dask.tokenize import tokenize
from distributed import Future
from distributed.client import _MapExpr
from proxystore_dask import tokens
from proxystore_dask.graphs import Taker
from proxystore_dask.memory import Memory
from proxystore_dask.nodes import StoredNode
from proxystore_dask.sizes import estimate
from proxystore_dask.tokens import GivenNode, Giver

from proxystore_core.autoproxy import Policy
from proxystore_core.store import Store

LIMIT = 10_000


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(Store("dask-graphs"), Policy(threshold=LIMIT))
    yield made
    made.close()


def records(count: int = 1000) -> list[dict[str, Any]]:
    return [{"number": i, "text": f"text of record {i}"} for i in range(count)]


LARGE = [
    np.arange(LIMIT, dtype="f8"),
    np.asfortranarray(np.ones((100, 200))),
    b"x" * LIMIT,
    bytearray(LIMIT),
    "é" * LIMIT,
    records(),
    tuple(records()),
    dict(enumerate(records())),
    [np.arange(100) + i for i in range(100)],
]


def same(one: Any, other: Any) -> bool:
    return pickle.dumps(one) == pickle.dumps(other)


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_large_plain_data_is_given(memory: Memory, value: Any) -> None:
    given = Giver(memory).give(value)
    assert type(given) is GivenNode
    assert given() is value
    assert parse_input(given) is given
    again = Giver(memory).give(pickle.loads(pickle.dumps(value)))
    assert tokenize(again) == tokenize(given)
    assert same(pickle.loads(pickle.dumps(given))(), value)


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_given_data_is_stored(memory: Memory, value: Any) -> None:
    taker = Taker(memory)
    graph = {"key": Task("key", type, Giver(memory).give(value))}
    (task,) = taker.take(LLGExpr(graph)).operand("dsk").values()
    (stored,) = task.args
    assert type(stored) is StoredNode
    assert list(taker.needs) == [stored.handle.key]
    assert same(stored(), value)
    assert task() is type(value)


class Own(list[int]):
    def __dask_tokenize__(self) -> str:
        return "own"


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 100,
        list(range(10)),
        Own(range(LIMIT)),
        [*records(), Own()],
        [*records(), date(2026, 1, 1)],
        {**dict(enumerate(records())), "task": Task("key", len, [])},
        np.array([object()] * LIMIT),
        range(LIMIT),
        memoryview(bytes(LIMIT)),
        1,
        None,
    ],
    ids=repr,
)
def test_all_else_stays(memory: Memory, value: Any) -> None:
    assert Giver(memory).give(value) is value


def test_futures_are_found(memory: Memory) -> None:
    future = Future("some-key")
    data = [*records(), future]
    assert Giver(memory).give(data) is data
    given = Giver(memory).give([np.ones(LIMIT), future])
    assert type(given[0]) is GivenNode
    parsed = parse_input(given)
    assert type(parsed) is List
    assert type(parsed.args[1]) is Alias
    assert parsed.dependencies == {"some-key"}


def test_what_is_in_a_small_container_is_given_by_itself(memory: Memory) -> None:
    array = np.ones(LIMIT)
    given = Giver(memory).give({"one": (array, 1), "two": [array], "three": 3})
    assert given["three"] == 3
    assert given["one"][0] is given["two"][0]
    taker = Taker(memory)
    expr = taker.take(LLGExpr({"key": Task("key", dict, parse_input(given))}))
    assert len(taker.needs) == 1
    found = expr.operand("dsk")["key"]()
    assert found["one"][0].sum() == found["two"][0].sum() == LIMIT


def test_the_same_object_is_serialized_and_hashed_once(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(tokens, "hash_buffer_hex", lambda data: hashed.append(data) or "token")
    give = Giver(memory).give
    array = np.ones(LIMIT)
    first, second = give(array), give(array)
    assert first is second
    assert tokenize(first, second, [first]) == tokenize(second, first, [first])
    assert len(hashed) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"x" * LIMIT, bytearray(b"x" * LIMIT)),
        (b"x" * LIMIT, "x" * LIMIT),
        (np.zeros(LIMIT), np.zeros(LIMIT, dtype="i8")),
        (np.zeros(LIMIT), np.zeros((LIMIT, 1))),
        (records(), tuple(records())),
        ([np.zeros(100)] * 100, [np.zeros(100, dtype="i8")] * 100),
        ([*records(), 1], [*records(), 1.0]),
        ([*records(), 1], [*records(), True]),
        ([*records(), np.float32(1)], [*records(), np.int32(0x3F800000)]),
    ],
)
def test_other_data_has_another_token(memory: Memory, one: Any, other: Any) -> None:
    give = Giver(memory).give
    assert tokenize(give(one)) != tokenize(give(other))


@pytest.mark.parametrize("nbytes", [100, 7_999_000, 8_001_000, 20_000_001])
def test_every_byte_counts(memory: Memory, nbytes: int) -> None:
    data = bytearray(nbytes)
    before = tokens.digest(memory.store.dump(data))
    for place in (0, nbytes // 2, nbytes - 1):
        data[place] = 1
        assert tokens.digest(memory.store.dump(data)) != before
        data[place] = 0
    assert tokens.digest(memory.store.dump(data)) == before


def test_types_that_the_policy_leaves_stay(memory: Memory) -> None:
    only_arrays = Memory(memory.store, Policy(threshold=LIMIT, types=(np.ndarray,)))
    give = Giver(only_arrays).give
    data, array = b"x" * LIMIT, np.ones(LIMIT)
    assert give(data) is data
    assert type(give(array)) is GivenNode


def test_given_data_that_cannot_be_stored_stays_in_the_graph(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * LIMIT
    graph = {"key": Task("key", len, Giver(memory).give(data))}
    monkeypatch.setattr(memory, "put", lambda *args, **options: None)
    taker = Taker(memory)
    expr = pickle.loads(pickle.dumps(taker.take(LLGExpr(graph))))
    assert not taker.needs
    assert expr.operand("dsk")["key"]() == LIMIT


def test_map_stores_what_all_of_its_tasks_use_once(memory: Memory) -> None:
    give = Giver(memory).give
    data = records()
    expr = _MapExpr(
        max,
        [[1, 2, 3], [give(data)] * 3],
        key="max",
        pure=True,
        annotations={},
        kwargs={"key": give(data)},
    )
    keys = list(expr.keys)
    assert len(set(keys)) == 3
    taker = Taker(memory)
    tasks = taker.take(expr).operand("dsk")
    assert list(tasks) == keys
    assert list(taker.needs.values()) == [keys]


def test_small_pickles_of_large_containers_are_stored(memory: Memory) -> None:
    # Plain Dask takes long for them, whatever they pickle to.
    value = ["the same text"] * LIMIT
    taker = Taker(memory)
    taker.take(LLGExpr({"key": Task("key", len, value)}))
    assert len(taker.needs) == 1


class Awkward:
    """An object of a type that pickles in a way of its own, and cannot be measured."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getstate__(self) -> Any:
        return self.data

    def __sizeof__(self) -> int:
        raise ValueError("no size")


def test_size_of_types_that_pickle_in_their_own_way() -> None:
    assert estimate(Awkward(np.ones(1000)), 1 << 40) >= 8000
    assert estimate(Awkward(1), 1 << 40) < 1000
    matrix = scipy.sparse.random(1000, 100, 0.5, format="csr", random_state=0)
    assert estimate(matrix, 1 << 40) > 500_000
