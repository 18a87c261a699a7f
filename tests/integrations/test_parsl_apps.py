"""Everything that Parsl apps do, on real HTEX workers, with arguments and results by reference."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import parsl
import pytest
from parsl import bash_app, join_app, python_app
from parsl.app.errors import AppTimeout, RemoteExceptionWrapper
from parsl.concurrent import ParslPoolExecutor
from parsl.data_provider.files import File
from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.errors import InvalidResourceSpecification
from proxystore_parsl import ProxyHighThroughputExecutor, ProxyThreadPoolExecutor

from proxystore_core.autoproxy.results import auto_factory
from proxystore_core.proxy import Proxy, is_proxy, is_resolved
from proxystore_core.store import Store
from proxystore_core.store.utils import get_key

N = 50_000  # float64: 400 kB, far over the threshold of 10 kB
BIG = "x" * 100_000
DEFAULT = np.arange(N, dtype=float)


@pytest.fixture(scope="module", autouse=True)
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    """Watch the module: its executors start threads when they need them."""
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def store() -> Iterator[Store[Any]]:
    with Store("parsl-apps", metrics=True) as store:
        yield store


class CountingExecutor(ProxyHighThroughputExecutor):
    """Counts the bytes that Parsl carries."""

    sent = 0

    def start(self) -> None:
        super().start()
        self.sizes: list[int] = []
        get = self.incoming_q.get

        def counting_get(*args: Any, **kwargs: Any) -> Any:
            message = get(*args, **kwargs)
            self.sizes.append(len(message or b""))
            return message

        self.incoming_q.get = counting_get

    def received(self) -> int:
        return sum(self.sizes)

    def submit_payload(self, context: Any, buffer: bytes) -> Any:
        self.sent += len(buffer)
        return super().submit_payload(context, buffer)


@pytest.fixture(scope="module", autouse=True)
def kernel(parsl_kit: Any, store: Store[Any]) -> Iterator[parsl.DataFlowKernel]:
    htex = CountingExecutor(**parsl_kit.settings(), threshold="10 kB", store=store)
    others = [
        ThreadPoolExecutor(label="plain_threads"),
        ProxyThreadPoolExecutor(label="threads"),
    ]
    with parsl_kit.load(htex, *others, retries=1) as kernel:
        yield kernel
    assert store.usage().objects == 0


# -- python apps


@python_app(executors=["htex"])
def describe(*args: Any, **kwargs: Any) -> dict[str, str]:
    """Say what arrived, by type; `type` sees through no proxy."""
    values = {**{str(i): arg for i, arg in enumerate(args)}, **kwargs}
    return {
        name: type(value).__module__ + "." + type(value).__name__ for name, value in values.items()
    }


@python_app(executors=["htex"])
def make(n: int = N) -> np.ndarray:
    return np.arange(n, dtype=float)


@python_app(executors=["htex"])
def total(*arrays: Any, scale: Any = 1.0) -> float:
    assert all(type(array) is np.ndarray for array in arrays), [type(a) for a in arrays]
    return float(sum(array.sum() for array in arrays) * scale)


@python_app(executors=["htex"])
def double(array: Any) -> Any:
    assert type(array) is np.ndarray
    return array * 2


@python_app(executors=["htex"])
def give_back(obj: Any) -> Any:
    return obj


def test_a_function_gets_real_objects() -> None:
    array = np.arange(N, dtype=float)
    found = describe(array, BIG, BIG.encode(), 3, [array, 1], table={"a": array}).result()
    assert found == {
        "0": "numpy.ndarray",
        "1": "builtins.str",
        "2": "builtins.bytes",
        "3": "builtins.int",
        "4": "builtins.list",
        "table": "builtins.dict",
    }
    assert total(array, array, scale=2.0).result() == 4 * array.sum()


def test_a_large_result_is_a_proxy_that_knows_its_target() -> None:
    result = make().result()
    assert is_proxy(result)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype, len(result), result.nbytes) == ((N,), float, N, N * 8)
    assert not is_resolved(result)
    assert np.array_equal(result, np.arange(N))


def test_a_small_result_is_the_object_itself() -> None:
    assert type(make(10).result()) is np.ndarray


def test_large_things_in_containers_travel_one_by_one() -> None:
    result = give_back({"a": [np.ones(N), 1], "b": (np.zeros(N), "two")}).result()
    assert type(result) is dict
    assert is_proxy(result["a"][0])
    assert result["a"][1] == 1
    assert type(result["b"]) is tuple
    assert result["a"][0].sum() == N
    assert result["b"][1] == "two"


def get_ref(proxy: Any) -> Any:
    factory = auto_factory(proxy)
    assert factory is not None
    return factory.ref


def test_a_returned_argument_takes_one_hop() -> None:
    first = give_back(BIG).result()
    second = give_back(first).result()
    assert second == BIG
    assert get_ref(second) == get_ref(first)


def test_results_go_to_the_next_task_past_the_client(
    kernel: parsl.DataFlowKernel, store: Store[Any]
) -> None:
    htex: Any = kernel.executors["htex"]
    total(make(3)).result()  # from now on the functions are known
    sent, received, got = htex.sent, htex.received(), gets(store)
    chain = make()
    futures = [chain, *(chain := double(chain) for _ in range(4))]
    assert total(chain).result() == 16 * np.arange(N, dtype=float).sum()
    assert [is_resolved(future.result()) for future in futures] == [False] * 5
    assert gets(store) == got
    assert 0 < htex.sent - sent < 30_000  # functions mostly; one array has 400 kB
    assert 0 < htex.received() - received < 10_000


def gets(store: Store[Any]) -> int:
    """Count how often this process got something from the store."""
    assert store.metrics is not None
    return sum(
        stats.count for name, stats in store.metrics.aggregate_times().items() if "get" in name
    )


def test_what_the_user_proxied_stays_a_proxy(store: Store[Any]) -> None:
    mine = store.proxy(np.ones(N))
    try:
        assert describe(mine).result() == {"0": f"{Proxy.__module__}.Proxy"}
    finally:
        store.evict(get_key(mine))


def test_names_of_arguments_do_not_collide() -> None:
    names = ["args", "kwargs", "task", "name", "policy", "store", "session", "lease", "value",
             "obj", "fn", "f", "inner", "label", "depth", "error", "threshold"]  # fmt: skip
    values = {name: np.full(N, i) for i, name in enumerate(names)}
    assert describe(**values).result() == dict.fromkeys(names, "numpy.ndarray")


@python_app(executors=["htex"])
def with_defaults(x: int, y: Any = DEFAULT, *, z: Any = BIG) -> float:
    return float(x + y.sum() + len(z))


def test_keyword_defaults() -> None:
    assert with_defaults(1).result() == 1 + DEFAULT.sum() + len(BIG)
    assert with_defaults(1, y=np.zeros(N), z="").result() == 1


@python_app(executors=["htex"])
def from_inputs(inputs: Any = (), outputs: Any = ()) -> list[str]:
    assert type(inputs) is list
    return [type(item).__name__ for item in inputs]


def test_inputs_lists() -> None:
    inputs = [make(), make(3), np.ones(N), "small", BIG]
    assert from_inputs(inputs=inputs).result() == ["ndarray", "ndarray", "ndarray", "str", "str"]
    assert from_inputs(inputs=[]).result() == []


@python_app(executors=["htex"])
def write_in_place(array: Any) -> float:
    array += 1
    return float(array.sum())


def test_a_task_may_write_to_its_arguments_and_only_it_sees_that() -> None:
    array, made = np.ones(N), make()
    assert write_in_place(array).result() == 2 * N
    before = float(made.result().sum())
    assert [write_in_place(made).result() for _ in range(2)] == [before + N] * 2
    assert array.sum() == N
    assert float(made.result().sum()) == before


# -- files


@python_app(executors=["htex"])
def write(array: Any, outputs: Any = ()) -> int:
    assert type(outputs[0]) is File
    np.save(outputs[0].filepath, array)
    return len(array)


@python_app(executors=["htex"])
def read(file: Any, inputs: Any = ()) -> float:
    assert type(file) is File
    assert all(type(item) is File for item in inputs)
    return float(
        np.load(file.filepath).sum() + sum(np.load(item.filepath).sum() for item in inputs)
    )


def test_files_and_staging(tmp_path: Path) -> None:
    written = write(np.ones(N), outputs=[File(str(tmp_path / "one.npy"))])
    assert read(written.outputs[0], inputs=[written.outputs[0]]).result() == 2 * N
    url = File(f"file://{tmp_path}/one.npy")
    assert read(url, inputs=[url]).result() == 2 * N


# -- bash apps


@bash_app(executors=["htex"])
def shout(text: Any, array: Any, stdout: Any = None, stderr: Any = None) -> str:
    assert type(array) is np.ndarray
    assert type(text) is str
    return f"echo {len(text)} {int(array.sum())}; echo oops >&2"


def test_bash_apps_and_their_streams(tmp_path: Path) -> None:
    out, err = str(tmp_path / "out"), str(tmp_path / "err")
    future = shout(BIG, np.ones(N), stdout=out, stderr=(err, "w"))
    assert future.result() == 0
    assert (future.stdout, future.stderr) == (out, (err, "w"))
    assert Path(out).read_text() == f"{len(BIG)} {N}\n"
    assert "oops" in Path(err).read_text()


@bash_app(executors=["htex"])
def fail(array: Any) -> str:
    return f"exit {int(array[3])}"


def test_a_failing_bash_app() -> None:
    with pytest.raises(parsl.app.errors.BashExitFailure, match="exit code 3"):
        fail(np.arange(N)).result()


# -- join apps


@join_app
def fan_out(array: Any, width: int) -> list[Future[Any]]:
    return [double(array) for _ in range(width)]


@join_app
def hand_on(array: Any) -> Future[Any]:
    return total(array)


def test_join_apps(store: Store[Any]) -> None:
    source = make()
    results = fan_out(source, 3).result()
    assert [is_proxy(result) for result in results] == [True] * 3
    assert not any(map(is_resolved, results))
    assert hand_on(results[0]).result() == 2 * np.arange(N, dtype=float).sum()
    assert not is_resolved(source.result())


# -- time, errors, retries


@python_app(executors=["htex"])
def slow(array: Any, seconds: float, walltime: Any = None) -> int:
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return len(array)


def test_walltime() -> None:
    assert slow(np.ones(N), 0.0, walltime=30).result() == N
    with pytest.raises(AppTimeout):
        slow(np.ones(N), 30.0, walltime=0.3).result()


class LoadedError(Exception):
    """Carries data."""

    def __init__(self, message: str, data: Any) -> None:
        super().__init__(message, data)
        self.data = data


@python_app(executors=["htex"])
def raise_loaded(array: Any) -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise LoadedError("outer", array) from error


def test_exceptions_are_unchanged() -> None:
    future = raise_loaded(np.ones(N))
    error = future.exception()
    assert type(error) is LoadedError
    assert error.args[0] == "outer"
    assert type(error.data) is np.ndarray
    assert error.data.sum() == N
    assert isinstance(error.__cause__, KeyError)
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "raise_loaded" in names


@python_app(executors=["htex"])
def return_wrapper(array: Any) -> Any:
    import sys

    from parsl.app.errors import RemoteExceptionWrapper

    try:
        raise ValueError("x" * len(array))
    except ValueError:
        return RemoteExceptionWrapper(*sys.exc_info())


def test_a_returned_exception_wrapper_is_raised() -> None:
    with pytest.raises(ValueError, match="xxx"):
        return_wrapper(np.ones(N)).result()
    assert issubclass(RemoteExceptionWrapper, object)


@python_app(executors=["htex"])
def fail_first(array: Any, marker: str) -> float:
    path = Path(marker)
    if not path.exists():
        path.write_text(str(array.sum()))
        raise OSError("first time")
    return float(array.sum())


def test_a_retry_gets_its_arguments_again(tmp_path: Path, store: Store[Any]) -> None:
    assert fail_first(np.ones(N), str(tmp_path / "marker")).result() == N
    assert fail_first(make(), str(tmp_path / "marker2")).result() == np.arange(N).sum()


def test_a_failed_dependency() -> None:
    with pytest.raises(parsl.dataflow.errors.DependencyError):
        total(raise_loaded(np.ones(N))).result()


def test_a_wrong_resource_specification_is_parsls_error(kernel: parsl.DataFlowKernel) -> None:
    before = alive(kernel)
    with pytest.raises(InvalidResourceSpecification):
        total(np.ones(N), parsl_resource_specification={"nonsense": 1}).result()
    assert alive(kernel) == before


def alive(kernel: parsl.DataFlowKernel) -> int:
    htex: Any = kernel.executors["htex"]
    count: int = htex.proxy_stats().alive
    return count


# -- what does not pickle


class Holder:
    """Only dill pickles this."""

    def __init__(self, n: int) -> None:
        self.lock = threading.Lock()
        self.data = np.ones(n)


@python_app(executors=["htex"])
def use_holder(holder: Any, other: Any) -> float:
    with holder.lock:
        return float(holder.data.sum() + other.sum())


def test_what_only_dill_pickles_travels_by_value() -> None:
    assert use_holder(Holder(N), np.ones(N)).result() == 2 * N


@python_app(executors=["htex"])
def return_holder(n: int) -> Any:
    return Holder(n)


def test_a_result_that_only_dill_pickles_travels_by_value() -> None:
    holder = return_holder(N).result()
    assert type(holder) is Holder
    assert holder.data.sum() == N
    assert not holder.lock.locked()


def test_an_unpicklable_argument_is_named(kernel: parsl.DataFlowKernel) -> None:
    before = alive(kernel)
    connection = sqlite3.connect(":memory:")
    array = np.ones(N)
    future = total(array, scale=[1, {"db": connection}])
    error = future.exception()
    assert error is not None
    plain = plain_error(array, connection)
    assert type(error) is type(plain)
    assert str(error) == str(plain)
    text = "\n".join(error.__notes__)
    assert "scale" in text
    assert "total" in text
    assert "sqlite3.Connection" in text
    assert alive(kernel) <= before
    assert total(array).result() == N  # nothing else is lost
    connection.close()


def plain_error(array: Any, connection: Any) -> BaseException:
    """Return what Parsl raises without us."""
    executor = HighThroughputExecutor(label="plain", address="127.0.0.1")
    with pytest.raises(Exception, match="total") as caught:
        executor.submit(total.func, {}, array, scale=[1, {"db": connection}])
    return caught.value


def test_an_unpicklable_result_is_parsls_error() -> None:
    future = python_app(lambda: threading._start_new_thread, executors=["htex"])()  # type: ignore[attr-defined]
    assert callable(future.result())
    with pytest.raises(TypeError, match="pickle"):
        python_app(lambda n: [sqlite3.connect(":memory:"), b"x" * n], executors=["htex"])(
            N
        ).result()


# -- types


@dataclass
class Record:
    name: str
    data: Any


def test_own_classes() -> None:
    result = give_back(Record("a", np.ones(N))).result()
    assert result.name == "a"
    assert result.data.sum() == N


@python_app(executors=["htex"])
def local_class(n: int) -> Any:
    class Local:
        def __init__(self) -> None:
            self.data = b"x" * n

    return Local()


def test_a_class_that_the_client_cannot_import() -> None:
    result = local_class(N).result()
    assert len(result.data) == N
    assert type(result).__name__ in ("Local", "Proxy")


@pytest.mark.parametrize("value", [BIG, BIG.encode(), list(range(N)), {i: i for i in range(N)}])
def test_builtin_results_compare_and_iterate(value: Any) -> None:
    result = give_back(value).result()
    assert result == value
    assert len(result) == len(value)
    assert isinstance(result, type(value))


def test_elements_and_attributes_of_futures() -> None:
    future = make()
    assert future[3].result() == 3.0
    assert future.shape.result() == (N,)


# -- other executors


@python_app(executors=["plain_threads"])
def in_plain_threads(array: Any) -> float:
    assert isinstance(array, np.ndarray)
    return float(array.sum())


@python_app(executors=["threads"])
def in_threads(array: Any, nested: Any = None) -> tuple[str, str]:
    return type(array).__name__, type(nested["a"]).__name__ if nested else ""


@python_app(executors=["threads"])
def share(lock: Any, items: list[int]) -> list[int]:
    with lock:
        items.append(1)
    return items


def test_threads_share_objects_and_get_real_results() -> None:
    result = make()
    assert in_plain_threads(result).result() == np.arange(N).sum()
    assert in_threads(result, nested={"a": result.result()}).result() == ("ndarray", "ndarray")
    items: list[int] = []
    assert share(threading.Lock(), items).result() is items
    assert items == [1]
    array = np.ones(N)
    assert python_app(lambda x: x, executors=["threads"])(array).result() is array


def test_threads_leave_the_users_proxies_alone(store: Store[Any]) -> None:
    mine = store.proxy(np.ones(N))
    assert in_threads(mine).result()[0] == "Proxy"
    store.evict(get_key(mine))


# -- Parsl's own forms of use


def test_parsls_pool_executor(kernel: parsl.DataFlowKernel, parsl_kit: Any) -> None:
    with ParslPoolExecutor(dfk=kernel, executors=["htex"]) as pool:
        arrays = [np.full(N, i) for i in range(4)]
        assert [float(a.sum()) for a in pool.map(np.negative, arrays)] == [-i * N for i in range(4)]


def test_deep_dependencies(kernel: parsl.DataFlowKernel) -> None:
    gather = DEEP_DEPENDENCY_RESOLVER.traverse_to_gather
    unwrap = DEEP_DEPENDENCY_RESOLVER.traverse_to_unwrap
    future = give_back(list(range(N)))
    result = future.result()
    assert gather([result, (future,), {"a": future}]) == [future, future]
    unwrapped = unwrap([result, {"a": future}])
    assert unwrapped[0] is result
    assert unwrapped[1]["a"] is result
    assert not is_resolved(result)


def test_results_can_be_written_as_values() -> None:
    result = give_back({"numbers": list(range(N))}).result()
    assert json.loads(json.dumps({"n": list(result["numbers"][:3])})) == {"n": [0, 1, 2]}
    buffer = io.BytesIO()
    np.save(buffer, make().result())
    assert buffer.tell() > N * 8
