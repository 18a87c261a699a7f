"""What goes wrong with one task fails its future, and no other."""

from __future__ import annotations

import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import globus_sdk
import numpy as np
import pytest
from globus_compute_sdk.errors import MaxResultSizeExceeded, TaskExecutionFailed
from globus_compute_sdk.sdk.asynchronous.compute_future import ComputeFuture
from globus_compute_sdk.serialize import ComputeSerializer, JSONData
from proxystore_globus_compute import GlobusComputeError, PayloadTooLargeError, ProxyExecutor
from proxystore_globus_compute.errors import explained
from proxystore_globus_compute.futures import ProxyFuture

from examples.compute_stack.in_process import InProcess
from proxystore_core import __version__
from proxystore_core.autoproxy import Policy
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import (
    ArgumentSerializationError,
    ProxyStoreError,
    StorageFullError,
    WorkerSetupError,
)
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left
from tests.integrations.globus_near import BIG, Make

pytest_plugins = ["tests.integrations.globus_near"]

MB = 1_000_000


def add(a: Any, b: Any = 0) -> Any:
    return a + b


def length(x: Any, y: Any = None) -> int:
    return len(x)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


# Arguments


def test_a_bad_argument_among_good_ones(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    array = np.ones(BIG)
    before = [ex.submit(add, array, n) for n in range(3)]
    bad = ex.submit(length, array, y=[{"a": Unpicklable()}])
    after = [ex.submit(add, array, n) for n in range(3)]
    assert isinstance(bad, ComputeFuture)
    error = bad.exception()  # at once
    assert isinstance(error, ArgumentSerializationError)
    assert error.task == "length"
    assert error.argument == "y[0]['a']"
    assert "not me" in str(error)
    assert [float(f.result(PATIENCE)[0]) for f in before + after] == [1, 2, 3, 1, 2, 3]
    del before, after, error


def test_a_bad_argument_in_a_map(ex: ProxyExecutor) -> None:
    results = ex.map(length, ["ab", Unpicklable(), "c"])
    assert next(results) == 2
    with pytest.raises(ArgumentSerializationError, match="'length'"):
        next(results)


def test_dill_still_takes_what_only_dill_takes(ex: ProxyExecutor) -> None:
    lock = threading.Lock()
    assert ex.submit(length, [lock, "x" * BIG]).result(PATIENCE) == 2


def test_arguments_of_a_strange_type(ex: ProxyExecutor) -> None:
    function_id = ex.register_function(length)
    assert ex.submit_to_registered_function(function_id, ["abc"]).result(PATIENCE) == 3  # type: ignore[arg-type]
    for args, kwargs in ((3, None), ((), 3), ((), {3: 4})):
        future = ex.submit_to_registered_function(function_id, args, kwargs)  # type: ignore[arg-type]
        assert isinstance(future.exception(PATIENCE), TypeError)


def test_a_full_store(make: Make) -> None:
    with (
        Store("small", SharedMemoryConnector(quota=10_000, spill=False), cache_size=0) as small,
        make(store=small, policy=Policy(on_full="raise")) as executor,
    ):
        future = executor.submit(length, "x" * BIG * 8)
        assert isinstance(future.exception(PATIENCE), StorageFullError)
        assert executor.submit(length, "x").result(PATIENCE) == 1


# Requests


def test_batches_are_split_by_bytes(near: InProcess, make: Make) -> None:
    executor = make(policy=Policy(args=False))
    before = near.traffic().submissions
    texts = ["x" * 200_000] * 100
    assert list(executor.map(length, texts)) == [200_000] * 100
    assert near.traffic().submissions - before >= 6


def test_a_burst_of_large_arguments(near: InProcess, ex: ProxyExecutor) -> None:
    before = near.traffic()
    futures = [ex.submit(length, b"x" * 200_000) for _ in range(100)]
    assert [future.result(PATIENCE) for future in futures] == [200_000] * 100
    assert near.traffic().submitted_bytes - before.submitted_bytes < 200_000


def test_an_oversized_payload(make: Make, near_store: Store[Any]) -> None:
    executor = make(threshold="100 MB")
    good = executor.submit(length, "x")
    bad = executor.submit(length, "x" * 11 * MB)
    after = executor.submit(length, "xy")
    error = bad.exception(PATIENCE)
    assert isinstance(error, PayloadTooLargeError)
    assert error.task == "length"
    assert error.nbytes > 11 * MB
    assert "Lower the threshold" in str(error)
    assert [good.result(PATIENCE), after.result(PATIENCE)] == [1, 2]
    again = pickle.loads(pickle.dumps(error))
    assert (again.task, again.nbytes, again.limit) == (error.task, error.nbytes, error.limit)
    assert isinstance(error, GlobusComputeError)
    assert isinstance(error, ProxyStoreError)
    assert isinstance(error, ValueError)


def test_an_oversized_payload_of_an_unknown_function(near: InProcess, make: Make) -> None:
    executor = make(serializer=ComputeSerializer(strategy_data=JSONData))
    elsewhere = near.client().register_function(length)
    error = executor.submit_to_registered_function(elsewhere, ("x" * 11 * MB,)).exception(PATIENCE)
    assert isinstance(error, PayloadTooLargeError)
    assert "auto_proxy" in str(error)


def test_a_batch_that_the_service_finds_too_large(near: InProcess, make: Make) -> None:
    near.set_limit(100_000)
    executor = make(policy=Policy(args=False))
    texts = ["x" * 30_000] * 10
    assert list(executor.map(length, texts)) == [30_000] * 10
    alone = executor.submit(length, "x" * 200_000)
    error = alone.exception(PATIENCE)
    assert isinstance(error, PayloadTooLargeError)
    assert isinstance(error.__cause__, globus_sdk.GlobusAPIError)
    assert executor.submit(length, "x").result(PATIENCE) == 1


def test_a_failed_request_fails_its_batch(near: InProcess, ex: ProxyExecutor) -> None:
    assert ex.submit(length, "x").result(PATIENCE) == 1
    near.fault("/submit", 500, times=2)
    failed = ex.submit(add, np.ones(BIG), 1)
    assert isinstance(failed.exception(PATIENCE), globus_sdk.GlobusAPIError)
    near.clear_faults()
    assert ex.submit(length, "xy").result(PATIENCE) == 2
    assert ex._task_submitter.is_alive()


def test_one_refused_function(near: InProcess, ex: ProxyExecutor) -> None:
    wait([ex.submit(length, "x")], PATIENCE)
    refused = ex.register_function(add)
    near.fault("/submit", 403, times=10, contains=refused)
    pairs = [(ex.submit(length, "x"), ex.submit(add, 1, 2)) for _ in range(5)]
    for good, bad in pairs:
        assert good.result(PATIENCE) == 1
        assert isinstance(bad.exception(PATIENCE), globus_sdk.GlobusAPIError)


def test_a_failed_registration(near: InProcess, ex: ProxyExecutor) -> None:
    good = ex.submit(length, "x")
    near.fault("/functions", 403)
    bad = ex.submit(add, np.ones(BIG), 1)
    assert isinstance(bad.exception(), globus_sdk.GlobusAPIError)
    assert good.result(PATIENCE) == 1
    assert float(ex.submit(add, np.ones(BIG), 1).result(PATIENCE)[0]) == 2  # now it works
    near.fault("/functions", 403)
    with pytest.raises(globus_sdk.GlobusAPIError):
        ex.register_source_code("def f(): pass", "f")
    near.fault("/functions", 403)
    with pytest.raises(globus_sdk.GlobusAPIError):
        ex.register_function(test_one_refused_function)
    assert ex.submit(length, "xy").result(PATIENCE) == 2


def test_code_that_is_too_large(near: InProcess, ex: ProxyExecutor) -> None:
    near.fault("/functions", 413)
    error = ex.submit(add, 1).exception()
    assert isinstance(error, PayloadTooLargeError)
    assert "closure" in str(error)
    assert isinstance(error.__cause__, globus_sdk.GlobusAPIError)
    assert ex.submit(add, 1).result(PATIENCE) == 1


def test_threads_register_a_function_once(near: InProcess, ex: ProxyExecutor) -> None:
    near.fault("/functions", delay=0.2)
    meeting = threading.Barrier(4)

    def submit(n: int) -> Any:
        meeting.wait()
        return ex.submit(length, "x" * n).result(PATIENCE)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(submit, range(4))) == [0, 1, 2, 3]


def test_a_result_that_cannot_be_made(ex: ProxyExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(value: Any) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(ex._proxy_calls, "result", broken)
    with pytest.raises(RuntimeError, match="odd"):
        ex.submit(length, "x").result(PATIENCE)


def test_a_function_that_cannot_be_pickled(ex: ProxyExecutor) -> None:
    file = io.TextIOWrapper(io.BytesIO())

    def keeps_a_file(x: Any) -> Any:
        return file, Unpicklable

    keeps_a_file.thing = Unpicklable()  # type: ignore[attr-defined]
    assert ex.submit(keeps_a_file, 1).exception(PATIENCE) is not None
    assert ex.submit(length, "x").result(PATIENCE) == 1


def test_no_endpoint(near: InProcess, near_store: Store[Any]) -> None:
    executor = ProxyExecutor(None, near.client(), store=near_store)
    with executor, pytest.raises(ValueError, match="endpoint_id"):
        executor.submit(length, "x" * BIG)
    assert left(near_store) == 0


def test_cancelled_before_it_was_sent(near: InProcess, ex: ProxyExecutor) -> None:
    before = near.traffic().tasks
    near.fault("/submit", delay=0.3)
    first = ex.submit(length, "x")
    assert wait_until(lambda: ex._tasks_to_send.empty())
    second = ex.submit(length, "x" * BIG)
    assert second.cancel()
    assert wait([second], 1).done
    assert first.result(PATIENCE) == 1
    assert ex.submit(length, "xy").result(PATIENCE) == 2
    assert near.traffic().tasks - before == 2


def test_cancelled_at_shutdown(near: InProcess, make: Make, near_store: Store[Any]) -> None:
    executor = make()
    executor.submit(length, "x").result(PATIENCE)
    near.fault("/submit", delay=0.3)
    first = executor.submit(length, "x")
    assert wait_until(lambda: executor._tasks_to_send.empty())
    rest = [executor.submit(length, "x" * BIG * 8) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert first.result(PATIENCE) == 1
    assert all(future.cancelled() for future in rest)
    assert left(near_store) == 0


# Results


def test_a_result_that_cannot_travel(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    def bad() -> Any:
        return ["x" * 200_000, (n for n in range(3))]

    def large() -> Any:
        return "x"

    error = ex.submit(bad).exception(PATIENCE)
    assert error is not None
    assert ex.submit(large).result(PATIENCE) == "x"
    assert left(near_store) == 0


def test_large_results_by_value_fail_as_ever(make: Make) -> None:
    def large() -> Any:
        return "x" * 11_000_000

    executor = make(policy=Policy(results=False))
    with pytest.raises(TaskExecutionFailed, match=MaxResultSizeExceeded.__name__):
        executor.submit(large).result(PATIENCE)


def test_an_exception_passes_unchanged(ex: ProxyExecutor) -> None:
    def fail(x: Any) -> Any:
        raise LookupError("no luck", len(x))

    with pytest.raises(TaskExecutionFailed, match=r"LookupError: \('no luck', 160000\)"):
        ex.submit(fail, b"x" * 160_000).result(PATIENCE)


# Workers


@pytest.mark.parametrize("name", ["proxystore_core", "proxystore_globus_compute.worker"])
def test_workers_without_the_package(name: str) -> None:
    told = f"Traceback ...\nModuleNotFoundError: No module named '{name}'\n"
    original = TaskExecutionFailed(told)
    error = explained(original, "site")
    assert isinstance(error, WorkerSetupError)
    assert error.module == name
    assert error.executor == "site"
    assert error.__cause__ is original
    assert f"proxystore-core=={__version__}" in str(error)
    assert "worker_init" in str(error)
    assert "requirements" in str(error)


def test_other_errors_are_left_alone() -> None:
    for told in ("No module named 'numpy'", "dill version skew", ""):
        error = TaskExecutionFailed(told)
        assert explained(error, "") is error
    plain = ValueError("No module named 'proxystore_core'")
    assert explained(plain, "") is plain
    assert explained(None, "") is None
    future = ProxyFuture()
    future.set_exception(plain)
    assert future.exception() is plain


def test_results_that_nobody_can_read(ex: ProxyExecutor) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            return _explode, ()

    def odd() -> Any:
        return Odd()

    assert isinstance(ex.submit(odd).exception(PATIENCE), Exception)
    assert ex.submit(length, "x").result(PATIENCE) == 1


def _explode() -> None:
    raise OSError("not here")
