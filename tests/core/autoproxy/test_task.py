from __future__ import annotations

import functools
import inspect
import operator
import pickle
from typing import Any

import cloudpickle
import numpy as np
import pytest

from proxystore_core.autoproxy import Policy, Remote, Session
from proxystore_core.autoproxy.refs import channel_of
from proxystore_core.autoproxy.settings import Settings, settings_of
from proxystore_core.proxy import is_proxy
from proxystore_core.store import Store

BIG = 50_000


def double(x: int, *, by: int = 2) -> int:
    """Multiply."""
    return x * by


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n

    def add(self, x: int) -> int:
        return x + self.n

    @classmethod
    def make(cls, n: int) -> int:
        return cls(n).n

    @staticmethod
    def plus(x: int) -> int:
        return x + 1


class Unhashable(Adder):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable) and other.n == self.n


def local() -> Any:
    offset = 10
    return lambda x: x + offset


@pytest.fixture
def settings(store: Store[Any]) -> Settings:
    return Settings(channel_of(store), Policy())


CALLABLES = [
    double,
    functools.partial(double, by=3),
    functools.partial(lambda x, y: x + y, 1),
    Adder(3),
    Adder(3).add,
    Adder.make,
    Adder.plus,
    operator.neg,
    abs,
    int,
    local(),
    Unhashable(4),
    np.negative,
]


@pytest.mark.parametrize("func", CALLABLES, ids=lambda f: getattr(f, "__name__", type(f).__name__))
@pytest.mark.parametrize("pickler", [pickle, cloudpickle, "dill"], ids=str)
def test_every_callable_travels(func: Any, pickler: Any, settings: Settings) -> None:
    if pickler == "dill":
        pickler = pytest.importorskip("dill")
    remote = Remote(func, settings)
    again = pickler.loads(pickler.dumps(remote))
    assert again(5) == func(5)
    assert again._settings is settings_of(settings.wire)
    hash(remote)
    assert remote == Remote(func, settings)
    assert hash(remote) == hash(Remote(func, settings))


def test_it_is_small_beside_its_function(settings: Settings) -> None:
    assert len(pickle.dumps(Remote(double, settings))) - len(pickle.dumps(double)) <= 250


def test_it_looks_like_its_function(settings: Settings) -> None:
    remote = Remote(double, settings)
    assert remote.__name__ == "double"
    assert remote.__qualname__ == "double"
    assert remote.__doc__ == "Multiply."
    assert remote.__module__ == __name__
    assert remote.__wrapped__ is double
    assert inspect.signature(remote) == inspect.signature(double)
    assert Remote(functools.partial(double, 1), settings).__name__ == "double"
    assert Remote(Adder(1), settings).__name__ == "Adder"
    assert "double" in repr(remote)
    assert Remote.__module__ == "proxystore_core.autoproxy.task"
    hidden = Remote(double, Settings(settings.channel, Policy(), wrapped=False))
    assert not hasattr(hidden, "__wrapped__")
    assert not hasattr(pickle.loads(pickle.dumps(hidden)), "__wrapped__")


def test_equality_is_by_function_and_settings(settings: Settings) -> None:
    other = Settings(settings.channel, Policy(threshold=1))
    assert Remote(double, settings) == Remote(double, settings)
    assert Remote(double, settings) != Remote(abs, settings)
    assert Remote(double, settings) != Remote(double, other)
    assert Remote(double, settings) != double
    assert len({Remote(double, settings), Remote(double, settings)}) == 1


def test_local_classes_in_a_policy_travel(store: Store[Any]) -> None:
    class Mine:
        pass

    policy = Policy(types=(Mine,), should_proxy=None, exclude=(dict,))
    settings = Settings(channel_of(store), policy)
    again = pickle.loads(pickle.dumps(Remote(double, settings)))
    assert again._settings.policy == policy
    assert Remote(double, settings)(3) == 6


def test_a_closure_is_pickled_as_it_is_now(settings: Settings) -> None:
    state = {"n": 1}

    def read() -> int:
        return state["n"]

    remote = Remote(read, settings)
    assert pickle.loads(pickle.dumps(remote))() == 1
    state["n"] = 2
    assert pickle.loads(pickle.dumps(remote))() == 2


def test_unpicklable_functions_give_the_error_of_the_pickler(settings: Settings) -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pickle.dumps(Remote(lambda: lock, settings))


def test_many_references_are_fetched_side_by_side(file_store: Store[Any], tasks: Any) -> None:
    with Session(file_store) as session:
        arrays = [np.full(BIG, float(i)) for i in range(5)]
        task = session.prepare(tasks.totals, arrays)
        func, args = pickle.loads(pickle.dumps((task.func, task.args)))
        assert func(*args) == [BIG * float(i) for i in range(5)]
        task.lease.release()


def test_a_user_proxy_comes_back_in_an_envelope(settings: Settings, store: Store[Any]) -> None:
    proxy = store.proxy([1, 2, 3])
    made = Remote(lambda: proxy, settings)()
    assert not callable(made)
    assert is_proxy(made.value)
    none = Settings(settings.channel, Policy(results=False))
    assert not callable(Remote(lambda: proxy, none)())
    store.evict(proxy.__proxy_factory__.key)


def test_dask_tokens_are_stable(settings: Settings) -> None:
    tokenize = pytest.importorskip("dask.base").tokenize
    assert tokenize(Remote(double, settings)) == tokenize(Remote(double, settings))
    assert tokenize(Remote(double, settings)) != tokenize(Remote(local(), settings))


def test_lazy_reaches_into_containers(store: Store[Any], tasks: Any) -> None:
    with Session(store, Policy(resolve="lazy")) as session:
        task = session.prepare(
            lambda x: [is_proxy(x["a"][0]), float(x["a"][0].sum())], ({"a": [np.ones(BIG)]},)
        )
        func, args = pickle.loads(pickle.dumps((task.func, task.args)))
        assert func(*args) == [True, BIG]
        task.lease.release()
