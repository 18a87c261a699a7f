"""What goes wrong goes wrong for one task alone, and nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import globus_sdk
import numpy as np
import pytest
from globus_compute_sdk.errors import TaskExecutionFailed
from proxystore_globus_compute import PayloadTooLargeError, ProxyExecutor

from examples.compute_stack.endpoints import UserEndpoint
from examples.compute_stack.stack import Stack
from proxystore_core import __version__
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import ArgumentSerializationError, WorkerSetupError
from proxystore_core.proxy import is_proxy
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left, portable, wait_for_none

pytest_plugins = ["tests.integrations.globus_fixtures"]

MB = 1_000_000
ROOT = Path(__file__).parents[2]
Ours = Callable[..., AbstractContextManager[ProxyExecutor]]


@pytest.fixture
def ours(stack: Stack, store: Store[Any]) -> Iterator[Ours]:
    """Return what makes executors of ours; faults that did not happen are forgotten."""

    def make(endpoint: Any, **options: Any) -> AbstractContextManager[ProxyExecutor]:
        client = stack.client(retries=0)
        options = {"client": client, "store": store, **options}
        return stack.executor(endpoint.id, ProxyExecutor, **options)

    yield make
    stack.clear_faults()
    stack.set_limit()


@portable
def twice(array: Any, *_: Any) -> Any:
    import numpy as np

    return np.concatenate([array, array])


@portable
def other(array: Any) -> float:
    return float(array.sum())


# Workers


def test_a_task_whose_worker_is_killed_runs_again(
    htex: UserEndpoint, ours: Ours, tmp_path: Path
) -> None:
    @portable
    def fragile(array: Any, mark: str) -> Any:
        import os
        import signal
        from pathlib import Path

        first = float(array.sum())
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return array + first

    with ours(htex) as executor:
        result = executor.submit(fragile, np.ones(MB), str(tmp_path / "mark")).result(PATIENCE)
        assert (tmp_path / "mark").exists()
        assert is_proxy(result)
        assert result[0] == MB + 1


def test_exceptions_pass_unchanged(threads: UserEndpoint, ours: Ours) -> None:
    @portable
    def failing(array: Any) -> None:
        raise LookupError(f"nothing among {array.size}")

    with ours(threads) as executor:
        error = executor.submit(failing, np.ones(MB)).exception(PATIENCE)
    assert isinstance(error, TaskExecutionFailed)
    assert f"LookupError: nothing among {MB}" in str(error)


def test_workers_without_the_package(stack: Stack, ours: Ours, tmp_path: Path) -> None:
    # As in an environment where nobody installed it: the rest of that one is there.
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0].startswith("proxystore"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        """)
    )
    endpoint = stack.user_endpoint("threads", environment={"PYTHONPATH": str(tmp_path)})
    with closing(endpoint), ours(endpoint) as executor:
        futures = [executor.submit(twice, value) for value in (np.ones(MB), np.ones(1))]
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, WorkerSetupError)
            assert f"worker_init: pip install 'proxystore-core=={__version__}'" in str(error)
            assert "requirements" in str(error)
            assert isinstance(error.__cause__, TaskExecutionFailed)


# Arguments


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not for travelling")


def test_an_unpicklable_argument_among_good_ones(
    threads: UserEndpoint, ours: Ours, store: Store[Any]
) -> None:
    with ours(threads) as executor:
        futures = [
            executor.submit(twice, np.ones(MB), Unpicklable() if n == 2 else n) for n in range(6)
        ]
        error = futures.pop(2).exception(PATIENCE)
        assert isinstance(error, ArgumentSerializationError)
        assert "args[1] of task 'twice'" in str(error)
        assert "Unpicklable" in str(error)
        assert [future.result(PATIENCE).nbytes for future in futures] == [16 * MB] * 5
        assert executor.submit(other, np.ones(MB)).result(PATIENCE) == MB
        del futures
        assert wait_for_none(store)


def test_locks_among_good_ones(threads: UserEndpoint, ours: Ours) -> None:
    with ours(threads) as executor:
        good = executor.submit(twice, np.ones(MB))
        bad = executor.submit(twice, np.ones(MB), threading.RLock())
        also_good = executor.submit(twice, np.ones(MB))
        assert bad.exception(PATIENCE) is not None or bad.result().nbytes == 16 * MB
        assert good.result(PATIENCE).nbytes == also_good.result(PATIENCE).nbytes == 16 * MB


# The service


def test_a_payload_that_is_too_large(threads: UserEndpoint, ours: Ours) -> None:
    with ours(threads, threshold="100 MB") as executor:
        big, small = np.ones(12 * MB // 8), np.ones(10)
        futures = [executor.submit(twice, value) for value in (small, big, small)]
        error = futures[1].exception(PATIENCE)
        assert isinstance(error, PayloadTooLargeError)
        assert "threshold" in str(error)
        for future in (futures[0], futures[2]):
            assert future.result(PATIENCE).shape == (20,)


def test_a_batch_that_is_too_large_is_split(
    stack: Stack, threads: UserEndpoint, ours: Ours
) -> None:
    stack.set_limit(100_000)
    with ours(threads) as executor:
        futures = [executor.submit(twice, np.ones(4_000)) for _ in range(8)]  # 8 of 43 kB
        assert [future.result(PATIENCE).shape for future in futures] == [(8_000,)] * 8
        alone = executor.submit(twice, np.ones(4_000), "x" * 49_000)
        error = alone.exception(PATIENCE)
        assert isinstance(error, PayloadTooLargeError)
        assert isinstance(error.__cause__, globus_sdk.GlobusAPIError)


def test_the_service_fails_once(
    stack: Stack, threads: UserEndpoint, ours: Ours, store: Store[Any]
) -> None:
    with ours(threads) as executor:
        executor.register_function(other)
        stack.fault("/submit", 500, message="out of order")
        error = executor.submit(other, np.ones(MB)).exception(PATIENCE)
        assert isinstance(error, globus_sdk.GlobusAPIError)
        assert "out of order" in str(error)
        assert wait_for_none(store)
        assert executor.submit(other, np.ones(MB)).result(PATIENCE) == MB


def test_the_service_is_slow(stack: Stack, threads: UserEndpoint, ours: Ours) -> None:
    with ours(threads) as executor:
        stack.fault("/submit", delay=1.0, times=1)
        futures = [executor.submit(other, np.full(MB, n)) for n in range(4)]
        assert [future.result(PATIENCE) for future in futures] == [n * MB for n in range(4)]


def test_a_refused_function(stack: Stack, threads: UserEndpoint, ours: Ours) -> None:
    with ours(threads) as executor:
        stack.fault("/v3/functions", 403, message="not this one", contains='"other"')
        good = executor.submit(twice, np.ones(MB))
        error = executor.submit(other, np.ones(MB)).exception(PATIENCE)
        assert isinstance(error, globus_sdk.GlobusAPIError)
        assert "not this one" in str(error)
        assert good.result(PATIENCE).nbytes == 16 * MB
        assert executor.submit(other, np.ones(MB)).result(PATIENCE) == MB  # it is tried again


def test_a_function_that_is_not_allowed(stack: Stack, ours: Ours) -> None:
    allowed = stack.client().register_function(other)
    endpoint = stack.user_endpoint("threads", config={"allowed_functions": [allowed]})
    with closing(endpoint), ours(endpoint) as executor:
        error = executor.submit(twice, np.ones(MB)).exception(PATIENCE)
        assert "not permitted" in str(error)
        # It was registered by somebody else, and gets a proxy that it takes for the array.
        assert executor.submit_to_registered_function(allowed, (np.ones(MB),)).result(PATIENCE)


# Clients that are gone

SUBMIT = """
import os
import sys
import uuid

import numpy as np
from proxystore_globus_compute import ProxyExecutor

from examples.compute_stack.clients import make_client
from proxystore_core import __version__
from proxystore_core.connectors.file import FileConnector
from proxystore_core.store import Store

def twice(array):
    import numpy as np
    return np.concatenate([array, array])

url, endpoint, group, directory = sys.argv[1:]
executor = ProxyExecutor(
    endpoint,
    client=make_client(url),
    task_group_id=uuid.UUID(group),
    store=Store("reload", FileConnector(directory)),
    api_burst_limit=8,
    api_burst_window_s=1,
)
futures = [executor.submit(twice, np.full(100_000, n)) for n in range(3)]
while not all(future.task_id for future in futures):
    pass
os._exit(0)  # as after a power cut
"""


def test_tasks_of_another_process(stack: Stack, threads: UserEndpoint, tmp_path: Path) -> None:
    group = uuid.uuid4()
    objects = tmp_path / "objects"
    subprocess.run(
        [sys.executable, "-c", SUBMIT, stack.url, threads.id, str(group), str(objects)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=PATIENCE,
    )
    with Store("reload", FileConnector(str(objects)), cache_size=0) as store:
        with stack.executor(
            threads.id, ProxyExecutor, store=store, task_group_id=group
        ) as executor:
            results = [future.result(PATIENCE) for future in executor.reload_tasks()]
            assert all(is_proxy(result) for result in results)
            assert sorted(int(result[-1]) for result in results) == [0, 1, 2]
            assert all(result.shape == (200_000,) for result in results)
            del results
        # Its arguments nobody can let go of.
        assert wait_until(lambda: left(store) == 3)


def test_cancelled_and_abandoned_tasks_leave_nothing(
    threads: UserEndpoint, ours: Ours, store: Store[Any]
) -> None:
    with ours(threads) as executor:
        futures = [executor.submit(twice, np.ones(MB)) for _ in range(5)]
        futures[3].cancel()
        del futures
        executor.shutdown(wait=True)
    assert wait_for_none(store)
