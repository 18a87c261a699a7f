"""What Dask can do beside running tasks goes on as before: locks, data sets, plugins, scaling."""

from __future__ import annotations

import gc
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import proxystore_dask
import pytest
from distributed import (
    Client,
    Event,
    LocalCluster,
    Lock,
    Queue,
    Security,
    Semaphore,
    Variable,
    WorkerPlugin,
    as_completed,
    fire_and_forget,
    futures_of,
    get_client,
    get_worker,
    wait,
)

from tests.conftest import wait_until
from tests.integrations.dask_kit import SIZE, THRESHOLD, empty, local, make, total, usage

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def no_module_leaks(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Watch the whole module: one cluster outlives a test."""
    resource_tracker.ensure_running()
    with watch_leaks():
        yield


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Leave what is watched to the module, and the objects to `client` and `empty`."""


@pytest.fixture(scope="module")
def cluster(no_module_leaks: None) -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


@pytest.fixture(scope="module")
def enabled(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as made:
        proxystore_dask.enable(made, threshold=THRESHOLD)
        yield made


@pytest.fixture
def client(enabled: Client) -> Iterator[Client]:
    before = usage(enabled)  # more than zero only if an earlier test failed
    yield enabled
    gc.collect()  # a traceback may hold a future
    assert wait_until(lambda: usage(enabled) <= before), "objects left"


@pytest.fixture(scope="module")
def plain(cluster: LocalCluster) -> Iterator[Client]:
    """Return a client of the same cluster whose data travels as in plain Dask."""
    with Client(cluster, set_as_default=False) as made:
        yield made


def beaten(client: Client) -> None:
    """Wait until every worker has sent two more heartbeats, and fail if one is gone."""

    def seen() -> dict[str, float]:
        infos = client.scheduler_info(n_workers=-1)["workers"].items()
        return {address: info["last_seen"] for address, info in infos}

    for _ in range(2):
        before = now = seen()
        pause = threading.Event()
        while not all(now[address] > before[address] for address in before):
            pause.wait(0.05)
            now = seen()
            assert now.keys() == before.keys(), "a worker is gone"


def workers(client: Client) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def name() -> str:
    """Return a name that no other test uses."""
    return uuid.uuid4().hex


# Coordination


def test_queue_of_futures(client: Client) -> None:
    here, there = workers(client)
    queue = Queue(name(), client=client)
    queue.put(client.submit(make, SIZE, workers=here))
    queue.put(client.submit(lambda x: x + 1, make(SIZE), workers=there))
    gc.collect()
    assert [total(future.result()) for future in queue.get(batch=2)] == [
        total(make(SIZE)),
        total(make(SIZE, 1)),
    ]

    def produce(queue: Queue, values: Any) -> None:
        queue.put(get_client().scatter(values + 5))
        queue.put(get_client().submit(make, SIZE, 7))

    client.submit(produce, queue, make(SIZE)).result()
    assert total(queue.get(timeout=10).result()) == total(make(SIZE, 5))
    consumed = client.submit(lambda queue: total(queue.get(timeout=10).result()), queue)
    assert consumed.result() == total(make(SIZE, 7))
    closed = Queue(name(), client=client)
    closed.put(client.submit(lambda x: x + 9, make(SIZE)))
    closed.close()


def test_variable_keeps_a_result(client: Client, plain: Client) -> None:
    variable = Variable(name(), client=client)
    future = client.submit(lambda x: x + 1, make(SIZE))
    wait(future)
    variable.set(future)
    del future
    gc.collect()
    assert total(variable.get().result()) == total(make(SIZE, 1))
    seen = Variable(variable.name, client=plain).get()
    assert np.array_equal(seen.result(), make(SIZE, 1))
    del seen
    assert client.submit(lambda v: total(v.get().result()), variable).result() == total(
        make(SIZE, 1)
    )
    variable.set(client.scatter(make(SIZE, 2)))
    assert total(variable.get().result()) == total(make(SIZE, 2))
    variable.delete()


def test_locks_and_events(client: Client) -> None:
    lock, event, seats = name(), name(), name()

    def add(values: Any, number: int) -> float:
        Event(event).wait(20)
        with Lock(lock), Semaphore(2, name=seats):
            return total(values) + number

    futures = client.map(add, [make(SIZE)] * 4, range(4))
    held = client.submit(lambda x: x * 2, make(SIZE))
    Event(event, client=client).set()
    assert client.gather(futures) == [total(make(SIZE)) + i for i in range(4)]
    assert total(held.result()) == 2 * total(make(SIZE))


def test_published_collections(client: Client, plain: Client) -> None:
    values = make(SIZE)
    collection = (da.from_array(values, chunks=SIZE // 2) + 1).persist()
    names = {"array": name(), "futures": name(), "delayed": name()}
    client.publish_dataset(collection, name=names["array"])
    futures = client.scatter([values, values * 2])
    client.publish_dataset(futures, name=names["futures"])
    client.publish_dataset(dask.delayed(total)(values), name=names["delayed"])
    del collection, futures
    gc.collect()
    for one in (client, plain):
        with one.as_current():
            assert one.get_dataset(names["array"]).sum().compute() == total(values) + SIZE
            second = one.get_dataset(names["futures"])[1]
            assert one.submit(total, second).result() == 2 * total(values)
            assert np.array_equal(second.result(), values * 2)
            assert one.get_dataset(names["delayed"]).compute() == total(values)
        del second
    for published in names.values():
        client.unpublish_dataset(published)


def test_functions_that_run_beside_tasks(client: Client) -> None:
    value = make(SIZE)
    assert set(client.run(total, value).values()) == {total(value)}
    made = client.run(make, SIZE)
    assert all(np.array_equal(found, value) for found in made.values())
    assert np.array_equal(client.run_on_scheduler(make, SIZE), value)
    future = client.submit(make, SIZE)
    wait(future)
    key = future.key

    def tasks(dask_scheduler: Any) -> int:
        return int(dask_scheduler.tasks[key].nbytes)

    assert client.run_on_scheduler(tasks) == value.nbytes

    def look(dask_worker: Any) -> Any:
        return dask_worker.data.get(key)

    assert any(np.array_equal(found, value) for found in client.run(look).values())
    assert not usage(client)


# Where data lies


def test_replicas(client: Client) -> None:
    here, there = workers(client)
    made = client.submit(make, SIZE, workers=here)
    wait(made)
    client.replicate(made)
    assert wait_until(lambda: set(client.who_has(made)[made.key]) == {here, there})
    assert usage(client) == 1
    assert all(made.key in keys for keys in client.has_what().values())
    assert client.nbytes(summary=False)[made.key] == SIZE * 8
    client.replicate(made, n=1)
    assert wait_until(lambda: len(client.who_has(made)[made.key]) == 1)
    assert np.array_equal(made.result(), make(SIZE))
    again = client.submit(make, SIZE, 3, workers=there)
    client.replicate([made, again], workers=[here])
    assert client.submit(lambda x, y: total(x + y), made, again, workers=here).result() == total(
        make(SIZE)
    ) + total(make(SIZE, 3))


def test_rebalance(client: Client) -> None:
    here, there = workers(client)
    futures = client.map(make, [SIZE] * 6, range(6), workers=here)
    wait(futures)
    client.rebalance(futures)
    assert all(len(holders) == 1 for holders in client.who_has(futures).values())
    assert [total(x) for x in client.gather(futures)] == [total(make(SIZE, i)) for i in range(6)]
    sums = client.map(total, futures, workers=there)
    assert client.gather(sums) == [total(make(SIZE, i)) for i in range(6)]


# Other ways in


def test_executor(client: Client) -> None:
    values = [make(SIZE, i) for i in range(3)]
    with client.get_executor() as pool:
        assert list(pool.map(total, values)) == [total(value) for value in values]
        future = pool.submit(np.add, values[0], values[1])
        assert np.array_equal(future.result(), values[0] + values[1])


def test_joblib(client: Client) -> None:
    value = make(SIZE)
    for options in ({}, {"scatter": [value]}):
        with joblib.parallel_config("dask", **options):
            found = joblib.Parallel()(
                joblib.delayed(lambda x, i: x * i)(value, i) for i in range(3)
            )
        assert all(np.array_equal(x, value * i) for i, x in enumerate(found))


@pytest.mark.parametrize("serializers", [["pickle"], ["dask", "pickle"], ["msgpack", "pickle"]])
def test_serializers(cluster: LocalCluster, client: Client, serializers: list[str]) -> None:
    with Client(
        cluster, serializers=serializers, deserializers=serializers, set_as_default=False
    ) as other:
        proxystore_dask.enable(other, threshold=THRESHOLD)
        future = other.submit(lambda x: x + 1, make(SIZE), pure=False)
        assert np.array_equal(future.result(), make(SIZE, 1))
        assert other.submit(total, future).result() == total(make(SIZE, 1))


def test_clients_with_different_policies(cluster: LocalCluster, client: Client) -> None:
    with Client(cluster, set_as_default=False) as other:
        proxystore_dask.enable(other, policy=proxystore_dask.Policy(threshold=1000))
        small = np.ones(500)
        mine = client.submit(lambda x: x + 1, small, pure=False)
        assert np.array_equal(mine.result(), small + 1)
        assert not usage(client)
        theirs = other.submit(lambda x: x + 2, small, pure=False)
        assert np.array_equal(theirs.result(), small + 2)
        assert usage(client) == 1
        with Client(cluster, set_as_default=False) as third:
            policy = proxystore_dask.Policy(threshold=1000, args=False, results=False)
            proxystore_dask.enable(third, policy=policy)
            value = make(SIZE)
            assert np.array_equal(third.submit(lambda x: x * 3, value).result(), value * 3)
        assert usage(client) == 1


def test_plugin_that_looks_at_data(client: Client) -> None:
    class Looks(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            self.worker = worker
            self.seen: dict[Any, Any] = {}

        def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
            if finish == "memory" and key in self.worker.data:
                value = self.worker.data[key]
                self.seen[key] = type(value).__name__, float(np.sum(value))

    here, there = workers(client)
    client.register_plugin(Looks(), name="looks")
    try:
        made = client.submit(make, SIZE, workers=here)
        added = client.submit(lambda x, y: x + y, made, make(SIZE), workers=there)
        wait(added)
        seen = client.run(lambda dask_worker: dask_worker.plugins["looks"].seen)
        expected = "ndarray", total(make(SIZE))
        assert seen[here][made.key] == expected
        assert seen[there][made.key] == expected
        assert seen[there][added.key] == ("ndarray", 2 * total(make(SIZE)))
        items = client.run(
            lambda dask_worker: {k: type(v).__name__ for k, v in dask_worker.data.items()}
        )
        assert items[there] == {made.key: "ndarray", added.key: "ndarray"}
    finally:
        client.unregister_worker_plugin("looks")


# Values


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


# Clusters of their own


def test_encrypted_cluster() -> None:
    with local(security=Security.temporary()) as client:
        assert client.scheduler.address.startswith("tls://")
        here, there = workers(client)
        made = client.submit(lambda x: x + 1, make(SIZE), workers=here)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE, 1))
        assert usage(client) == 2
        assert np.array_equal(made.result(), make(SIZE, 1))
        scattered = client.scatter(make(SIZE), workers=here)
        assert client.submit(total, scattered, workers=there).result() == total(make(SIZE))
        del made, scattered
        assert empty(client)


def test_workers_that_are_restarted() -> None:
    with local() as client:
        here, there = workers(client)
        future = client.submit(lambda x: x + 1, make(SIZE))
        made = client.map(make, [SIZE] * 2, range(2))
        scattered = client.scatter(make(SIZE, 3), workers=here)
        assert client.submit(lambda x, y: total(x + y), *made).result() == total(
            make(SIZE)
        ) + total(make(SIZE, 1))
        before = client.run(os.getpid)
        client.restart_workers([here, there])
        assert not set(before.values()) & set(client.run(os.getpid).values())
        for _ in range(2):  # the workers live on, too
            sums = client.gather(client.map(total, [*made, scattered], pure=False))
            assert sums == [total(make(SIZE, start)) for start in (0, 1, 3)]
            beaten(client)
        assert np.array_equal(future.result(), make(SIZE, 1))
        del made, scattered, future
        assert empty(client)


def once(number: int, path: str) -> np.ndarray[Any, Any]:
    """Make values, and note that it was done."""
    with open(f"{path}/{number}", "a") as file:
        file.write("x")
    return make(SIZE, number)


def runs(path: Path) -> list[str]:
    return [file.read_text() for file in path.iterdir()]


def test_scaled_cluster_loses_nothing(tmp_path: Path) -> None:
    with local(1) as client:
        cluster = client.cluster
        cluster.scale(3)
        client.wait_for_workers(3, timeout=30)
        everywhere = client.map(
            once, range(6), path=str(tmp_path),
            workers=workers(client), allow_other_workers=True,
        )  # fmt: skip
        scattered = client.scatter([make(SIZE, 20 + i) for i in range(3)])
        argument = client.submit(lambda x: x + 1, make(SIZE, 30))
        shared = client.map(total, everywhere)
        argument.result()
        assert client.gather(shared) == [total(x) for x in client.gather(everywhere)]
        cluster.scale(1)
        assert wait_until(lambda: len(workers(client)) == 1, timeout=30)
        assert [total(x) for x in client.gather(everywhere)] == client.gather(shared)
        assert client.gather(shared) == [total(make(SIZE, i)) for i in range(6)]
        found = client.gather(client.map(total, scattered))
        assert found == [total(make(SIZE, 20 + i)) for i in range(3)]
        assert np.array_equal(argument.result(), make(SIZE, 31))
        assert runs(tmp_path) == ["x"] * 6  # what was looked at lies in the node's memory
        del everywhere, scattered, argument, shared
        assert empty(client)


def test_adaptive_cluster_loses_nothing(tmp_path: Path) -> None:
    go = tmp_path / "go"
    done = tmp_path / "done"
    done.mkdir()

    def hold(number: int, path: str, go: str) -> np.ndarray[Any, Any]:
        pause = threading.Event()
        while not Path(go).exists():
            pause.wait(0.02)
        return once(number, path)

    with local(1) as client:
        client.cluster.adapt(
            minimum=1, maximum=3, interval="50ms", wait_count=2, target_duration="10ms"
        )
        futures = client.map(hold, range(9), path=str(done), go=str(go))
        assert wait_until(lambda: len(workers(client)) == 3, timeout=40)
        go.touch()
        wait(futures)
        assert wait_until(lambda: len(workers(client)) == 1, timeout=40)
        assert [total(x) for x in client.gather(futures)] == [
            total(make(SIZE, i)) for i in range(9)
        ]
        more = client.map(lambda x, y: total(x) + y[0], futures, y=make(SIZE, 1))
        assert client.gather(more) == [total(make(SIZE, i)) + 1 for i in range(9)]
        assert runs(done) == ["x"] * 9
        del futures, more
        assert empty(client)


# Memory limits

LIMIT = 512 * 2**20
ITEMS = 64 * 2**20 // 8


@contextmanager
def limited() -> Iterator[Client]:
    with local(1, memory_limit=LIMIT) as client:
        yield client


def stay(look: Callable[[], Any]) -> list[Any]:
    """Look again and again while the worker and its nanny check the memory several times."""
    monitor = get_worker().monitor
    until = monitor.count + 3
    found = []
    pause = threading.Event()
    while monitor.count < until:
        found.append(look())
        pause.wait(0.02)
    return found


def test_mapped_memory_is_not_the_worker_s_own() -> None:
    """Inputs that all workers of the node share, and that are larger than the limit of one."""

    def read(arrays: list[Any]) -> tuple[int, float, set[str]]:
        sums = [total(array) for array in arrays]  # touches all pages
        return os.getpid(), sum(sums), set(stay(lambda: get_worker().status.name))

    with limited() as client:
        arrays = [np.full(ITEMS, float(i)) for i in range(10)]
        (pid,) = client.run(os.getpid).values()
        scattered = client.scatter(arrays[5:])
        expected = sum(float(i) * ITEMS for i in range(10))
        found = client.submit(read, [*arrays[:5], *scattered]).result(timeout=60)
        assert found == (pid, expected, {"running"})
        del scattered
        assert empty(client)


def test_spilling() -> None:
    with limited() as client:
        futures = client.map(lambda i: np.full(ITEMS // 2, float(i)), range(20), pure=False)
        wait(futures)
        (address,) = workers(client)

        def spilled() -> int:
            metrics = client.scheduler_info(n_workers=-1)["workers"][address]["metrics"]
            return int(metrics["spilled_bytes"]["disk"])

        assert wait_until(lambda: spilled() > 0, timeout=20)
        assert client.gather(client.map(total, futures)) == [i * ITEMS // 2 for i in range(20)]
        assert [x[5] for x in client.gather(futures[::5])] == [0, 5, 10, 15]
        assert client.nbytes(summary=False)[futures[0].key] == ITEMS * 4
        del futures
        assert empty(client)
        assert wait_until(lambda: spilled() == 0, timeout=20)


def test_pausing() -> None:
    """Memory of the worker's own pauses it, that of arguments which were written to included."""

    def fill(shared: Any) -> tuple[set[str], int]:
        import psutil

        worker = get_worker()
        shared += 1  # private pages from now on
        rest = int(LIMIT * 0.87) - psutil.Process().memory_info().rss
        own = np.ones(max(rest, 0) // 8)
        pause = threading.Event()
        for _ in range(1000):
            if worker.status.name == "paused":
                break
            pause.wait(0.02)
        return {worker.status.name}, len(own)

    with limited() as client:
        states, _ = client.submit(fill, np.ones(ITEMS)).result(timeout=60)
        assert states == {"paused"}
        assert client.submit(total, make(SIZE)).result(timeout=60) == total(make(SIZE))
        assert empty(client)
