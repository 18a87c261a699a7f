"""Large objects through real endpoints: the client's way, the worker's, and back."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from globus_compute_sdk import MPIFunction, ShellFunction
from globus_compute_sdk.serialize import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    ComputeSerializer,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JSONData,
    PureSourceDill,
    PureSourceTextInspect,
)
from proxystore_globus_compute import ProxyClient, ProxyExecutor, auto_proxy

from examples.compute_stack.endpoints import CoreEndpoint, UserEndpoint
from examples.compute_stack.stack import Stack
from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left, portable, wait_for_none

pytest_plugins = ["tests.integrations.globus_fixtures"]

MB = 1_000_000
SMALL = 60_000  # bytes that a task may take through the broker, with its function
Ours = Callable[..., AbstractContextManager[ProxyExecutor]]


@pytest.fixture
def ours(stack: Stack, store: Store[Any]) -> Ours:
    """Return what makes executors of ours, of an endpoint."""

    def make(endpoint: Any, **options: Any) -> AbstractContextManager[ProxyExecutor]:
        return stack.executor(endpoint.id, ProxyExecutor, store=store, **options)

    return make


@pytest.fixture
def ex(ours: Ours, threads: UserEndpoint) -> Iterator[ProxyExecutor]:
    """Return an executor of ours, on the endpoint that is fast."""
    with ours(threads) as made:
        yield made


@portable
def twice(array: Any) -> Any:
    import numpy as np

    if type(array) is not np.ndarray:  # pytest rewrites assertions
        raise TypeError(type(array))
    return np.concatenate([array, array])


@portable
def total(values: Any) -> float:
    return float(sum(values))


def plain(values: Any) -> Any:
    """Of source text: it stands at column 0 and uses no name of this module."""
    if type(values) is not list:
        raise TypeError(type(values))
    return [*values, len(values)]


# The whole path


def test_20_mb_in_and_40_mb_out(
    stack: Stack, core: CoreEndpoint, ours: Ours, store: Store[Any]
) -> None:
    array = np.arange(20 * MB // 8, dtype=float)
    before = stack.traffic()
    with ours(core) as executor:
        result = executor.submit(twice, array).result(PATIENCE)
        assert is_proxy(result)
        assert result.nbytes == 40 * MB
        assert not is_resolved(result)
        assert left(store) == 1  # the argument is gone
        again = executor.submit(twice, result).result(PATIENCE)
        assert not is_resolved(result)  # it went from worker to worker
        assert np.array_equal(result, np.concatenate([array, array]))
        assert again.shape == (4 * array.size,)
        after = stack.traffic()
        assert after.tasks - before.tasks == 2
        assert after.broker_bytes - before.broker_bytes < 2 * SMALL
        assert executor.stats().evicted == 1
        del result
        assert wait_until(lambda: left(store) == 1)
    assert again[-1] == array[-1]  # what is held outlives the executor


def test_users_configure_endpoints(core: CoreEndpoint, ours: Ours, tmp_path: Path) -> None:
    before = len(core.pids())
    with ours(core, user_endpoint_config={"threads": True}) as executor:
        assert executor.submit(twice, np.ones(MB)).result(PATIENCE).nbytes == 16 * MB
    assert len(core.pids()) == before + 1


def test_a_burst(stack: Stack, htex: UserEndpoint, ours: Ours, store: Store[Any]) -> None:
    # Plain, it is refused: 27 MB in one submission.
    arrays = [np.full(200_000, n, np.uint8) for n in range(100)]
    before = stack.traffic()
    with ours(htex) as executor:
        futures = [executor.submit(twice, array) for array in arrays]
        for n, future in enumerate(futures):
            result = future.result(PATIENCE)
            assert result.shape == (400_000,)
            assert result[0] == result[-1] == n
        after = stack.traffic()
        assert after.tasks - before.tasks == 100
        assert after.submissions - before.submissions < 100
        assert after.broker_bytes - before.broker_bytes < 100 * SMALL
        del futures, future, result
        assert wait_for_none(store)


def test_map(htex: UserEndpoint, ours: Ours) -> None:
    arrays = [np.full(MB, n, np.uint8) for n in range(6)]
    with ours(htex) as executor:
        sizes = [result.nbytes for result in executor.map(twice, arrays, timeout=PATIENCE)]
        sums = list(executor.map(total, [[n] * 9 for n in range(6)], chunksize=4))
    assert sizes == [2 * MB] * 6
    assert sums == [9.0 * n for n in range(6)]


def test_nested_arguments_and_results(ex: ProxyExecutor, store: Store[Any]) -> None:
    @portable
    def split(data: dict[str, Any], *, at: int) -> Any:
        array = data["values"][0]
        return {"parts": [array[:at], array[at:]], "at": at}

    array = np.arange(MB)
    result = ex.submit(split, {"values": [array, "small"]}, at=MB // 2).result(PATIENCE)
    assert result["at"] == MB // 2
    assert [is_proxy(part) for part in result["parts"]] == [True, True]
    assert left(store) == 2
    assert np.array_equal(np.concatenate(result["parts"]), array)


# Forms


def test_registered_functions(ex: ProxyExecutor) -> None:
    function_id = ex.register_function(twice)
    array = np.ones(MB)
    result = ex.submit_to_registered_function(function_id, (array,)).result(PATIENCE)
    assert result.nbytes == 16 * MB


def test_source_code(ex: ProxyExecutor) -> None:
    source = "def thrice(array):\n    return [array, array * 2, type(array).__name__]\n"
    function_id = ex.register_source_code(source, "thrice")
    future = ex.submit_to_registered_function(function_id, (np.ones(MB),))
    one, two, name = future.result(PATIENCE)
    assert name == "ndarray"
    assert float(one.sum() + two.sum()) == 3 * MB


@pytest.mark.parametrize("kind", [ShellFunction, MPIFunction])
def test_shell_functions_are_left_alone(ex: ProxyExecutor, kind: type[ShellFunction]) -> None:
    # Where no MPI is started, that kind runs the bare command.
    counted = kind("printf '%s' '{text}' | wc -c")
    result = ex.submit(counted, text="x" * 100_000).result(PATIENCE)  # over the threshold
    assert result.returncode == 0
    assert result.stdout.strip() == "100000"
    assert ex.stats().puts == 0


def test_clients(stack: Stack, threads: UserEndpoint, store: Store[Any]) -> None:
    with stack.client(ProxyClient, store=store) as client:
        function_id = client.register_function(twice)
        batch = client.create_batch()
        for n in range(3):
            batch.add(function_id, (np.full(MB, n, np.uint8),))
        task_ids = client.batch_run(threads.id, batch)["tasks"][function_id]
        assert client.stats().puts == 3

        def done() -> bool:
            states = client.get_batch_result(task_ids)
            return all(not state["pending"] for state in states.values())

        assert wait_until(done, PATIENCE)
        del batch  # it could be run again
        results = [client.get_result(task_id) for task_id in task_ids]
        assert [int(result[-1]) for result in results] == [0, 1, 2]
        assert left(store) == 3  # results only


def test_decorated_functions_with_the_plain_sdk(
    stack: Stack, htex: UserEndpoint, store: Store[Any]
) -> None:
    decorated = auto_proxy(twice, store=store)
    before = stack.traffic()
    with stack.executor(htex.id) as executor:
        result = executor.submit(decorated, np.ones(MB // 2)).result(PATIENCE)
    assert is_proxy(result)
    assert result.nbytes == 8 * MB
    traffic = stack.traffic()
    assert traffic.result_bytes - before.result_bytes < SMALL
    assert np.array_equal(decorated(np.ones(2)), np.ones(4))  # here it is the plain function
    del result


# Serializers

CODE = [
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    PureSourceTextInspect,
    PureSourceDill,
    CombinedCode,
    AllCodeStrategies,
]
DATA = [DillDataBase64, JSONData, AllDataStrategies]


@pytest.mark.parametrize("data", DATA)
def test_serialization_strategies(ours: Ours, threads: UserEndpoint, data: Any) -> None:
    values = list(range(20_000))
    with ours(threads) as executor:
        futures = []
        for code in CODE:
            executor.serializer = ComputeSerializer(strategy_code=code(), strategy_data=data())
            futures.append(executor.submit(copied(plain, code), values))
        results = [future.result(PATIENCE) for future in futures]
    assert [list(result) for result in results] == [[*values, 20_000]] * len(CODE)


def copied(function: Any, code: type) -> Any:
    """Return another function of the same source, as one is serialized but once."""
    if code is DillCode:  # it would name the module
        return portable(function)
    return types.FunctionType(function.__code__, function.__globals__)


def test_results_in_json(ours: Ours, threads: UserEndpoint) -> None:
    with ours(threads, result_serializers=[JSONData()]) as executor:
        result = executor.submit(twice, np.ones(MB)).result(PATIENCE)
    assert is_proxy(result)
    assert result.shape == (2 * MB,)


def test_an_endpoint_that_allows_some_serializers(stack: Stack, ours: Ours) -> None:
    names = ["PureSourceTextInspect", "JSONData"]
    allowed = [f"globus_compute_sdk.serialize.{name}" for name in names]
    strict = ComputeSerializer(strategy_code=PureSourceTextInspect(), strategy_data=JSONData())
    with closing(stack.user_endpoint("threads", allowed_serializers=allowed)) as endpoint:
        with ours(endpoint, serializer=strict) as executor:
            values = list(range(50_000))
            assert executor.submit(plain, values).result(PATIENCE)[-1] == 50_000
        with ours(endpoint) as executor:
            error = executor.submit(twice, np.ones(MB)).exception(PATIENCE)
    assert "allow" in str(error)


# Parsl over ours


def test_parsl_over_ours(
    stack: Stack, htex: UserEndpoint, store: Store[Any], tmp_path: Path
) -> None:
    import parsl
    from parsl.config import Config
    from parsl.executors import GlobusComputeExecutor

    with stack.executor(htex.id, ProxyExecutor, store=store) as executor:
        config = Config(
            executors=[GlobusComputeExecutor(executor, label="globus")],
            run_dir=str(tmp_path),
            strategy="none",
            initialize_logging=False,
        )
        before = stack.traffic()
        with parsl.load(config):
            app = parsl.python_app(twice)
            result = app(app(np.ones(MB))).result(PATIENCE)
            assert result.nbytes == 32 * MB
            del result
        assert stack.traffic().broker_bytes - before.broker_bytes < 2 * SMALL
