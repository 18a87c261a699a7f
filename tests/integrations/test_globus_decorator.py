"""The decorator, for functions that anyone registers and calls."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import dill
import numpy as np
import pytest
from globus_compute_endpoint.engines import ProcessPoolEngine
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskPending
from proxystore_globus_compute import AutoProxied, ProxyExecutor, auto_proxy
from proxystore_globus_compute.worker import RemoteFunction

from examples.compute_stack.in_process import InProcess
from proxystore_core.autoproxy import Policy
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import ExecutorConfigError, ProxyResolveError
from proxystore_core.proxy import extract, is_proxy, is_resolved
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left, wait_for_none
from tests.integrations.globus_near import BIG, THRESHOLD, Make

pytest_plugins = ["tests.integrations.globus_near"]

ROOT = Path(__file__).parents[2]
shared = Store("decorated", SharedMemoryConnector(recycle=0), cache_size=0)


@auto_proxy(store=shared, threshold=THRESHOLD)
def ones(n: int, *, text: str = "") -> Any:
    """Make ones."""
    return np.ones(n)


@auto_proxy(store=shared, threshold=THRESHOLD)
def outer(n: int) -> Any:
    inner = ones(n)
    return type(inner).__name__, inner + ones(n)


@auto_proxy(store=shared, threshold=THRESHOLD)
def kinds(*args: Any) -> list[str]:
    return [type(value).__name__ for value in args]


def plain_sum(x: Any) -> float:
    return float(x.sum())


class Holder:
    @auto_proxy(store=shared)
    def method(self, x: int) -> tuple[str, int]:
        return type(self).__name__, x


@pytest.fixture(scope="module", autouse=True)
def opened() -> Iterator[None]:
    shared.evict(shared.put("x" * BIG))
    yield
    shared.close()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert wait_for_none(shared), f"{left(shared)} objects left"


@pytest.fixture
def plain(near: InProcess) -> Iterator[Executor]:
    with near.executor() as made:
        yield made


# Here


def test_a_local_call_is_the_function() -> None:
    assert isinstance(ones(BIG), np.ndarray)
    assert isinstance(ones.func(BIG), np.ndarray)
    assert outer(BIG)[0] == "ndarray"
    assert left(shared) == 0


def test_it_looks_like_the_function() -> None:
    assert isinstance(ones, AutoProxied)
    assert ones.__name__ == "ones"
    assert ones.__qualname__ == "ones"
    assert ones.__doc__ == "Make ones."
    assert ones.__module__ == __name__
    assert str(inspect.signature(ones)) == "(n: 'int', *, text: 'str' = '') -> 'Any'"
    assert inspect.getdoc(ones) == "Make ones."
    assert not hasattr(ones, "__wrapped__")
    assert "ones" in repr(ones)
    assert inspect.getdoc(outer) is None
    assert Holder().method(3) == ("Holder", 3)
    assert Holder.method.__name__ == "method"
    with pytest.raises(AttributeError, match="nothing"):
        _ = ones.nothing


def test_options_are_checked() -> None:
    with pytest.raises(ExecutorConfigError, match="auto_proxy needs a store"):
        auto_proxy()  # type: ignore[call-overload]
    with pytest.raises(ExecutorConfigError, match="threshold"):
        auto_proxy(store=shared, threshold="x")
    made = auto_proxy(plain_sum, store=shared, policy=Policy(threshold=1))
    assert made(np.ones(3)) == 3


@pytest.mark.parametrize("pickler", [pickle, cloudpickle, dill])
def test_it_pickles(pickler: Any) -> None:
    assert pickler.loads(pickler.dumps(ones)) is ones

    @auto_proxy(store=shared)
    def local(x: int) -> int:
        return x + 1

    again = pickler.loads(pickler.dumps(local))
    assert isinstance(again, AutoProxied)
    assert again(1) == 2
    assert again.settings.wire == local.settings.wire


def test_pools_call_the_function() -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert isinstance(pool.submit(ones, BIG).result(), np.ndarray)


def test_scripts_use_it_in_pools() -> None:
    script = """
        import multiprocessing
        from proxystore_core.store import Store
        from proxystore_globus_compute import auto_proxy

        store = Store("script")

        @auto_proxy(store=store, threshold=10)
        def text(n):
            return "x" * n

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert type(pool.apply(text, (100,))) is str
            import sys
            assert "globus_compute_sdk" not in sys.modules
            store.close()
            print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "fine", done.stderr


# As tasks


def test_a_plain_executor_gets_proxies(plain: Executor) -> None:
    result = plain.submit(ones, BIG, text="a").result(PATIENCE)
    assert is_proxy(result)
    assert not is_resolved(result)
    assert left(shared) == 1
    assert float(result.sum()) == BIG
    plain.submit(kinds).result(PATIENCE)  # the SDK holds its last future
    del result
    assert wait_for_none(shared)
    assert plain.submit(ones, 3).result(PATIENCE).tolist() == [1, 1, 1]


def test_inside_of_a_task_it_is_the_function(plain: Executor) -> None:
    name, value = plain.submit(outer, BIG).result(PATIENCE)
    assert name == "ndarray"
    assert is_proxy(value)
    assert float(value[0]) == 2

    def undecorated(n: int) -> str:
        from tests.integrations.test_globus_decorator import ones

        return type(ones(n)).__name__

    assert plain.submit(undecorated, BIG).result(PATIENCE) == "ndarray"
    plain.submit(kinds).result(PATIENCE)


def test_with_a_timeout_of_the_endpoint(plain: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_TASK_TIMEOUT", "30")
    assert is_proxy(plain.submit(ones, BIG).result(PATIENCE))
    plain.submit(kinds).result(PATIENCE)


def test_received_proxies_pass_on(plain: Executor, ex: ProxyExecutor) -> None:
    received = plain.submit(ones, BIG).result(PATIENCE)
    assert ex.submit(kinds, received).result(PATIENCE) == ["ndarray"]  # held by a lease
    assert float(ex.submit(plain_sum, received).result(PATIENCE)) == BIG
    assert not is_resolved(received)
    plain.submit(kinds).result(PATIENCE)
    del received
    assert wait_for_none(shared)


def test_a_plain_executor_passes_references_on(near: InProcess, plain: Executor) -> None:
    received = plain.submit(ones, BIG).result(PATIENCE)
    before = near.traffic().task_bytes
    assert plain.submit(kinds, received).result(PATIENCE) == ["ndarray"]  # unproxied
    assert plain.submit(plain_sum, received).result(PATIENCE) == BIG
    assert near.traffic().task_bytes - before < 4000
    assert not is_resolved(received)
    key = _ref(received).key
    del received
    assert left(shared) == 1  # nobody knows who uses it: until the process ends
    shared.evict(key)


def _ref(proxy: Any) -> Any:
    from proxystore_core.proxy import get_factory

    return get_factory(proxy).ref


def test_ours_and_theirs(make: Make, near: InProcess, plain: Executor) -> None:
    function_id = plain.register_function(kinds)
    executor = make()
    array = np.ones(BIG)
    future = executor.submit_to_registered_function(function_id, (array, [array], 1))
    assert future.result(PATIENCE) == ["ndarray", "list", "int"]
    other = executor.submit_to_registered_function(plain.register_function(ones), (BIG,))
    result = other.result(PATIENCE)
    assert is_proxy(result)
    assert left(shared) == 1
    direct = executor.submit(ones, BIG)  # the executor's store, then
    assert is_proxy(direct.result(PATIENCE))
    assert left(shared) == 1
    del result, other


def test_a_plain_client(near: InProcess) -> None:
    client = near.client()
    function_id = client.register_function(ones)
    task_id = client.run(BIG, endpoint_id=near.id, function_id=function_id)
    got: list[Any] = []

    def done() -> bool:
        try:
            got.append(client.get_result(task_id))
        except TaskPending:
            return False
        return True

    assert wait_until(done, PATIENCE)
    assert is_proxy(got[0])
    assert float(got[0].sum()) == BIG
    got.clear()
    client._task_status_table.clear()


def test_functions_of_executors_called_by_plain_ones(
    ex: ProxyExecutor, plain: Executor, near_store: Store[Any]
) -> None:
    function_id = ex.register_function(ones)
    result = plain.submit_to_registered_function(function_id, (BIG,)).result(PATIENCE)
    assert is_proxy(result)
    assert float(extract(result).sum()) == BIG
    plain.submit(kinds).result(PATIENCE)


def test_what_two_receive_is_evicted_once(near: InProcess, plain: Executor) -> None:
    future = plain.submit(ones, BIG)
    first = future.result(PATIENCE)
    second = near.client().get_result(future.task_id)
    assert _ref(first) == _ref(second)
    del first, future
    plain.submit(kinds).result(PATIENCE)
    assert float(second.sum()) == BIG
    del second
    assert wait_for_none(shared)


def test_gone_says_so(plain: Executor) -> None:
    received = plain.submit(ones, BIG).result(PATIENCE)
    shared.evict(_ref(received).key)
    with pytest.raises(ProxyResolveError, match="evicted"):
        received.sum()
    plain.submit(kinds).result(PATIENCE)


def test_results_go_with_the_process(tmp_path: Path) -> None:
    script = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import numpy as np
        from globus_compute_endpoint.engines import ThreadPoolEngine
        from examples.compute_stack.in_process import InProcess
        from proxystore_core.connectors.file import FileConnector
        from proxystore_core.store import Store
        from proxystore_globus_compute import auto_proxy

        store = Store("s", FileConnector(sys.argv[1], clear=False))

        @auto_proxy(store=store, threshold=10)
        def text(n):
            return "x" * n

        with InProcess(ThreadPoolEngine(max_workers=1)) as stack:
            with stack.executor() as executor:
                kept = executor.submit(text, 1000).result()
                lent = executor.submit(text, 1000).result()
                executor.submit(text, lent).exception()
        print(len(list(store.keys())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "2", done.stderr
    assert not [path for path in tmp_path.iterdir() if len(path.name) == 32]


def test_tasks_in_other_processes() -> None:
    with InProcess(ProcessPoolEngine(max_workers=1)) as far, far.executor() as executor:
        result = executor.submit(ones, BIG).result(PATIENCE)
        assert is_proxy(result)
        assert executor.submit(kinds, result).result(PATIENCE) == ["ndarray"]
        assert float(result.sum()) == BIG
        shared.evict(_ref(result).key)
        del result


def test_remote_functions_are_tasks_always(near_store: Store[Any]) -> None:
    from proxystore_core.autoproxy import Session

    with Session(near_store, Policy(threshold=10)) as session:
        remote = RemoteFunction(plain_sum, session.settings())
        assert remote(np.ones(3)) == 3.0
        assert dill.loads(dill.dumps(remote)).func is plain_sum
        assert str(inspect.signature(remote)) == "(x: 'Any') -> 'float'"
