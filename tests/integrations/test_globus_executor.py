"""The executor, over a real engine in this process."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import threading
from concurrent.futures import CancelledError, Executor, wait
from typing import Any

import numpy as np
import parsl
import pytest
from globus_compute_endpoint.engines import ProcessPoolEngine
from globus_compute_sdk import Executor as PlainExecutor
from globus_compute_sdk import MPIFunction, ShellFunction
from globus_compute_sdk.sdk.asynchronous.compute_future import ComputeFuture
from parsl.executors import GlobusComputeExecutor
from proxystore_globus_compute import ProxyExecutor, ProxyFuture

from examples.compute_stack.in_process import InProcess
from proxystore_core.autoproxy import Policy, persist
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import AutoProxyError, ExecutorConfigError
from proxystore_core.proxy import Proxy, extract, get_info, is_proxy, is_resolved
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.globus_kit import PATIENCE, left, wait_for_none
from tests.integrations.globus_near import BIG, THRESHOLD, Make

pytest_plugins = ["tests.integrations.globus_near"]


def add(a: Any, b: Any = 0) -> Any:
    return a + b


def kinds(*args: Any, **kwargs: Any) -> Any:
    return [type(value).__name__ for value in (*args, *kwargs.values())]


def ones(n: int) -> Any:
    return np.ones(n)


def same(x: Any) -> Any:
    return x


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Scale:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def apply(self, x: Any) -> float:
        return float((self.factor * x).sum())


# What travels, and how


def test_small_values_travel_as_ever(ex: ProxyExecutor) -> None:
    future = ex.submit(add, 1, b=2)
    assert isinstance(future, ComputeFuture)
    assert isinstance(future, ProxyFuture)
    assert future.result(PATIENCE) == 3
    assert future.task_id is not None
    assert ex.stats().puts == 0


def test_large_arguments_and_results_travel_by_reference(
    near: InProcess, ex: ProxyExecutor, near_store: Store[Any]
) -> None:
    array = np.ones(BIG)
    before = near.traffic()
    future = ex.submit(add, array, b=array)
    result = future.result(PATIENCE)
    after = near.traffic()
    assert after.task_bytes - before.task_bytes < 3000
    assert after.result_bytes - before.result_bytes < 3000
    assert is_proxy(result)
    assert not is_resolved(result)
    assert left(near_store) == 1  # the arguments are gone
    assert float(result.sum()) == 2 * BIG
    del future, result
    assert wait_for_none(near_store)


def test_the_sdk_holds_no_result(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    ex.submit(ones, BIG).result(PATIENCE)  # its threads remember their last futures
    assert wait_for_none(near_store)


def test_functions_get_the_real_objects(ex: ProxyExecutor) -> None:
    array = np.ones(BIG)
    future = ex.submit(kinds, array, [array], x={"a": array}, y=Pair(array, 1))
    assert future.result(PATIENCE) == ["ndarray", "list", "dict", "Pair"]


def test_containers_are_searched(ex: ProxyExecutor) -> None:
    value = {"pair": Pair(np.ones(BIG), 2), "list": [np.zeros(BIG), "x"]}
    found = ex.submit(same, value).result(PATIENCE)
    assert is_proxy(found["pair"].left)
    assert found["pair"].right == 2
    assert float(found["pair"].left.sum()) == BIG
    assert float(found["list"][0].sum()) == 0


def test_tasks_may_write_to_their_arrays(ex: ProxyExecutor) -> None:
    def fill(x: Any) -> float:
        x[:] = 3
        return float(x.sum())

    array = np.ones(BIG)
    assert ex.submit(fill, array).result(PATIENCE) == 3 * BIG
    assert array.sum() == BIG


def test_results_pass_on_without_the_client(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    first = ex.submit(ones, BIG).result(PATIENCE)
    second = ex.submit(add, first, [first][0]).result(PATIENCE)
    puts = ex.stats().puts
    assert not is_resolved(first)
    assert float(extract(second)[0]) == 2
    assert puts == 0
    alias = ex.submit(same, first).result(PATIENCE)  # one hop, whatever came in
    del first
    gc.collect()
    assert left(near_store) >= 1
    assert float(alias.sum()) == BIG


def test_a_chain_is_never_downloaded(ex: ProxyExecutor) -> None:
    value: Any = np.zeros(BIG)
    for _ in range(5):
        value = ex.submit(add, value, 1).result(PATIENCE)
        assert not is_resolved(value)
    assert float(value[0]) == 5


def test_your_own_proxies_stay_proxies(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    def what(x: Any) -> str:
        return type(x).__name__

    mine: Proxy[Any] = near_store.proxy(np.ones(BIG), populate_target=False)
    assert ex.submit(what, mine).result(PATIENCE) == "Proxy"
    back = ex.submit(same, mine).result(PATIENCE)  # callable, and no code nevertheless
    assert is_proxy(back)
    assert float(back.sum()) == BIG
    near_store.evict(near_store.get_key(mine) if hasattr(near_store, "get_key") else _key(mine))


def _key(proxy: Proxy[Any]) -> Any:
    from proxystore_core.store.utils import get_key

    return get_key(proxy)


def test_a_policy_decides(make: Make) -> None:
    executor = make(policy=Policy(threshold=100, types=(bytes,)), threshold=None)
    executor.submit(kinds, b"x" * 200, "y" * 200).result(PATIENCE)
    assert executor.stats().puts == 1
    with make(policy=Policy(resolve="lazy"), threshold=100) as lazy:
        assert lazy.submit(kinds, b"x" * 200).result(PATIENCE) == ["Proxy"]


def test_results_may_stay_by_value(make: Make) -> None:
    executor = make(policy=Policy(results=False))
    assert isinstance(executor.submit(ones, BIG).result(PATIENCE), np.ndarray)


def test_what_is_bound_travels_as_arguments(near: InProcess, ex: ProxyExecutor) -> None:
    array = np.ones(BIG)
    before = near.traffic().task_bytes
    assert ex.submit(Scale(array).apply, array).result(PATIENCE) == BIG
    partial = functools.partial(add, array)
    assert float(ex.submit(partial, b=1).result(PATIENCE)[0]) == 2
    assert ex.submit(functools.partial(add, 1), 2).result(PATIENCE) == 3
    assert near.traffic().task_bytes - before < 10_000


def test_shell_functions_are_left_alone(near: InProcess, ex: ProxyExecutor) -> None:
    shell = ShellFunction("echo {word}")
    done = ex.submit(shell, word="x" * 30_000).result(PATIENCE)
    assert done.returncode == 0
    assert len(done.stdout.strip()) == 30_000
    assert ex.stats().puts == 0
    again = ShellFunction("echo {word}")
    ex.register_function(again, near.client().register_function(again))
    assert ex.submit(again, word="y" * 30_000).result(PATIENCE).stdout.strip() == "y" * 30_000
    assert ex.stats().puts == 0
    known = ex._proxy_calls.wrap(MPIFunction("true"))
    assert known.func is None
    assert not known.encodes


def test_settings_of_tasks_are_the_sdks(make: Make) -> None:
    executor = make(batch_size=3, user_endpoint_config={"a": 1})
    assert executor.batch_size == 3
    assert executor.submit(add, 1).result(PATIENCE) == 1
    executor.user_endpoint_config = {"b": 2}
    assert executor.submit(add, 2).result(PATIENCE) == 2
    assert executor.task_count_submitted == 2


# Registered functions


def test_functions_are_registered_once(ex: ProxyExecutor) -> None:
    function_id = ex.register_function(add)
    with pytest.raises(ValueError, match="already registered"):
        ex.register_function(add)
    assert ex.register_function(add, function_id=function_id) == function_id
    future = ex.submit_to_registered_function(function_id, (np.ones(BIG),), {"b": 1})
    assert float(future.result(PATIENCE)[0]) == 2
    assert ex._function_registry[add] == function_id
    ex.submit(add, 1).result(PATIENCE)
    assert list(ex._function_registry) == [add]


def test_source_code_is_registered(near: InProcess, ex: ProxyExecutor) -> None:
    source = "def twice(x):\n    return again(x) + x\n\ndef again(x):\n    return x"
    function_id = ex.register_source_code(source, "twice")
    with pytest.raises(ValueError, match="already registered"):
        ex.register_source_code(source, "twice")
    before = near.traffic()
    future = ex.submit_to_registered_function(function_id, (np.ones(BIG),))
    result = future.result(PATIENCE)
    after = near.traffic()
    assert is_proxy(result)
    assert float(result[0]) == 2
    assert after.task_bytes + after.result_bytes - before.task_bytes - before.result_bytes < 4000


def test_functions_of_others_get_proxies(near: InProcess, ex: ProxyExecutor) -> None:
    def look(x: Any, y: Any) -> Any:
        return type(x).__name__, type(y["z"]).__name__, float(x.sum() + y["z"].sum())

    elsewhere = near.client().register_function(look)
    before = near.traffic().task_bytes
    array = np.ones(BIG)
    future = ex.submit_to_registered_function(elsewhere, (array,), {"y": {"z": array}})
    assert future.result(PATIENCE) == ("Proxy", "Proxy", 2 * BIG)
    assert near.traffic().task_bytes - before < 4000
    known = ex.submit_to_registered_function(
        ex.register_function(look, elsewhere), (array, {"z": array})
    )
    assert known.result(PATIENCE)[2] == 2 * BIG


# map


def test_map(near: InProcess, ex: ProxyExecutor) -> None:
    before = near.traffic().submissions
    arrays = [np.full(BIG, n) for n in range(20)]
    results = ex.map(add, arrays, range(20))
    assert [float(result[0]) for result in results] == [2.0 * n for n in range(20)]
    assert near.traffic().submissions - before <= 3  # coalesced: stored before they were sent


def test_map_in_chunks(near: InProcess, ex: ProxyExecutor, near_store: Store[Any]) -> None:
    before = near.traffic().tasks
    assert list(ex.map(add, range(10), range(10), chunksize=4)) == [2 * n for n in range(10)]
    assert near.traffic().tasks - before == 3
    found = ex.map(add, [np.full(BIG, n) for n in range(5)], range(5), chunksize=2)
    assert [float(value[0]) for value in found] == [2.0 * n for n in range(5)]
    del found
    assert wait_for_none(near_store)


def test_map_yields_errors_in_their_place(ex: ProxyExecutor) -> None:
    def check(x: int) -> int:
        if x == 2:
            raise LookupError("two")
        return x

    results = ex.map(check, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(Exception, match="LookupError: two"):
        next(results)
    with pytest.raises(ValueError, match="chunksize"):
        ex.map(add, [1], chunksize=0)


def test_map_times_out(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    with held(ex) as futures:
        results = ex.map(add, [1], timeout=0.05)
        with pytest.raises(TimeoutError):
            next(results)
    wait(futures, PATIENCE)


class held:  # a context
    """Keep the threads of the engine busy."""

    def __init__(self, ex: ProxyExecutor) -> None:
        self._ex = ex

    def __enter__(self) -> list[Any]:
        global gate  # tasks run in this process
        gate = threading.Event()
        self._futures = [self._ex.submit(wait_at_gate) for _ in range(2)]
        return self._futures

    def __exit__(self, *exc: object) -> None:
        gate.set()


gate = threading.Event()


def wait_at_gate(x: Any = None) -> Any:
    gate.wait(PATIENCE)
    return x


# Lifetimes


def test_arguments_stay_until_the_future_is_done(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    with held(ex) as futures:
        future = ex.submit(add, np.ones(BIG), 1)
        assert wait_until(lambda: future.task_id is not None)
        assert left(near_store) == 1
        assert not future.done()
    wait(futures, PATIENCE)
    assert float(future.result(PATIENCE)[0]) == 2
    assert left(near_store) == 1  # the result


def test_a_payload_may_run_again(near: InProcess, ex: ProxyExecutor, near_store: Any) -> None:
    # As max_retries_on_system_failure does: the same payload, before the future is done.
    task: list[Any] = []
    real = near._engine.submit
    near._engine.submit = lambda **kw: task.append(kw) or real(**kw)  # type: ignore[method-assign]
    try:
        with held(ex) as futures:
            future = ex.submit(add, np.ones(BIG), 1)
            assert wait_until(lambda: future.task_id is not None)
        wait(futures, PATIENCE)
        future.result(PATIENCE)
    finally:
        near._engine.submit = real  # type: ignore[method-assign]
    assert len(task) == 3


def test_a_failed_task_keeps_nothing(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    def fail(x: Any) -> None:
        raise LookupError(len(x))

    future = ex.submit(fail, np.ones(BIG))
    assert "LookupError" in str(future.exception(PATIENCE))
    assert left(near_store) == 0


def test_a_cancelled_future_lets_go(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    with held(ex) as futures:
        future = ex.submit(add, np.ones(BIG), 1)
        assert wait_until(lambda: future.task_id is not None)
        assert future.cancel()
        assert future.cancel()
        assert left(near_store) == 0
        assert wait([future], PATIENCE).done
    wait(futures, PATIENCE)
    with pytest.raises(CancelledError):
        future.result()


def test_results_outlive_the_executor(make: Make, near_store: Store[Any]) -> None:
    with make() as executor:
        held_on = executor.submit(ones, BIG).result(PATIENCE)
        kept = persist(executor.submit(ones, BIG).result(PATIENCE))
    assert left(near_store) == 1  # what was persisted
    assert float(held_on.sum()) == BIG
    assert float(kept.sum()) == BIG
    near_store.evict(_key(kept))


def test_shutdown_without_waiting(make: Make, near_store: Store[Any]) -> None:
    executor = make()
    with held(executor) as futures:
        future = executor.submit(add, np.ones(BIG), 1)
        assert wait_until(lambda: future.task_id is not None)
        executor.shutdown(wait=False)
        assert left(near_store) == 1
        assert not executor.session.closed
        with pytest.raises(RuntimeError, match="shutdown"):
            executor.submit(add, 1)
        with pytest.raises(RuntimeError, match="shutdown"):
            executor.map(add, [1])
    wait(futures, PATIENCE)
    assert float(future.result(PATIENCE)[0]) == 2
    assert wait_until(lambda: executor.session.closed)
    assert left(near_store) == 0


def test_shutdown_waits(make: Make, near_store: Store[Any]) -> None:
    with make() as executor:
        futures = [executor.submit(add, np.full(BIG, n), 1) for n in range(5)]
    assert all(future.done() for future in futures)
    assert executor.session.closed
    assert [float(future.result()[0]) for future in futures] == [1, 2, 3, 4, 5]
    executor.shutdown()


def test_a_store_of_files(make: Make, tmp_path: Any) -> None:
    with (
        Store("files", FileConnector(str(tmp_path / "objects"))) as files,
        make(store=files) as executor,
    ):
        result = executor.submit(add, np.ones(BIG), 1).result(PATIENCE)
        assert float(result[0]) == 2
        assert wait_until(lambda: len(list(files.keys())) == 1)
        del result
        assert wait_until(lambda: len(list(files.keys())) == 0)


def test_a_forked_child_says_no(ex: ProxyExecutor, near_store: Store[Any]) -> None:
    result = ex.submit(ones, BIG).result(PATIENCE)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ex.submit(add, 1)
        except AutoProxyError as error:
            os.write(write, str(error).encode())
        finally:
            ex.session.close()
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        assert "parent process" in told.read()
    os.waitpid(pid, 0)
    assert left(near_store) == 1
    assert float(result.sum()) == BIG


# Other processes, other executors


def test_tasks_in_other_processes(near_store: Store[Any]) -> None:
    with (
        InProcess(ProcessPoolEngine(max_workers=1)) as far,
        far.executor(ProxyExecutor, store=near_store, threshold=THRESHOLD) as executor,
    ):
        first = executor.submit(ones, BIG).result(PATIENCE)
        assert get_info(first).shape == (BIG,)
        second = executor.submit(add, first, np.ones(BIG)).result(PATIENCE)
        assert not is_resolved(first)
        assert float(second.sum()) == 2 * BIG
        alias = executor.submit(same, first).result(PATIENCE)
        assert float(alias.sum()) == BIG
        del first, second, alias
        assert wait_for_none(near_store)


def test_reloaded_tasks(near: InProcess, make: Make, near_store: Store[Any]) -> None:
    first = make()
    done = first.submit(add, np.ones(BIG), 1)
    value = done.result(PATIENCE)
    with held(first) as futures:
        waiting = first.submit(add, np.ones(BIG), 2)
        assert wait_until(lambda: waiting.task_id is not None)
        second = ProxyExecutor(  # which shares the thread that takes results
            near.id,
            near.client(),
            first.task_group_id,
            store=near_store,
        )
        found = {future.task_id: future for future in second.reload_tasks()}
        assert done.task_id in found
        assert waiting.task_id not in found  # this process waits for it already
    wait(futures, PATIENCE)
    assert waiting.result(PATIENCE) is not None
    again = found[done.task_id]
    assert isinstance(again, ProxyFuture)
    assert float(again.result()[0]) == 2
    assert again.result().__class__ is np.ndarray
    assert float(value[0]) == 2
    assert len(list(second.reload_tasks())) >= 2
    second.shutdown()


def test_reloaded_tasks_that_run(near: InProcess, make: Make, near_store: Store[Any]) -> None:
    # As after a restart: nobody in this process waits for them yet.
    client = near.client()
    with held(make()) as futures:
        owner = make()
        function_id = owner.register_function(add)
        batch = client.create_batch(task_group_id=owner.task_group_id, create_websocket_queue=True)
        for _ in range(3):
            batch.add(function_id, ("x" * BIG,), {"b": "y"})
        client.batch_run(near.id, batch)
        found = list(owner.reload_tasks())
        assert len(found) == 3
        assert not any(future.done() for future in found)
    wait(futures, PATIENCE)
    for future in found:
        assert isinstance(future, ProxyFuture)
        assert is_proxy(future.result(PATIENCE))
        assert len(future.result()) == BIG + 1
    assert owner.stats().results == 3
    owner.shutdown()
    assert left(near_store) == 0


def test_two_stores_side_by_side(near: InProcess, make: Make) -> None:
    client = near.client()
    with Store("other", cache_size=0) as other:
        one, two = make(client=client), make(client=client, store=other)
        first = one.submit(ones, BIG).result(PATIENCE)
        second = two.submit(add, first, 1).result(PATIENCE)  # brought along by value
        assert float(second[0]) == 2
        assert left(other) == 1
        del second
        assert wait_for_none(other)


def test_a_plain_executor_of_the_same_group(near: InProcess, make: Make) -> None:
    ours = make()
    with PlainExecutor(near.id, near.client(), ours.task_group_id) as plain:
        assert plain.submit(add, 1, 2).result(PATIENCE) == 3
        assert is_proxy(ours.submit(ones, BIG).result(PATIENCE))


def test_parsl_over_it(make: Make, near_store: Store[Any], tmp_path: Any) -> None:
    config = parsl.Config(
        executors=[GlobusComputeExecutor(executor=make())],
        run_dir=str(tmp_path),
        strategy="none",
        initialize_logging=False,
    )

    @parsl.python_app
    def total(x: Any) -> Any:
        return x + x

    with parsl.load(config):
        first = total(np.ones(BIG))
        assert float(total(first).result(PATIENCE)[0]) == 4
        del first
    assert wait_for_none(near_store)


# Options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"store": None}, "shared memory.*FileConnector.*EndpointConnector"),
        ({"store": "x"}, "must be a Store"),
        ({"threshold": "many"}, "threshold"),
        ({"policy": 3}, "must be a Policy"),
    ],
)
def test_options_are_checked(
    near: InProcess, near_store: Store[Any], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ExecutorConfigError, match=match):
        ProxyExecutor(near.id, near.client(), **{"store": near_store, **options})


def test_it_is_an_executor(ex: ProxyExecutor) -> None:
    assert isinstance(ex, PlainExecutor)
    assert isinstance(ex, Executor)
    assert "ProxyExecutor" in repr(ex)
    with pytest.raises(TypeError, match="ComputeSerializer"):
        ex.serializer = 3
    with pytest.raises(TypeError, match="invalid argument"):
        type(ex)(nothing=1, store=ex.session.store, client=ex.client)
