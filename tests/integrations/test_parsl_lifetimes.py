"""Who holds an object, and that it goes with the last one who does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import parsl
import pytest
from parsl import join_app, python_app
from parsl.data_provider.files import File
from parsl.executors import HighThroughputExecutor
from proxystore_parsl import ProxyThreadPoolExecutor

from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store

N = 50_000


@python_app(executors=["htex"])
def make(n: int = N) -> Any:
    return np.arange(n, dtype=float)


@python_app(executors=["htex"])
def double(array: Any) -> Any:
    assert type(array) is np.ndarray
    return array * 2


@python_app(executors=["htex"])
def total(array: Any) -> float:
    assert type(array) is np.ndarray
    return float(array.sum())


@python_app(executors=["other"])
def total_elsewhere(array: Any, inputs: Any = ()) -> float:
    assert type(array) is np.ndarray
    return float(array.sum() + sum(item.sum() for item in inputs))


@python_app(executors=["plain"])
def total_plain(array: Any) -> float:
    assert type(array) is np.ndarray
    return float(array.sum())


@python_app(executors=["other"])
def negate_elsewhere(array: Any) -> Any:
    return -array


@python_app(executors=["threads"])
def total_in_thread(array: Any) -> float:
    assert type(array) is np.ndarray
    return float(array.sum())


@python_app(executors=["htex"])
def wait_for_file(array: Any, path: str) -> float:
    import time

    while not Path(path).exists():
        time.sleep(0.01)
    return float(array.sum())


@python_app(executors=["htex"])
def always_fail(array: Any) -> None:
    raise OSError("no")


@join_app
def join(array: Any) -> Future[Any]:
    return double(array)


@pytest.fixture(scope="module", autouse=True)
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    """Watch the module: its executors start threads when they need them."""
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def store() -> Iterator[Store[Any]]:
    with Store("parsl-lifetimes") as store:
        yield store


@pytest.fixture(scope="module")
def kernel(parsl_kit: Any, store: Store[Any]) -> Iterator[parsl.DataFlowKernel]:
    with parsl_kit.load(
        parsl_kit.htex(store=store),
        parsl_kit.htex("other", workers=1),
        HighThroughputExecutor(**parsl_kit.settings("plain", workers=1)),
        ProxyThreadPoolExecutor(label="threads"),
    ) as kernel:
        yield kernel


@pytest.fixture
def objects(kernel: parsl.DataFlowKernel, store: Store[Any], parsl_kit: Any) -> Iterator[Any]:
    """Count what the store holds, without the help of the garbage collector."""

    def count() -> int:
        return store.usage().objects

    gc.collect()
    assert parsl_kit.wait_until(lambda: count() == 0)
    gc.disable()
    yield count
    gc.enable()
    assert parsl_kit.wait_until(lambda: count() == 0)


def test_arguments_go_when_their_task_is_done(objects: Any) -> None:
    array = np.ones(N)
    futures = [total(array) for _ in range(5)]
    assert [future.result() for future in futures] == [N] * 5
    assert objects() == 0


def test_arguments_of_a_failed_task_go(objects: Any) -> None:
    assert isinstance(always_fail(np.ones(N)).exception(), OSError)
    assert objects() == 0


def test_a_result_goes_with_its_last_holder(objects: Any, parsl_kit: Any) -> None:
    future = make()
    result = future.result()
    assert objects() == 1
    del future
    assert objects() == 1
    assert result.sum() > 0
    del result
    assert parsl_kit.wait_until(lambda: objects() == 0)


def test_a_future_that_nobody_asks_goes_too(objects: Any, parsl_kit: Any) -> None:
    future = make()
    future.exception()
    assert objects() == 1
    del future
    assert parsl_kit.wait_until(lambda: objects() == 0)
    make()
    make()
    parsl.wait_for_current_tasks()
    assert parsl_kit.wait_until(lambda: objects() == 0)


def test_a_view_outlives_the_object(objects: Any, parsl_kit: Any) -> None:
    row = make().result()[:10]
    assert parsl_kit.wait_until(lambda: objects() == 0)
    assert row.tolist() == list(range(10))


def test_a_chain_holds_its_last_result_only(objects: Any, parsl_kit: Any) -> None:
    future = make()
    for _ in range(5):
        future = double(future)
    future.result()
    assert parsl_kit.wait_until(lambda: objects() == 1)
    assert future.task_record["depends"] == []
    assert not is_resolved(future.result())
    assert future.result()[1] == 32


def test_an_early_future_does_not_hold_later_results(objects: Any, parsl_kit: Any) -> None:
    first = make(3)
    last = double(double(np.ones(N)))
    after = double(make())
    after.result()
    last.result()
    del last, after
    assert parsl_kit.wait_until(lambda: objects() == 0)
    assert first.result().tolist() == [0, 1, 2]
    source = make()
    total(double(source)).result()
    assert parsl_kit.wait_until(lambda: objects() == 1)
    assert is_proxy(source.result())


def test_a_join_holds_its_last_result_only(objects: Any, parsl_kit: Any) -> None:
    joined = join(make())
    joined.result()
    assert parsl_kit.wait_until(lambda: objects() == 1)
    assert joined.result()[1] == 2


def test_a_thread_task_lets_go(objects: Any, parsl_kit: Any) -> None:
    future = total_in_thread(make())
    assert future.result() == np.arange(N).sum()
    assert parsl_kit.wait_until(lambda: objects() == 0)
    assert future.done()


def test_a_task_in_flight_holds_its_argument(objects: Any, parsl_kit: Any, tmp_path: Path) -> None:
    source = make()
    source.exception()
    waiting = wait_for_file(source, str(tmp_path / "go"))
    assert parsl_kit.wait_until(lambda: waiting.task_status() == "launched")
    del source
    gc.collect()
    assert objects() == 1
    (tmp_path / "go").touch()
    assert waiting.result() == np.arange(N).sum()
    assert parsl_kit.wait_until(lambda: objects() == 0)


def test_futures_of_files_and_outputs_let_go_when_collected(
    objects: Any, parsl_kit: Any, tmp_path: Path
) -> None:
    future = python_app(_write_and_return, executors=["htex"])(
        N, outputs=[File(str(tmp_path / "out"))]
    )
    future.result()
    assert future.outputs[0].result().filepath == str(tmp_path / "out")
    del future
    gc.collect()  # a future and those of its outputs hold each other in Parsl
    assert parsl_kit.wait_until(lambda: objects() == 0)


def _write_and_return(n: int, outputs: Any = ()) -> Any:
    import numpy as np

    with open(outputs[0].filepath, "w") as file:
        file.write("done")
    return np.ones(n)


def test_finished_records_keep_what_parsl_reads(
    objects: Any, parsl_kit: Any, tmp_path: Path
) -> None:
    app = python_app(_with_stdout, executors=["htex"])
    future = app(make(), stdout=str(tmp_path / "out"))
    future.result()
    assert parsl_kit.wait_until(lambda: objects() == 0)
    assert future.stdout == str(tmp_path / "out")
    assert future.tid == future.task_record["id"]
    assert future.task_status() == "exec_done"
    assert future.task_record["func_name"] == "_with_stdout"
    assert "ndarray" in repr(future.task_record["args"])


def _with_stdout(array: Any, stdout: Any = None) -> int:
    return len(array)


def test_results_cross_executors(
    objects: Any, parsl_kit: Any, kernel: parsl.DataFlowKernel
) -> None:
    expected = np.arange(N, dtype=float).sum()
    source = make()
    assert total_elsewhere(source, inputs=[source]).result() == 2 * expected
    assert total_plain(source).result() == expected
    assert total_in_thread(source).result() == expected
    there = negate_elsewhere(source)
    assert total(there).result() == -expected
    assert total_plain(there).result() == -expected
    del source, there
    assert parsl_kit.wait_until(lambda: objects() == 0)
    other: Any = kernel.executors["other"]
    assert parsl_kit.wait_until(lambda: other.proxy_stats().alive == 0)


def test_statistics(kernel: parsl.DataFlowKernel, objects: Any) -> None:
    htex: Any = kernel.executors["htex"]
    before = htex.proxy_stats()
    assert total(double(np.ones(N))).result() == 2 * N
    after = htex.proxy_stats()
    assert after.puts - before.puts == 1
    assert after.nbytes - before.nbytes >= 8 * N
    assert after.results - before.results == 1
    assert after.refs - before.refs == 2


def test_garbage_is_no_condition(objects: Any) -> None:
    future = make()
    result = future.result()
    alive = weakref.ref(future)
    del future
    assert alive() is None, "a finished future is part of a cycle"
    assert len(result) == N
