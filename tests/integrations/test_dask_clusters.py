"""What Dask can do beside running tasks goes on as before: locks, data sets, plugins."""

from __future__ import annotations

import gc
import sys
from typing import Any

import cloudpickle
import dask
import dask.array as da
import joblib
import numpy as np
import proxystore_dask
import pytest
from distributed import (
    Client,
    Event,
    LocalCluster,
    Lock,
    Queue,
    Semaphore,
    Variable,
    WorkerPlugin,
    get_client,
    wait,
)

from tests.conftest import wait_until
from tests.integrations.dask_kit import (
    SIZE,
    THRESHOLD,
    make,
    total,
    unique,
    usage,
    workers,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Leave what is watched to `cluster`, and the objects to `client`."""


# Coordination


def test_queue_of_futures(client: Client) -> None:
    here, there = workers(client)
    queue = Queue(unique(), client=client)
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
    closed = Queue(unique(), client=client)
    closed.put(client.submit(lambda x: x + 9, make(SIZE)))
    closed.close()


def test_variable_keeps_a_result(client: Client, plain: Client) -> None:
    variable = Variable(unique(), client=client)
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
    lock, event, seats = unique(), unique(), unique()

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
    names = {"array": unique(), "futures": unique(), "delayed": unique()}
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
