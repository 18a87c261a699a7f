"""`StoreExecutor` over real pools of threads and processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import threading
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxystore_core.autoproxy import (
    Policy,
    ProxyAlways,
    ProxyNever,
    ProxyType,
    StoreExecutor,
)
from proxystore_core.exceptions import ArgumentSerializationError, ResultSerializationError
from proxystore_core.proxy import extract, is_proxy, is_resolved
from proxystore_core.store import Store

BIG = 50_000


class TestAnyPool:
    def test_arguments_and_results(
        self, pool: Executor, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        with StoreExecutor(pool, store, close_store=False) as executor:
            big = np.ones(BIG)
            assert executor.submit(tasks.seen, big).result() == (False, "ndarray")
            assert executor.submit(tasks.total, x=big).result() == BIG
            future = executor.submit(tasks.ones, BIG)
            result = future.result()
            assert is_proxy(result)
            assert not is_resolved(result)
            assert count(store) == 1
            next_one = executor.submit(tasks.add_one, result)
            assert next_one.result().sum() == 2 * BIG
            assert not is_resolved(result)
            del result, next_one
            assert count(store) == 1  # the future still holds it
            del future
            assert count(store) == 0
            assert executor.submit(tasks.seen, [1, 2]).result() == (False, "list")
            stats = executor.stats()
            assert stats.puts == 2
            assert stats.alive == 0

    def test_map(self, pool: Executor, store: Store[Any], tasks: Any, count: Any) -> None:
        with StoreExecutor(pool, store, close_store=False) as executor:
            arrays = [np.full(BIG, float(i)) for i in range(5)]
            assert list(executor.map(tasks.total, arrays)) == [BIG * float(i) for i in range(5)]
            results = executor.map(tasks.add_one, arrays, chunksize=2)
            assert [float(r[0]) for r in results] == [1, 2, 3, 4, 5]
            pairs = list(executor.map(tasks.totals, arrays, arrays[1:2]))
            assert pairs == [[0.0, float(BIG)]]
            nested = executor.map(lambda x: x["a"][0].sum(), [{"a": (a,)} for a in arrays])
            assert [float(x) for x in nested] == [BIG * float(i) for i in range(5)]
            del results
        assert count(store) == 0

    def test_exceptions_pass_unchanged(
        self, pool: Executor, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        with StoreExecutor(pool, store, close_store=False) as executor:
            with pytest.raises(LookupError) as info:
                executor.submit(tasks.fail, np.ones(BIG)).result()
            assert info.value.args == ("no luck", BIG)
            results = executor.map(tasks.fail, [np.ones(BIG)] * 4, chunksize=2)
            with pytest.raises(LookupError, match="no luck"):
                list(results)
        assert count(store) == 0

    def test_results_stay_usable_after_shutdown(
        self, pool: Executor, store: Store[Any], tasks: Any
    ) -> None:
        with StoreExecutor(pool, store) as executor:
            futures = [executor.submit(tasks.ones, BIG) for _ in range(3)]
        assert store.closed
        assert sum(float(future.result().sum()) for future in futures) == 3 * BIG


class TestFutures:
    def test_wait_and_as_completed(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any
    ) -> None:
        with StoreExecutor(processes, store) as executor:
            futures = [executor.submit(tasks.total, np.ones(BIG)) for _ in range(4)]
            assert all(isinstance(future, Future) for future in futures)
            done, left = concurrent.futures.wait(futures, timeout=30)
            assert len(done) == 4
            assert not left
            assert sum(f.result() for f in concurrent.futures.as_completed(futures)) == 4 * BIG
            assert not futures[0].running()
            assert not futures[0].cancel()

    def test_cancelled_tasks_let_go(self, store: Store[Any], tasks: Any, count: Any) -> None:
        start, stop = threading.Event(), threading.Event()

        def block(x: Any) -> None:
            start.set()
            stop.wait(30)

        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            running = executor.submit(block, 1)
            assert start.wait(30)
            assert running.running()
            assert not running.cancel()
            waiting = executor.submit(tasks.total, np.ones(BIG))
            assert count(store) == 1
            assert not waiting.running()
            assert waiting.cancel()
            assert waiting.cancelled()
            assert count(store) == 0
            with pytest.raises(CancelledError):
                waiting.result()
            last = executor.submit(tasks.total, np.ones(BIG))
            stop.set()
            assert running.result() is None
            assert last.result() == BIG

    def test_shutdown_can_cancel(self, store: Store[Any], tasks: Any, count: Any) -> None:
        start, stop = threading.Event(), threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        executor = StoreExecutor(pool, store, close_store=False)
        executor.submit(lambda: (start.set(), stop.wait(30)))
        assert start.wait(30)
        waiting = [executor.submit(tasks.total, np.ones(BIG)) for _ in range(3)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        assert count(store) == 0
        stop.set()
        pool.shutdown()

    def test_shutdown_without_waiting_lets_tasks_finish(self, tasks: Any, eventually: Any) -> None:
        store = Store("later")
        start, stop = threading.Event(), threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        executor = StoreExecutor(pool, store)

        def blocked(x: Any) -> Any:
            start.set()
            stop.wait(30)
            return x + 1

        future = executor.submit(blocked, np.ones(BIG))
        assert start.wait(30)
        executor.shutdown(wait=False)
        assert not store.closed
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(tasks.ones, 1)
        stop.set()
        assert future.result().sum() == 2 * BIG
        assert eventually(lambda: store.closed)
        pool.shutdown()

    def test_a_dropped_future_leaves_nothing(
        self, store: Store[Any], tasks: Any, count: Any, eventually: Any
    ) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            executor.submit(tasks.ones, BIG)
            assert eventually(lambda: executor.stats().results == 1)
            assert eventually(lambda: count(store) == 0)


class TestMap:
    def test_it_is_lazy_where_asked(self, store: Store[Any], tasks: Any, count: Any) -> None:
        taken = []

        def source() -> Any:
            for i in range(20):
                taken.append(i)
                yield np.full(BIG, float(i))

        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            results = executor.map(tasks.add_one, source(), buffersize=2)
            assert len(taken) == 2
            first = next(results)
            assert float(first[0]) == 1
            assert len(taken) == 3
            assert count(store) <= 2 * 3
            assert [float(r[0]) for r in results] == [float(i) for i in range(2, 21)]
            assert len(taken) == 20

    def test_a_result_that_was_taken_and_dropped_is_gone(
        self, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            for result in executor.map(tasks.ones, [BIG] * 6, buffersize=1):
                assert float(result[0]) == 1
                assert count(store) <= 3

    def test_timeout(self, store: Store[Any], tasks: Any) -> None:
        stop = threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store) as executor:
            results = executor.map(lambda x: stop.wait(30), [1, 2], timeout=0.05)
            with pytest.raises(TimeoutError):
                next(results)
            stop.set()

    def test_an_abandoned_map_cancels_the_rest(
        self, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            results = executor.map(tasks.ones, [BIG] * 50)
            next(results)
            results.close()  # type: ignore[attr-defined]
        assert count(store) == 0

    def test_bad_numbers(self, store: Store[Any]) -> None:
        with StoreExecutor(concurrent.futures.ThreadPoolExecutor(1), store) as executor:
            for option in ("chunksize", "buffersize"):
                with pytest.raises(ValueError, match=option):
                    executor.map(abs, [1], **{option: 0})

    def test_an_error_in_the_source_leaves_nothing(
        self, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        def source() -> Any:
            yield np.ones(BIG)
            raise OSError("no more")

        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, close_store=False) as executor:
            with pytest.raises(OSError, match="no more"):
                executor.map(tasks.total, source())
            with pytest.raises(OSError, match="no more"):
                executor.map(tasks.total, source(), chunksize=3)
        assert count(store) == 0

    def test_results_before_a_failure_in_a_chunk_come(
        self, processes: ProcessPoolExecutor, store: Store[Any], count: Any
    ) -> None:
        def half(x: int) -> Any:
            if x == 2:
                raise LookupError(x)
            return np.full(BIG, float(x))

        with StoreExecutor(processes, store, close_store=False) as executor:
            results = executor.map(half, range(4), chunksize=4)
            assert float(next(results)[0]) == 0
            assert float(next(results)[0]) == 1
            with pytest.raises(LookupError) as info:
                next(results)
            assert "half" in str(info.value.__cause__)
        assert count(store) == 0


class TestFaults:
    def test_a_killed_worker(self, store: Store[Any], tasks: Any, count: Any) -> None:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        with StoreExecutor(pool, store, close_store=False) as executor:
            kept = executor.submit(tasks.ones, BIG).result()
            futures = [executor.submit(tasks.die, np.ones(BIG)) for _ in range(3)]
            for future in futures:
                with pytest.raises(BrokenProcessPool):
                    future.result(30)
            with pytest.raises(BrokenProcessPool):
                executor.submit(tasks.total, np.ones(BIG))
            assert count(store) == 1
            assert kept.sum() == BIG
            del kept
            assert count(store) == 0

    def test_a_killed_worker_and_an_own_store(self, tasks: Any) -> None:
        store = Store("mine")
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        with StoreExecutor(pool, store) as executor, pytest.raises(BrokenProcessPool):
            executor.submit(tasks.die, np.ones(BIG)).result(30)
        assert store.closed

    def test_unpicklable_arguments(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        with StoreExecutor(processes, store, close_store=False) as executor:
            with pytest.raises(ArgumentSerializationError) as info:
                executor.submit(tasks.identity, [np.ones(BIG), threading.Lock()])
            assert info.value.argument == "x[1]"
            assert info.value.task == "identity"
            assert count(store) == 0
            assert executor.submit(tasks.total, np.ones(BIG)).result() == BIG

    def test_unpicklable_results(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any
    ) -> None:
        with StoreExecutor(processes, store) as executor:
            future = executor.submit(tasks.lock, 1)
            with pytest.raises(ResultSerializationError, match="'lock'"):
                future.result()

    def test_threads_may_share_what_no_pickle_takes(self, store: Store[Any], tasks: Any) -> None:
        lock = threading.Lock()
        with StoreExecutor(concurrent.futures.ThreadPoolExecutor(1), store) as executor:
            assert executor.submit(tasks.identity, lock).result() is lock


class TestShouldProxy:
    def test_the_callables(self) -> None:
        assert ProxyAlways()(1)
        assert not ProxyNever()(1)
        assert ProxyType(int, str)("a")
        assert not ProxyType(int)("a")

    def test_it_decides_whatever_the_size(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any
    ) -> None:
        with StoreExecutor(processes, store, ProxyType(str)) as executor:
            result = executor.submit(tasks.identity, "small").result()
            assert is_proxy(result)
            assert result == "small"
            assert executor.submit(tasks.identity, 1.5).result() == 1.5
            both = executor.submit(tasks.identity, ["a", 1, {"k": "b"}]).result()
            assert [is_proxy(x) for x in both[:2]] == [True, False]
            assert is_proxy(both[2]["k"])
            big = np.ones(BIG)
            assert type(executor.submit(tasks.identity, big).result()) is np.ndarray

    def test_always_and_never(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any
    ) -> None:
        executor = StoreExecutor(processes, store, ProxyAlways(), close_store=False)
        assert is_proxy(executor.submit(tasks.identity, 5).result())
        assert executor.submit(tasks.identity, None).result() is None
        assert executor.submit(tasks.identity, True).result() is True
        assert extract(executor.submit(tasks.identity, [1, 2]).result()) == [1, 2]
        never = StoreExecutor(processes, store, ProxyNever())
        assert type(never.submit(tasks.ones, BIG).result()) is np.ndarray
        assert never.stats().puts == 0

    def test_ownership_can_be_left_to_the_caller(
        self, processes: ProcessPoolExecutor, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        with StoreExecutor(processes, store, ownership=False, close_store=False) as executor:
            result = executor.submit(tasks.ones, BIG).result()
        assert count(store) == 1
        again = pickle.loads(pickle.dumps(result))
        assert is_proxy(again)
        assert again.sum() == BIG
        store.evict(result.__proxy_factory__.key)

    def test_options(self, store: Store[Any], tasks: Any) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with pytest.raises(ValueError, match="not both"):
            StoreExecutor(pool, store, policy=Policy(), threshold=1)
        with pytest.raises(TypeError, match="size"):
            StoreExecutor(pool, store, size=1)
        with StoreExecutor(pool, store, threshold="1 kB", resolve="lazy") as executor:
            assert executor.submit(tasks.resolved, b"x" * 2000).result() == (True, False)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with StoreExecutor(pool, store, policy=Policy(results=False)) as executor:
            assert executor.session.policy.results is False


class Client:
    """An executor-like client that is no `Executor`, as some engines have."""

    def __init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(1)

    def submit(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        return self.pool.submit(func, *args, **kwargs)

    def close(self) -> None:
        self.pool.shutdown()


def test_clients_that_are_no_executors(store: Store[Any], tasks: Any) -> None:
    client: Any = Client()
    with StoreExecutor(client, store) as executor:
        assert executor.submit(tasks.total, np.ones(BIG)).result() == BIG
    with Store("other") as other, pytest.warns(RuntimeWarning, match="neither"):
        StoreExecutor(object(), other).shutdown()  # type: ignore[arg-type]


leaves = (
    st.integers()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.integers(0, 40).map(lambda n: np.arange(n, dtype=float))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


def plain(value: Any) -> Any:
    """Make a result comparable."""
    if is_proxy(value):
        value = extract(value)
    if isinstance(value, np.ndarray):
        return ("array", value.tolist())
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=values, threshold=st.sampled_from([0, 1, 60, 200, 10**6]))
def test_whatever_goes_in_comes_out(
    value: Any, threshold: int, processes: ProcessPoolExecutor, store: Store[Any], count: Any
) -> None:
    executor = StoreExecutor(processes, store, close_store=False, threshold=threshold)
    result = executor.submit(lambda x: x, value).result()
    assert plain(result) == plain(value)
    again = executor.submit(lambda x: [x, x], result).result()
    assert plain(again) == [plain(value)] * 2
    del result, again
    assert count(store) == 0
    executor.session.close()
