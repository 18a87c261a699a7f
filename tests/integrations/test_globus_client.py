"""The client, for those who work without an executor."""

from __future__ import annotations

import contextlib
import gc
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import globus_sdk
import numpy as np
import pytest
from globus_compute_sdk import Client
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
from globus_compute_sdk.serialize import (
    ComputeSerializer,
    DillDataBase64,
    JSONData,
    SerializationStrategy,
)
from proxystore_globus_compute import RESULT_TTL, ProxyClient, ProxyExecutor

from examples.compute_stack.in_process import InProcess
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import (
    ArgumentSerializationError,
    ExecutorConfigError,
    WorkerSetupError,
)
from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left, wait_for_none
from tests.integrations.globus_near import BIG, THRESHOLD

pytest_plugins = ["tests.integrations.globus_near"]


def add(a: Any, b: Any = 0) -> Any:
    return a + b


def fail(x: Any) -> None:
    raise LookupError("no luck")


def no_package(x: Any) -> None:
    raise ModuleNotFoundError("No module named 'proxystore_core'")


@pytest.fixture
def client(near: InProcess, near_store: Store[Any]) -> Iterator[ProxyClient]:
    with near.client(ProxyClient, store=near_store, threshold=THRESHOLD) as made:
        yield made


def result_of(client: Any, task_id: Any) -> Any:
    found: list[Any] = []

    def got() -> bool:
        with contextlib.suppress(TaskPending):
            found.append(client.get_result(task_id))
        return bool(found)

    assert wait_until(got, PATIENCE)
    return found[0]


def test_a_run(near: InProcess, client: ProxyClient, near_store: Store[Any]) -> None:
    assert isinstance(client, Client)
    function_id = client.register_function(add)
    before = near.traffic()
    task_id = client.run(np.ones(BIG), b=1, endpoint_id=near.id, function_id=function_id)
    result = result_of(client, task_id)
    after = near.traffic()
    assert after.task_bytes + after.result_bytes - before.task_bytes - before.result_bytes < 4000
    assert is_proxy(result)
    assert not is_resolved(result)
    assert left(near_store) == 1  # the arguments are gone
    assert float(result[0]) == 2
    assert client.get_result(task_id) is result  # as with the SDK's
    small = client.run(1, 2, endpoint_id=near.id, function_id=function_id)
    assert result_of(client, small) == 3
    again = client.run(result, result, endpoint_id=near.id, function_id=function_id)
    assert float(result_of(client, again)[0]) == 4
    client.forget(task_id, again)
    del result
    assert wait_for_none(near_store)
    assert client.stats().puts == 1


def test_a_batch(near: InProcess, client: ProxyClient, near_store: Store[Any]) -> None:
    function_id = client.register_function(add)
    other = client.register_function(fail)
    batch = client.create_batch()
    for n in range(5):
        batch.add(function_id, (np.full(BIG, n),), {"b": 1})
    with pytest.raises(ArgumentSerializationError, match="'add'"):
        batch.add(function_id, ((n for n in ()),))
    batch.add(uuid.UUID(other), [np.ones(BIG)])
    assert len(batch) == 6
    assert left(near_store) == 6
    answer = client.batch_run(near.id, batch)
    ids = answer["tasks"][function_id]

    def done() -> bool:
        return not any(t["pending"] for t in client.get_batch_result(ids).values())

    assert wait_until(done, PATIENCE)
    results = client.get_batch_result(ids)
    assert [float(results[i]["result"][0]) for i in ids] == [1, 2, 3, 4, 5]
    with pytest.raises(TaskExecutionFailed, match="no luck"):
        result_of(client, answer["tasks"][other][0])
    results.clear()
    assert left(near_store) == 11  # a batch may be run again
    del batch
    assert left(near_store) == 5
    client.forget(*ids)
    assert wait_for_none(near_store)


def test_a_refused_batch_may_be_sent_again(near: InProcess, client: ProxyClient) -> None:
    function_id = client.register_function(add)
    batch = client.create_batch()
    batch.add(function_id, (np.ones(BIG),))
    near.fault("/submit", 403)
    with pytest.raises(globus_sdk.GlobusAPIError):
        client.batch_run(near.id, batch)
    task_id = client.batch_run(near.id, batch)["tasks"][function_id][0]
    assert float(result_of(client, task_id)[0]) == 1
    with pytest.raises(TypeError, match="args must be"):
        batch.add(function_id, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kwargs must be"):
        batch.add(function_id, (), 3)  # type: ignore[arg-type]


def test_json(near: InProcess, client: ProxyClient) -> None:
    client.fx_serializer = ComputeSerializer(strategy_data=JSONData)
    function_id = client.register_function(add)
    task_id = client.run("x" * BIG, "y", endpoint_id=near.id, function_id=function_id)
    assert len(result_of(client, task_id)) == BIG + 1


def test_source_code(near: InProcess, client: ProxyClient) -> None:
    function_id = client.register_source_code("def twice(x):\n    return x * 2", "twice")
    task_id = client.run("x" * BIG, endpoint_id=near.id, function_id=function_id)
    result = result_of(client, task_id)
    assert is_proxy(result)
    assert len(result) == 2 * BIG


def test_workers_without_the_package(near: InProcess, client: ProxyClient) -> None:
    function_id = client.register_function(no_package)
    task_id = client.run(1, endpoint_id=near.id, function_id=function_id)
    with pytest.raises(WorkerSetupError, match="worker_init") as caught:
        result_of(client, task_id)
    assert isinstance(caught.value.__cause__, TaskExecutionFailed)


def test_closing_brings_home(near: InProcess, near_store: Store[Any]) -> None:
    with near.client(ProxyClient, store=near_store, threshold=THRESHOLD) as client:
        function_id = client.register_function(add)
        result = result_of(
            client, client.run(np.ones(BIG), endpoint_id=near.id, function_id=function_id)
        )
        client.run(np.ones(BIG), endpoint_id=near.id, function_id=client.register_function(kind))
    assert float(result.sum()) == BIG


@pytest.mark.parametrize("data", [DillDataBase64, JSONData])
def test_results_got_after_the_end(
    near: InProcess, near_store: Store[Any], data: type[SerializationStrategy]
) -> None:
    client = near.client(ProxyClient, store=near_store, threshold=THRESHOLD)
    results = [f"{data.__module__}.{data.__name__}"]
    batch = client.create_batch(result_serializers=results)
    function_id = client.register_function(make_text)
    batch.add(function_id, (BIG,))
    task_id = client.batch_run(near.id, batch)["tasks"][function_id][0]
    client.close()
    client.close()
    assert len(result_of(client, task_id)) == BIG
    client.forget(task_id)
    assert wait_for_none(near_store)


def make_text(n: int) -> str:
    return "x" * n


def kind(x: Any) -> str:
    return type(x).__name__


def test_another_client_gets_the_results(near: InProcess, tmp_path: Path) -> None:
    def files(**options: Any) -> Store[Any]:
        connector = FileConnector(str(tmp_path / "objects"), clear=False, **options)
        return Store("lasting", connector, cache_size=0)

    for close in (True, False):
        with files(ttl=RESULT_TTL) as store:
            gate.clear()
            first = near.client(ProxyClient, store=store, threshold=THRESHOLD)
            function_id = first.register_function(at_gate)
            task_id = first.run(np.ones(BIG), endpoint_id=near.id, function_id=function_id)
            if close:
                first.close()
            del first
            gc.collect()
            assert left(store) == 1  # the argument of a task that runs
            gate.set()
        with (
            files(ttl=RESULT_TTL) as store,
            near.client(ProxyClient, store=store, threshold=THRESHOLD) as second,
        ):
            assert float(result_of(second, task_id)[0]) == 1
            second.forget(task_id)
            for key in store.keys():
                assert "t" in key.filename
                store.evict(key)
            with near.client(ProxyClient, store=store, threshold=THRESHOLD) as third:
                batch = third.create_batch()
                batch.add(function_id, (np.ones(BIG),))
                del batch
                assert left(store) == 0


gate = threading.Event()


def at_gate(x: Any) -> Any:
    gate.wait(PATIENCE)
    return x + 0


def test_with_an_executor(near: InProcess, client: ProxyClient, near_store: Store[Any]) -> None:
    options = {"store": near_store, "threshold": THRESHOLD, "client": client}
    with near.executor(ProxyExecutor, **options) as executor:
        assert float(executor.submit(add, np.ones(BIG), 1).result(PATIENCE)[0]) == 2
    assert client.stats().puts == 0
    assert not client._proxy_leases
    assert executor.stats().puts == 1


def test_a_store_is_needed(near: InProcess) -> None:
    with pytest.raises(ExecutorConfigError, match="ProxyClient needs a store"):
        near.client(ProxyClient)
