"""The local stack behaves as Globus Compute does, with the plain SDK."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import globus_sdk
import psutil
import pytest
from globus_compute_endpoint.engines import ProcessPoolEngine, ThreadPoolEngine
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
from globus_compute_sdk.serialize import ComputeSerializer, JSONData

from examples.compute_stack import broker, processes
from examples.compute_stack.endpoints import CoreEndpoint, UserEndpoint
from examples.compute_stack.in_process import InProcess
from examples.compute_stack.processes import Process, StackError
from examples.compute_stack.stack import Stack
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, portable

pytest_plugins = ["tests.integrations.globus_fixtures"]
ROOT = Path(__file__).parents[2]


@portable
def double(x: Any) -> Any:
    return x * 2


@portable
def worker() -> tuple[int, str]:
    import os

    return os.getpid(), os.environ["GC_TASK_UUID"]


@portable
def fail() -> None:
    raise LookupError("not here")


@pytest.fixture(params=[ThreadPoolEngine, ProcessPoolEngine])
def near(request: pytest.FixtureRequest) -> Iterator[InProcess]:
    with InProcess(request.param(max_workers=2)) as made:
        yield made


def result_of(client: Any, task_id: str) -> Any:
    found: list[Any] = []

    def got() -> bool:
        with contextlib.suppress(TaskPending):
            found.append(client.get_result(task_id))
        return bool(found)

    assert wait_until(got, PATIENCE)
    return found[0]


# In process


def test_tasks_run_in_process(near: InProcess) -> None:
    here = Path.cwd()
    with near.executor() as executor:
        futures = [executor.submit(double, n) for n in range(20)]
        assert [future.result(PATIENCE) for future in futures] == list(range(0, 40, 2))
        error = executor.submit(fail).exception(PATIENCE)
    assert isinstance(error, TaskExecutionFailed)
    assert "LookupError: not here" in str(error)
    near.close()
    assert Path.cwd() == here


def test_clients_in_process(near: InProcess) -> None:
    client = near.client()
    function_id = client.register_function(double)
    assert result_of(client, client.run(4, endpoint_id=near.id, function_id=function_id)) == 8
    with pytest.raises(globus_sdk.GlobusAPIError, match="could not be found"):
        client.run(4, endpoint_id=str(uuid.uuid4()), function_id=function_id)
    near.fault("/v3/functions", 403, contains="double")
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        client.register_function(double)
    assert refused.value.http_status == 403
    assert client.register_function(fail)


def test_traffic_is_counted_once() -> None:
    with InProcess(ThreadPoolEngine(max_workers=1)) as near, near.executor() as executor:
        assert len(executor.submit(double, b"x" * 1_000_000).result(PATIENCE)) == 2_000_000
        traffic = near.traffic()
    assert traffic.tasks == traffic.results == traffic.submissions == 1
    assert 1_330_000 < traffic.task_bytes < 1_390_000  # base64 of a pickle
    assert 2_660_000 < traffic.result_bytes < 2_780_000
    assert traffic.broker_bytes == traffic.task_bytes + traffic.result_bytes


# With HTTP, AMQP and an endpoint


def test_a_user_endpoint_runs_tasks(stack: Stack, threads: UserEndpoint) -> None:
    with stack.executor(threads.id) as executor:
        futures = [executor.submit(double, n) for n in range(20)]
        assert [future.result(PATIENCE) for future in futures] == list(range(0, 40, 2))
        error = executor.submit(fail).exception(PATIENCE)
        pid, task_id = executor.submit(worker).result(PATIENCE)
    assert "LookupError: not here" in str(error)
    assert pid == threads.pid
    assert uuid.UUID(task_id)
    assert stack.client().get_endpoint_status(threads.id)["status"] == "online"


def test_workers_run_tasks(stack: Stack, htex: UserEndpoint) -> None:
    with stack.executor(htex.id) as executor:
        pid, _ = executor.submit(worker).result(PATIENCE)
    assert pid in htex.pids()
    assert pid != htex.pid


def test_a_core_endpoint_starts_user_endpoints(stack: Stack, core: CoreEndpoint) -> None:
    assert stack.client().get_endpoint_metadata(core.id)["endpoint_version"]
    with stack.executor(core.id) as executor:
        pid, _ = executor.submit(worker).result(PATIENCE)
    assert pid in core.pids()


def test_a_user_endpoint_that_cannot_start_fails_its_tasks(
    stack: Stack, core: CoreEndpoint
) -> None:
    with stack.executor(core.id, user_endpoint_config={"broken": True}) as executor:
        error = executor.submit(double, 1).exception(PATIENCE)
    assert "'nobodys' is undefined" in str(error)


def test_source_and_batches_and_groups(stack: Stack, threads: UserEndpoint) -> None:
    client = stack.client()
    source = "def thrice(x):\n    return 3 * x\n"
    function_id = client.register_source_code(source, "thrice")
    assert client.get_function(function_id)["function_name"] == "thrice"
    group = uuid.uuid4()
    batch = client.create_batch(task_group_id=group)
    for n in range(3):
        batch.add(function_id, (n,))
    answer = client.batch_run(threads.id, batch)
    task_ids = answer["tasks"][function_id]
    assert answer["task_group_id"] == str(group)

    def done() -> bool:
        states = client.get_batch_result(task_ids)
        return all(not state["pending"] for state in states.values())

    assert wait_until(done, PATIENCE)
    results = client.get_batch_result(task_ids)
    assert [results[name]["result"] for name in task_ids] == [0, 3, 6]
    with stack.executor(threads.id, task_group_id=group) as executor:
        reloaded = sorted(future.result(PATIENCE) for future in executor.reload_tasks())
    assert reloaded == [0, 3, 6]


def test_serializers_of_results(stack: Stack, threads: UserEndpoint) -> None:
    serializer = ComputeSerializer(strategy_data=JSONData())
    options = {"serializer": serializer, "result_serializers": [JSONData()]}
    with stack.executor(threads.id, **options) as executor:
        assert executor.submit(double, (1, 2)).result(PATIENCE) == [1, 2, 1, 2]


def test_large_submissions_are_refused(stack: Stack, threads: UserEndpoint) -> None:
    client = stack.client()
    function_id = client.register_function(double)
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        client.run(b"x" * 8_000_000, endpoint_id=threads.id, function_id=function_id)
    assert refused.value.http_status == 413
    task_id = client.run(b"x" * 7_600_000, endpoint_id=threads.id, function_id=function_id)
    with pytest.raises(TaskExecutionFailed, match="MaxResultSizeExceeded"):
        result_of(client, task_id)
    stack.set_limit(1000)
    try:
        with pytest.raises(globus_sdk.GlobusAPIError, match="exceeds 1000 bytes"):
            client.run(b"x" * 1000, endpoint_id=threads.id, function_id=function_id)
    finally:
        stack.set_limit()


def test_faults_happen_as_often_as_asked(stack: Stack, threads: UserEndpoint) -> None:
    client = stack.client(retries=0)
    function_id = client.register_function(double)
    stack.fault("/submit", 500, times=2, message="out of order")
    for _ in range(2):
        with pytest.raises(globus_sdk.GlobusAPIError, match="out of order"):
            client.run(1, endpoint_id=threads.id, function_id=function_id)
    assert result_of(client, client.run(1, endpoint_id=threads.id, function_id=function_id)) == 2
    stack.fault("/v3/functions", 403, contains="never_named")
    assert client.register_function(double)
    stack.clear_faults()


# Starting and ending


def test_what_it_started_is_gone(stack: Stack) -> None:
    endpoint = stack.user_endpoint("processes", workers=1)
    with stack.executor(endpoint.id) as executor:
        executor.submit(worker).result(PATIENCE)
    started = [psutil.Process(pid) for pid in endpoint.pids()]
    assert len(started) == 2
    endpoint.close()
    assert not any(map(processes.running, started))


def test_a_stack_ends_with_its_process(tmp_path: Path) -> None:
    # In a process of its own, which is killed.
    code = """
    import json, os, signal
    from examples.compute_stack.stack import Stack

    stack = Stack()
    endpoint = stack.user_endpoint("processes")
    with stack.executor(endpoint.id) as executor:
        assert executor.submit(pow, 2, 10).result(60) == 1024
    pids = {*stack.pids(), *endpoint.pids()}
    print(json.dumps([list(pids), str(stack._directory)]), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    """
    user = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    with user.stdout as pipe:
        pids, directory = json.loads(pipe.readline())
        started = list(map(psutil.Process, pids))
        user.kill()
        user.wait()
    assert len(started) >= 4
    assert Path(directory).parent == tmp_path
    assert wait_until(lambda: not any(map(processes.running, started)), PATIENCE)
    assert wait_until(lambda: not Path(directory).exists(), PATIENCE)


def test_the_stand_in_ends_with_its_parent(tmp_path: Path) -> None:
    port = tmp_path / "port"
    server = subprocess.Popen(
        [sys.executable, "-m", "examples.compute_stack.server", "amqp://127.0.0.1:1", str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, errors = server.communicate(timeout=PATIENCE)
    assert server.returncode
    assert b"AMQPConnectionError" in errors  # without a broker it does not even begin


def test_a_missing_broker_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(broker, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(broker.shutil, "which", lambda *_, **__: None)
    with pytest.raises(StackError, match="apt-get install --no-install-recommends rabbitmq-server"):
        Stack()


def test_a_program_that_ends_early_is_shown(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no', 'way')"]
    process = Process("it", command, dict(os.environ), tmp_path / "log", tmp_path)
    with pytest.raises(StackError, match="it ended early:\nno way"):
        process.wait_for(lambda: False)
    process.end()
    with pytest.raises(StackError, match="there is no program"):
        Process("it", ["no-such-program"], {}, tmp_path / "log", tmp_path)


def test_families_end_in_whatever_session(tmp_path: Path) -> None:
    child = (
        "import os, subprocess, sys, time; subprocess.Popen("
        "[sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
        "print('ready', flush=True); time.sleep(600)"
    )
    process = Process(
        "it", [sys.executable, "-c", child], dict(os.environ), tmp_path / "log", tmp_path
    )
    process.wait_for(lambda: "ready" in process.tail())
    first, second = (psutil.Process(pid) for pid in process.family())
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not process.alive)
    assert process.family() == [max(first.pid, second.pid)]  # known by its mark
    process.end()
    assert not processes.running(first)
    assert not processes.running(second)


def test_ports_are_free() -> None:
    ports = processes.free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))


def test_executors_do_not_share_a_group(stack: Stack, threads: UserEndpoint) -> None:
    usual = Executor._default_task_group_id
    with stack.executor(threads.id) as one, stack.executor(threads.id) as other:
        assert one.task_group_id != other.task_group_id
        assert one.submit(double, 1).result(PATIENCE) == 2
    assert Executor._default_task_group_id == usual
