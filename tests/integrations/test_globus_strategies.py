"""All built-in serialization strategies, of code, arguments and results."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import proxystore_globus_compute as pgc
import pytest
from globus_compute_endpoint.engines import ThreadPoolEngine
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed
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
    SerializationStrategy,
)
from proxystore_globus_compute import ProxyExecutor, ProxySerializer, auto_proxy
from proxystore_globus_compute.worker import RemoteFunction, TaskFunction

from examples.compute_stack.in_process import InProcess
from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ArgumentSerializationError
from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store
from tests.integrations.globus_kit import PATIENCE, wait_for_none
from tests.integrations.globus_near import BIG, THRESHOLD, Make

pytest_plugins = ["tests.integrations.globus_near"]

CODE = [
    DillCode,
    PureSourceTextInspect,
    PureSourceDill,
    DillCodeSource,
    DillCodeTextInspect,
    AllCodeStrategies,
    CombinedCode,
]
SOURCE = CODE[1:]
DATA = [DillDataBase64, JSONData, AllDataStrategies]

Strategy = type[SerializationStrategy]


def twice(text, n=2, extra=None):
    """Say it again."""
    if extra:
        return [len(text), extra]
    return text * n


def countdown(text, n):
    """Call itself by its name, with large results."""
    if n == 0:
        return text
    found = countdown(text, n - 1)
    return found[:1] + found


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("data", DATA)
def test_every_strategy(near: InProcess, make: Make, code: Strategy, data: Strategy) -> None:
    executor = make(serializer=ComputeSerializer(code, data))
    assert isinstance(executor.serializer, ProxySerializer)
    text = "x" * BIG
    before = near.traffic()
    future = executor.submit(twice, text, n=2)
    result = future.result(PATIENCE)
    after = near.traffic()
    assert is_proxy(result)
    assert not is_resolved(result)
    assert after.task_bytes + after.result_bytes - before.task_bytes - before.result_bytes < 9000
    assert result == text * 2
    assert executor.submit(twice, "ab").result(PATIENCE) == "abab"
    nested = executor.submit(twice, text, extra={"a": [1, text]}).result(PATIENCE)
    assert nested[0] == BIG
    assert nested[1]["a"][1] == text
    assert list(executor.map(twice, [text, "b"], [1, 3], chunksize=2)) == [text, "bbb"]


@pytest.mark.parametrize("results", [[JSONData], [DillDataBase64], [AllDataStrategies]])
@pytest.mark.parametrize("data", [DillDataBase64, JSONData])
def test_every_strategy_of_results(
    make: Make, near_store: Store[Any], data: Strategy, results: list[Strategy]
) -> None:
    executor = make(serializer=ComputeSerializer(strategy_data=data), result_serializers=results)
    text = "y" * BIG
    found = executor.submit(twice, text, extra=[text, {"b": text}]).result(PATIENCE)
    assert is_proxy(found[1][0])
    assert found[1][1]["b"] == text
    first = executor.submit(twice, text).result(PATIENCE)
    assert is_proxy(first)
    assert executor.submit(twice, first, n=1).result(PATIENCE) == text * 2
    assert executor.submit(twice, "z", n=1).result(PATIENCE) == "z"
    del first, found
    assert wait_for_none(near_store)


def test_arrays_travel_where_only_json_may(make: Make) -> None:
    executor = make(serializer=ComputeSerializer(PureSourceTextInspect, JSONData))
    array = np.ones(BIG)
    found = executor.submit(twice, array, n=3).result(PATIENCE)
    assert float(found.sum()) == 3 * BIG


def test_json_says_which_argument_it_does_not_take(make: Make) -> None:
    executor = make(serializer=ComputeSerializer(strategy_data=JSONData))
    future = executor.submit(twice, "x", extra={1, 2})
    with pytest.raises(ArgumentSerializationError, match=r"extra.*JSON serializable"):
        future.result(PATIENCE)


def test_results_of_any_shape_go_home_as_json(make: Make) -> None:
    def shapes(x):
        return {"list": [x, x], "number": 1, "proxystore": 1}

    executor = make(result_serializers=[JSONData])
    found = executor.submit(shapes, "x" * BIG).result(PATIENCE)
    assert found["list"][0] == "x" * BIG
    assert found["proxystore"] == 1
    assert executor.submit(dict, proxystore=1, result=2).result(PATIENCE) == {
        "proxystore": 1,
        "result": 2,
    }


def test_functions_of_others_get_json_by_value(near: InProcess, make: Make) -> None:
    def kind(x: Any) -> str:
        return type(x).__name__

    executor = make(serializer=ComputeSerializer(strategy_data=JSONData))
    elsewhere = near.client().register_function(kind)
    future = executor.submit_to_registered_function(elsewhere, ("x" * BIG,))
    assert future.result(PATIENCE) == "str"
    assert executor.stats().puts == 0


def test_a_serializer_set_later(make: Make) -> None:
    executor = make()
    assert executor.submit(twice, "a").result(PATIENCE) == "aa"
    executor.serializer = ComputeSerializer(PureSourceTextInspect, JSONData)
    assert executor.submit(twice, "b").result(PATIENCE) == "bb"
    assert is_proxy(executor.submit(countdown, "c" * BIG, 0).result(PATIENCE))


@pytest.mark.parametrize("data", DATA)
def test_another_serializer_on_the_client(make: Make, data: Strategy) -> None:
    executor = make(serializer=ComputeSerializer(strategy_data=data))
    executor.register_function(twice)
    executor.client.fx_serializer = ComputeSerializer(strategy_data=data)  # not ours any more
    result = executor.submit(twice, "x" * BIG, extra=1).result(PATIENCE)
    assert result == [BIG, 1]


@pytest.mark.parametrize("code", SOURCE)
def test_functions_that_call_themselves(make: Make, code: Strategy) -> None:
    executor = make(serializer=ComputeSerializer(code))
    found = executor.submit(countdown, "x" * BIG, 3).result(PATIENCE)
    assert len(found) == BIG + 3


def test_nested_functions_travel_as_source(make: Make) -> None:
    def inner(x):
        """Be inside."""
        return x + "!"

    executor = make(serializer=ComputeSerializer(PureSourceTextInspect))
    assert executor.submit(inner, "a").result(PATIENCE) == "a!"


def test_lambdas_fail_as_ever(make: Make) -> None:
    executor = make(serializer=ComputeSerializer(PureSourceTextInspect))
    with pytest.raises(TaskExecutionFailed):
        executor.submit(lambda x: x, 1).result(PATIENCE)
    either = make(serializer=ComputeSerializer(AllCodeStrategies))
    assert is_proxy(either.submit(lambda x: x * 2, "a" * BIG).result(PATIENCE))


def test_what_has_no_source_says_so(make: Make) -> None:
    executor = make(serializer=ComputeSerializer(PureSourceTextInspect))
    future = executor.submit(functools.partial(twice, n=1), "a")
    with pytest.raises(Exception, match="PureSourceTextInspect"):
        future.result(PATIENCE)


# Decorators and source

_store = Store("at import", cache_size=0)
_deco = auto_proxy(store=_store, threshold=THRESHOLD)
_short = functools.partial(auto_proxy, store=_store, threshold=THRESHOLD)


@pytest.fixture(scope="module", autouse=True)
def opened() -> Iterator[None]:
    _store.evict(_store.put("x" * BIG))  # its memory is opened before a test is watched
    yield
    _store.close()


@_deco
def by_object(x):
    """Have a decorator made before."""
    return x * 2


@pgc.auto_proxy(
    store=_store,
    threshold=THRESHOLD,
)
def by_call(x):
    return x * 2


@_short
def by_partial(x):
    return x * 2


@_deco
@functools.cache
def below(x):
    return x * 2


@pytest.mark.parametrize("code", [PureSourceTextInspect, PureSourceDill, DillCodeSource])
@pytest.mark.parametrize("func", [by_object, by_call, by_partial])
def test_our_decorator_stays_at_home(
    near: InProcess, make: Make, code: Strategy, func: Any
) -> None:
    executor = make(serializer=ComputeSerializer(code))
    assert is_proxy(executor.submit(func, "a" * BIG).result(PATIENCE))
    with near.executor(Executor, serializer=ProxySerializer(ComputeSerializer(code))) as plain:
        assert is_proxy(plain.submit(func, "a" * BIG).result(PATIENCE))


def test_a_decorator_made_nearby(make: Make) -> None:
    from proxystore_globus_compute import auto_proxy as nearby

    @nearby(store=_store)
    def func(x):
        return x

    @auto_proxy(store=_store)
    def other(x):
        return x

    executor = make(serializer=ComputeSerializer(PureSourceTextInspect))
    assert executor.submit(other, "a" * BIG).result(PATIENCE) == "a" * BIG
    future = executor.submit(func, "a")  # under another name: then the worker does not know it
    assert future.exception(PATIENCE) is not None


def test_plain_source_strategies_refuse_decorated_functions(near: InProcess) -> None:
    with near.executor(Executor, serializer=ComputeSerializer(AllCodeStrategies)) as plain:
        assert is_proxy(plain.submit(by_object, "a" * BIG).result(PATIENCE))
    client = near.client()
    client.fx_serializer = ComputeSerializer(PureSourceTextInspect)
    with pytest.raises(Exception, match="PureSourceTextInspect"):
        client.register_function(by_object)


# Allow-lists


@pytest.fixture(scope="module")
def strict() -> Iterator[InProcess]:
    allowed = ["globus_compute_sdk.serialize.PureSourceTextInspect", JSONData]
    with InProcess(ThreadPoolEngine(max_workers=1, allowed_serializers=allowed)) as made:
        yield made


def test_allow_lists_are_kept(strict: InProcess, near_store: Store[Any]) -> None:
    serializer = ComputeSerializer(PureSourceTextInspect, JSONData)
    with strict.executor(
        ProxyExecutor, store=near_store, threshold=THRESHOLD, serializer=serializer
    ) as executor:
        assert executor.submit(twice, "a" * BIG).result(PATIENCE) == "a" * 2 * BIG
        executor.serializer = ComputeSerializer()
        with pytest.raises(TaskExecutionFailed, match="DillCode disabled"):
            executor.submit(countdown, "a", 1).result(PATIENCE)


# The serializer itself


def test_the_serializer_does_as_the_one_behind_it() -> None:
    inner = ComputeSerializer(PureSourceTextInspect, JSONData)
    made = ProxySerializer(inner)
    assert made.code_serializer is inner.code_serializer
    assert made.data_serializer is inner.data_serializer
    assert made.allowed_deserializer_types == set()
    assert made.serialize({"a": 1}) == '11\n{"a": 1}'
    func, args, kwargs = made.check_strategies(twice, "a", n=3)
    assert func(*args, **kwargs) == "aaa"
    assert made.unpack_buffers(made.pack_buffers(["a", "b"])) == ["a", "b"]


def test_source_is_read_on_a_worker_with_nothing_but_us(near_store: Store[Any]) -> None:
    from proxystore_core.autoproxy import Session

    with Session(near_store, Policy(threshold=10)) as session:
        remote = RemoteFunction(twice, session.settings())
        serializer = ProxySerializer(ComputeSerializer(PureSourceTextInspect))
        made = serializer.deserialize(serializer.serialize(remote))
    assert type(made) is TaskFunction
    assert made("ab") == "abab"  # not called by an endpoint: the function itself
    assert made.__doc__ == "Say it again."
    json.dumps(serializer.serialize(remote))
