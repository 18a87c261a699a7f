"""Arguments and results by reference, on workers that are processes of this node."""

from __future__ import annotations

import asyncio
import collections
import copy
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pandas as pd
import proxystore_dask
import pytest
from distributed import Client, LocalCluster, as_completed, fire_and_forget, get_worker, wait
from proxystore_dask import _seams, access
from proxystore_dask.access import Handle
from proxystore_dask.client import _enabled
from proxystore_dask.memory import Memory

from tests.conftest import wait_until
from tests.integrations.dask_kit import SIZE, THRESHOLD, infos, make, mapped_file, total, workers

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Leave what is watched to `cluster`, and the objects to `client`."""


def party(client: Client) -> Memory:
    return _enabled[client].memory


def objects(client: Client) -> int:
    return party(client).store.usage().objects


def records(count: int) -> list[dict[str, Any]]:
    return [{"number": i, "text": f"text {i}"} for i in range(count)]


def write(values: np.ndarray[Any, Any]) -> float:
    values[0] = 99
    return float(values[0])


VALUES = {
    "array": lambda: make(SIZE),
    "bytes": lambda: os.urandom(THRESHOLD * 2),
    "text": lambda: "ä" * THRESHOLD,
    "frame": lambda: pd.DataFrame({"x": make(SIZE), "name": "abc"}),
    "records": lambda: records(20_000),
    "dict of arrays": lambda: {"a": make(SIZE), "b": [make(SIZE), 1]},
}


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("kind", VALUES)
def test_argument_and_result(client: Client, kind: str) -> None:
    value = VALUES[kind]()
    here, there = workers(client)
    future = client.submit(lambda x: x, value, workers=here)
    assert same(future.result(), value)
    assert objects(client)
    assert client.submit(same, future, value, workers=there).result()
    assert future.type is type(value)


def test_small_values_stay_in_the_graph(client: Client) -> None:
    assert client.submit(total, np.ones(10)).result() == 10
    future = client.submit(lambda x: x + 1, 1)
    assert future.result() == 2
    assert not objects(client)


def test_from_worker_to_worker_without_a_copy(client: Client) -> None:
    here, there = workers(client)
    made = client.submit(make, SIZE, workers=here)
    directory = party(client).store.connector.directory
    wait(made)
    assert not objects(client)  # nobody asked for it yet
    path = client.submit(mapped_file, made, workers=there).result()
    assert path.startswith(directory)
    assert objects(client) == 1
    assert mapped_file(made.result()).startswith(directory)
    assert objects(client) == 1  # the same one
    assert client.nbytes(summary=False)[made.key] == SIZE * 8

    def reported(name: str) -> list[Any]:
        """Return what the workers said of themselves with their last heartbeats."""
        workers = infos(client).values()
        return [worker["metrics"][name] for worker in workers]

    assert wait_until(lambda: {m["bytes"] for m in reported("proxystore")} == {SIZE * 8})
    assert SIZE * 8 <= sum(reported("managed_bytes")) < 1.5 * SIZE * 8  # counted once


def test_argument_without_a_copy(client: Client) -> None:
    path = client.submit(mapped_file, make(SIZE)).result()
    assert path.startswith(party(client).store.connector.directory)


def test_written_arguments_and_results_stay_private(client: Client) -> None:
    here, there = workers(client)
    value = make(SIZE)
    writers = client.map(lambda _, x: write(x), range(4), x=value)
    assert client.gather(writers) == [99] * 4
    assert value[0] == 0
    made = client.submit(make, SIZE, workers=here)
    assert client.submit(write, made, workers=there).result() == 99
    assert client.submit(write, made, pure=False, workers=there).result() == 99
    assert client.submit(lambda x: float(x[0]), made, workers=there).result() == 0
    mine = made.result()
    mine[0] = 5
    assert made.result()[0] == 0


def test_read_only_where_the_policy_says_so(cluster: LocalCluster, client: Client) -> None:
    with Client(cluster, set_as_default=False) as other:
        policy = proxystore_dask.Policy(threshold=THRESHOLD, writable=False)
        proxystore_dask.enable(other, policy=policy)
        future = other.submit(write, make(SIZE))
        with pytest.raises(ValueError, match="read-only"):
            future.result()
        assert not other.submit(make, SIZE, pure=False).result().flags.writeable


def test_map(client: Client) -> None:
    shared = make(SIZE)
    futures = client.map(lambda x, factor, y: total(x) * factor + total(y), [shared] * 5,
                         range(5), y=shared)  # fmt: skip
    assert objects(client) <= 1
    assert client.gather(futures) == [total(shared) * (i + 1) for i in range(5)]
    mixed = client.map(lambda x: np.size(x), [shared, 1, shared + 1, "a"])
    assert client.gather(mixed) == [SIZE, 1, SIZE, 1]
    batches = client.map(total, [shared + i for i in range(4)], batch_size=2)
    assert client.gather(batches) == [total(shared + i) for i in range(4)]


def test_nested_arguments_and_futures(client: Client) -> None:
    shared = make(SIZE)
    future = client.submit(make, SIZE)

    def look(nested: Any, *, more: Any) -> float:
        (one, (two, small)), other = nested["list"], nested["future"]
        assert small == 3
        assert type(nested["list"]) is list
        return total(one) + total(two) + total(other) + total(more["x"][0])

    nested = {"list": [shared, (shared, 3)], "future": future}
    result = client.submit(look, nested, more={"x": [shared]})
    assert result.result() == 4 * total(shared)
    assert objects(client) <= 2  # what is shared was stored once


def test_keys(cluster: LocalCluster, client: Client) -> None:
    with Client(cluster, set_as_default=False) as plain:
        assert client.submit(total, np.ones(10)).key == plain.submit(total, np.ones(10)).key
        framed = pd.DataFrame({"x": make(SIZE)})
        assert client.submit(len, framed).key == plain.submit(len, framed).key
    for value in (make(SIZE), [b"x" * SIZE], records(10_000)):  # hashed as they are stored
        one = client.submit(str, value)
        assert client.submit(str, copy.deepcopy(value)).key == one.key
        assert client.submit(str, value, pure=False).key != one.key
        assert client.submit(repr, value).key != one.key
        assert client.submit(str, value[1:]).key != one.key
        (mapped,) = client.map(str, [value])
        assert client.map(str, [copy.deepcopy(value)])[0].key == mapped.key
    del one, mapped


def test_task_that_is_forgotten_while_it_is_sent_again(
    cluster: LocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = make(SIZE)
    scheduler = cluster.scheduler
    with Client(cluster, set_as_default=False) as other:
        proxystore_dask.enable(other, threshold=THRESHOLD)
        theirs = other.submit(total, value, key="again")
        assert theirs.result() == total(value)

        def claim_and_forget(sender: Client, message: dict[str, Any]) -> None:
            _seams.send(sender, message)
            if message["op"] == "proxystore-claim":
                books = scheduler.plugins["proxystore"].books
                assert wait_until(lambda: len(books._args["again"]) == 2)
                theirs.release()
                assert wait_until(lambda: "again" not in scheduler.tasks)

        monkeypatch.setattr(_seams, "send_with_next", claim_and_forget)
        ours = client.submit(total, value, key="again")
        assert ours.result() == total(value)


def test_options_of_dask_are_not_arguments(client: Client) -> None:
    name = "k" * THRESHOLD * 2
    assert client.submit(len, "abc", key=name).key == name
    (future,) = client.map(len, ["abc"], key=[name + "1"])
    assert future.key == name + "1"


Pair = collections.namedtuple("Pair", "one two")


def test_scatter(client: Client) -> None:
    value = make(SIZE)
    future = client.scatter(value)
    assert future.type is np.ndarray
    assert client.submit(total, future).result() == total(value)
    assert objects(client) == 1
    assert np.array_equal(future.result(), value)
    assert client.nbytes(summary=False)[future.key] == value.nbytes
    assert client.scatter(value).key == future.key
    futures = client.scatter([value, 1, value + 1])
    assert [np.size(x) for x in client.gather(futures)] == [SIZE, 1, SIZE]
    named = client.scatter({"x": value, "y": 2})
    assert client.gather(named)["y"] == 2
    assert client.submit(lambda x, y: x[1] + y, named["x"], named["y"]).result() == 3
    pair = client.scatter(Pair(value + 2, 1))
    assert type(pair) is Pair
    everywhere = client.scatter(value * 3, broadcast=True, hash=False)
    assert len(client.who_has(everywhere)[everywhere.key]) == 2
    assert total(everywhere.result()) == 3 * total(value)
    directly = client.scatter(value * 4, direct=True)
    assert total(directly.result()) == 4 * total(value)
    assert client.gather(client.scatter(range(3))) == [0, 1, 2]


def test_delayed_compute_and_persist(client: Client) -> None:
    value = make(SIZE)
    delayed = dask.delayed(total)(value)
    assert delayed.compute() == total(value)
    twice = dask.delayed(lambda x, y: x + y["x"][1])(delayed, {"x": value})
    assert twice.compute() == total(value) + 1
    held = dask.delayed(value).persist()
    assert dask.delayed(total)(held).compute() == total(value)
    first, second = dask.compute(delayed, dask.delayed(make)(SIZE))
    assert first == total(second)
    assert client.compute(delayed).result() == total(value)


def test_large_graph_warns_no_more(client: Client, recwarn: pytest.WarningsRecorder) -> None:
    value = np.ones(12_000_000 // 8)
    assert client.submit(total, value).result() == value.sum()
    assert dask.delayed(total)(value).compute() == value.sum()
    assert not [w for w in recwarn if "large graph" in str(w.message)]


def test_annotations_resources_and_priorities(client: Client) -> None:
    value = make(SIZE)
    here = workers(client)[0]
    with dask.annotate(workers=here, priority=3):
        where = dask.delayed(lambda x: (get_worker().address, total(x)))(value)
    assert where.compute(optimize_graph=False) == (here, total(value))
    future = client.submit(lambda x: x.size, value, resources={"CHAIR": 1}, priority=5)
    assert future.result() == SIZE
    futures = client.map(lambda x: get_worker().address, [value, value + 1], workers=here)
    assert client.gather(futures) == [here, here]


def test_retries(client: Client, tmp_path: Path) -> None:
    def flaky(values: Any, path: str) -> float:
        tries = Path(path)
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        if len(tries.read_text()) < 3:
            raise OSError("not yet")
        return total(values)

    value = make(SIZE)
    assert client.submit(flaky, value, str(tmp_path / "a"), retries=3).result() == total(value)
    failed = client.submit(flaky, value, str(tmp_path / "b"))
    assert isinstance(failed.exception(), OSError)
    assert objects(client) == 1  # it may be tried again
    failed.retry()
    assert isinstance(failed.exception(), OSError)
    failed.retry()
    assert failed.result() == total(value)


def test_failed_tasks(client: Client) -> None:
    failed = client.submit(lambda x: 1 / 0, make(SIZE))
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert objects(client) == 1


def test_task_that_cannot_be_sent(client: Client) -> None:
    with pytest.raises(TypeError, match=r"pickle|serialize"):
        client.submit(lambda x, y: x, make(SIZE), threading.Lock())
    assert wait_until(lambda: not objects(client))


def test_cancelled_tasks(client: Client, tmp_path: Path) -> None:
    def hold(values: Any, path: str) -> int:
        while not Path(path).exists():
            threading.Event().wait(0.02)
        return values.size

    go = tmp_path / "go"  # stays: a task that was cancelled too late must see it, too
    futures = client.map(hold, [make(SIZE) + i for i in range(6)], path=str(go))
    client.cancel(futures)
    go.touch()
    assert all(future.cancelled() for future in futures)
    del futures
    assert wait_until(lambda: not objects(client))


def test_actors(client: Client) -> None:
    class Counter:
        def __init__(self, values: Any) -> None:
            self.values = values

        def add(self, values: Any) -> float:
            self.values += values
            return total(self.values)

    value = make(SIZE)
    actor = client.submit(Counter, value, actor=True).result()
    assert actor.add(value).result() == 2 * total(value)
    assert client.submit(lambda a, x: a.add(x).result(), actor, value).result() == 3 * total(value)
    assert value[1] == 1


def test_callbacks_and_as_completed(client: Client) -> None:
    done = threading.Event()
    future = client.submit(make, SIZE)
    future.add_done_callback(lambda _: done.set())
    assert done.wait(10)
    futures = client.map(make, [SIZE, SIZE + 1])
    sizes = {x.size for _, x in as_completed(futures, with_results=True)}
    assert sizes == {SIZE, SIZE + 1}
    for number in range(20):
        fire_and_forget(client.submit(total, make(SIZE + number)))


def test_coroutines(client: Client) -> None:
    async def later(values: Any) -> Any:
        await asyncio.sleep(0)
        return values + 1

    here, there = workers(client)
    one = client.submit(later, make(SIZE), workers=here)
    two = client.submit(later, one, workers=there)
    assert two.result()[1] == 3


def test_tasks_that_submit_tasks(client: Client) -> None:
    def outer(values: Any) -> float:
        from distributed import worker_client

        with worker_client() as inner:
            return float(inner.submit(total, values).result()) + inner.submit(make, 3).result()[2]

    assert client.submit(outer, make(SIZE)).result() == total(make(SIZE)) + 2


def test_what_a_task_sees_of_the_data_of_its_worker(client: Client) -> None:
    here, there = workers(client)
    made = client.submit(make, SIZE, workers=here)

    def look(values: Any, key: str) -> bool:
        return bool(np.array_equal(get_worker().data[key], values))

    assert client.submit(look, made, made.key, workers=there).result()


def test_client_without_us_gets_objects(cluster: LocalCluster, client: Client) -> None:
    made = client.submit(make, SIZE, key="shared-by-two")
    made.result()
    with Client(cluster, set_as_default=False) as plain:
        client.publish_dataset(found=made)
        got = plain.get_dataset("found")
        assert np.array_equal(plain.gather(got), make(SIZE))
        assert np.array_equal(plain.gather(got, direct=True), make(SIZE))
        assert plain.submit(total, got).result() == total(make(SIZE))
        client.unpublish_dataset("found")
        del got


def test_two_clients(cluster: LocalCluster, client: Client) -> None:
    value = make(SIZE)
    with Client(cluster, set_as_default=False) as other:
        proxystore_dask.enable(other, threshold=THRESHOLD)
        mine, theirs = client.submit(total, value), other.submit(total, value)
        assert mine.result() == theirs.result() == total(value)
        del mine
        assert other.submit(lambda x, y: x + total(y), theirs, value).result() == 2 * total(value)
    assert wait_until(lambda: not objects(client))


def test_disabled_client(cluster: LocalCluster, client: Client) -> None:
    with Client(cluster, set_as_default=False) as other:
        proxystore_dask.enable(other, threshold=THRESHOLD)
        assert proxystore_dask.is_enabled(other)
        proxystore_dask.disable(other)
        proxystore_dask.disable(other)
        assert not proxystore_dask.is_enabled(other)
        future = other.submit(lambda x: x, make(SIZE))
        assert same(future.result(), make(SIZE))
        assert not objects(client)


def test_direct_gather(client: Client) -> None:
    futures = client.map(make, [SIZE, SIZE + 1, 3])
    assert [x.size for x in client.gather(futures, direct=True)] == [SIZE, SIZE + 1, 3]


def test_many_at_once(client: Client) -> None:
    futures = [client.submit(make, SIZE + i) for i in range(20)]
    sums = [client.submit(total, future) for future in futures]
    assert [x.size for x in client.gather(futures)] == [SIZE + i for i in range(20)]
    assert client.gather(sums) == [total(make(SIZE + i)) for i in range(20)]


def test_handles_spill_and_come_back(tmp_path: Path) -> None:
    from distributed.spill import SpillBuffer
    from proxystore_dask.shelf import Shelf, arriving

    from proxystore_core.store import Store

    with Store("spill") as store:
        party = Memory(store, proxystore_dask.Policy())
        handle = party.put(make(SIZE), SIZE * 8)
        told: list[Any] = []
        shelf = Shelf(SpillBuffer(str(tmp_path), target=1_000_000),
                      lambda key, handle: told.append(key), True)  # fmt: skip
        shelf["x"] = handle
        assert told == ["x"]
        assert shelf.fast.total_weight < 1000  # it takes no memory of the worker's own
        assert shelf.evict() < 1000
        assert not shelf.fast
        assert np.array_equal(shelf["x"], make(SIZE))
        token = arriving.set(True)
        shelf["y"] = handle
        arriving.reset(token)
        assert told == ["x"]
        shelf["y"] = 1
        assert set(shelf.handles) == {"x"}
        del shelf["x"], shelf["y"]
        assert not shelf
        assert not shelf.handles
        party.close()


def test_handle_is_small() -> None:
    import pickle

    from proxystore_core.store import Store

    with Store("small") as store:
        party = Memory(store, proxystore_dask.Policy())
        handle = party.put(make(SIZE), SIZE * 8)
        assert handle is not None
        sent = pickle.loads(pickle.dumps(handle))
        assert isinstance(sent, Handle)
        assert np.array_equal(access.get(sent), make(SIZE))
        assert len(pickle.dumps(handle)) < 700
        party.close()
    assert mmap.PAGESIZE  # the mapping outlives the store
