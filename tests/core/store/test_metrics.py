from __future__ import annotations

import math
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.connectors.local import LocalConnector
from proxystore_core.proxy import resolve
from proxystore_core.store import Store
from proxystore_core.store.metrics import StoreMetrics, TimeStats
from proxystore_core.store.utils import get_key


def test_attributes_and_counters() -> None:
    metrics = StoreMetrics()
    assert metrics.get_metrics(("key",)) is None
    metrics.add_attribute("size", ("key",), 10)
    metrics.add_counter("hits", ("key",), 1)
    metrics.add_counter("hits", ("key",), 2)
    found = metrics.get_metrics(("key",))
    assert found is not None
    assert found.as_dict() == {"attributes": {"size": 10}, "counters": {"hits": 3}, "times": {}}
    found.counters.clear()
    assert metrics.get_metrics(("key",)).counters == {"hits": 3}


@given(st.lists(st.floats(0, 1e6), min_size=1), st.lists(st.floats(0, 1e6)))
def test_times(first: list[float], second: list[float]) -> None:
    stats = [TimeStats(), TimeStats()]
    for times, of in zip((first, second), stats, strict=True):
        for value in times:
            of.add_time(value)
    both, times = stats[0] + stats[1], first + second
    assert both.count == len(times)
    assert both.avg_time_ms == pytest.approx(sum(times) / len(times))
    assert (both.min_time_ms, both.max_time_ms) == (min(times), max(times))
    assert both.last_time_ms == times[-1]
    assert both.as_dict()["count"] == len(times)


def test_no_times() -> None:
    assert TimeStats() + TimeStats() == TimeStats()
    assert TimeStats().min_time_ms == math.inf


def test_all_operations_are_recorded_in_milliseconds() -> None:
    # ProxyStore put nanoseconds into the milliseconds of factory.*.
    with Store("test", LocalConnector(), metrics=True) as store:
        start = time.perf_counter()
        proxy = store.proxy("value", populate_target=False)
        key = get_key(proxy)
        resolve(proxy)
        store.exists(key)
        store.get(key)
        keys = store.put_batch(["a", "b"])
        store.proxy_batch(["c"])
        store.get_batch(keys)
        future = store.future()
        future.set_result(1)
        resolve(future.proxy())
        store.evict(key)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        times = store.metrics.aggregate_times()
        assert set(times) == {
            f"store.{name}"
            for name in [
                *("put", "put.serialize", "put.connector", "proxy", "proxy_batch"),
                *("put_batch", "put_batch.serialize", "put_batch.connector"),
                *("get", "get.connector", "get.deserialize", "exists", "exists.connector"),
                *("get_batch", "get_batch.connector", "get_batch.deserialize"),
                *("future", "future.connector", "set", "set.serialize", "set.connector"),
                *("evict", "evict.connector"),
            ]
        } | {"factory.call", "factory.resolve", "factory.polling_resolve"}
        for name, stats in times.items():
            assert 0 < stats.avg_time_ms <= stats.max_time_ms < elapsed_ms, name
        assert times["factory.call"].max_time_ms >= times["factory.resolve"].max_time_ms
        one = store.metrics.get_metrics(proxy)
        assert one is not None
        assert one == store.metrics.get_metrics(key)
        assert one.counters == {"store.get.cache_misses": 1, "store.get.cache_hits": 1}
        assert one.attributes["store.put.object_size"] == one.attributes["store.get.object_size"]
        batch = store.metrics.get_metrics(keys)
        assert batch is not None
        assert batch == store.metrics.get_metrics([store.proxy_from_key(key) for key in keys])
        assert batch.attributes["store.put_batch.object_sizes"] > 0


def test_metrics_are_off_by_default() -> None:
    with Store("test", LocalConnector()) as store:
        assert store.metrics is None
        resolve(pickle.loads(pickle.dumps(store.proxy("value"))))
        assert store.metrics is None


def test_old_keys_are_forgotten_and_stay_in_the_sum() -> None:
    metrics = StoreMetrics(max_keys=2)
    for number in range(5):
        metrics.add_time("put", (number,), 1.0)
    assert [metrics.get_metrics((n,)) is not None for n in range(5)] == [False] * 3 + [True] * 2
    assert metrics.aggregate_times()["put"].count == 5


def test_threads_lose_no_counts() -> None:
    metrics = StoreMetrics()
    barrier = threading.Barrier(4)

    def add() -> None:
        barrier.wait(10)
        for _ in range(1000):
            metrics.add_counter("hits", ("key",), 1)
            metrics.add_time("get", ("key",), 1.0)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(add) for _ in range(4)]:
            future.result()
    found = metrics.get_metrics(("key",))
    assert found is not None
    assert (found.counters["hits"], found.times["get"].count) == (4000, 4000)
