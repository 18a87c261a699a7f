from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

from proxystore_core.exceptions import (
    FutureTimeoutError,
    MissingReason,
    ProxyResolveMissingKeyError,
    StoreConfigError,
)
from proxystore_core.proxy import Proxy, extract, get_factory
from proxystore_core.store import ConnectorConfig, Store, StoreConfig, StoreFactory
from proxystore_core.store.factory import PollingStoreFactory

DEADLINE = 10


class CountingFactory(StoreFactory[Any, Any]):
    """A factory of a user, with a field of its own."""

    resolved = 0

    def resolve(self) -> Any:
        self.resolved += 1
        return super().resolve()


def test_resolve(store: Store) -> None:
    key = store.put("value")
    factory: StoreFactory[Any, str] = StoreFactory(key, store.config())
    assert factory.get_store() is store
    assert factory.resolve() == factory() == "value"
    assert repr(key) in repr(factory)


def test_missing_key(store: Store) -> None:
    key = store.put("value")
    store.evict(key)
    with pytest.raises(ProxyResolveMissingKeyError) as caught:
        StoreFactory(key, store.config()).resolve()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.key, error.store_name, error.reason) == (key, store.name, MissingReason.EVICTED)


def test_resolve_async(store: Store) -> None:
    key = store.put("value")
    factory: StoreFactory[Any, str] = StoreFactory(key, store.config())
    future = factory.resolve_async()
    assert factory.resolve_async() is future
    assert future.result(DEADLINE) == "value"
    store.evict(key)
    assert factory() == "value"
    with pytest.raises(ProxyResolveMissingKeyError):
        factory()


def test_a_failed_resolve_async_is_not_remembered(plain: Any, plain_store: Store) -> None:
    factory: StoreFactory[Any, str] = StoreFactory(plain_store.put("value"), plain_store.config())

    def fail(key: Any) -> None:
        raise ConnectionError("down")

    plain.before_get = fail
    assert isinstance(factory.resolve_async().exception(DEADLINE), ConnectionError)
    with pytest.raises(ConnectionError):
        factory()
    plain.before_get = lambda key: None
    assert factory() == "value"


def test_a_resolve_that_waits_for_a_thread_is_done_at_once(plain: Any, plain_store: Store) -> None:
    # All threads of the pool may be waiting for what waits in the pool.
    go_on = threading.Event()
    plain.before_get = lambda key: go_on.wait(DEADLINE)
    factories = [
        StoreFactory(key, plain_store.config()) for key in plain_store.put_batch(list(range(40)))
    ]
    try:
        futures = [factory.resolve_async() for factory in factories]
        assert not futures[-1].running()
        plain.before_get = lambda key: None
        assert factories[-1]() == 39
        assert futures[-1].cancelled()
    finally:
        go_on.set()
    assert [factory() for factory in factories[:-1]] == list(range(39))


def test_pickles_without_what_belongs_to_the_process(store: Store) -> None:
    factory: StoreFactory[Any, str] = StoreFactory(store.put("value"), store.config(), evict=True)
    factory.resolve_async().result(DEADLINE)
    for made in (pickle.loads(pickle.dumps(factory)), copy.copy(factory)):
        assert type(made) is StoreFactory
        assert (made.key, made.store_config, made.evict) == (factory.key, store.config(), True)
        assert made._future is None


def test_polling_factories_travel(store: Store) -> None:
    factory: PollingStoreFactory[Any, str] = PollingStoreFactory(
        store.connector.new_key(),
        store.config(),
        evict=True,
        polling_interval=0.001,
        polling_backoff_factor=2,
        polling_interval_limit=None,
        polling_timeout=0.05,
    )
    made = get_factory(pickle.loads(pickle.dumps(Proxy(factory))))
    assert type(made) is PollingStoreFactory
    assert vars(made).keys() == vars(factory).keys()
    for name, value in vars(factory).items():
        if name.startswith("polling_"):
            assert getattr(made, name) == value
    with pytest.raises(FutureTimeoutError):
        made()
    store._set(factory.key, "value")
    assert made() == "value"
    assert not store.exists(factory.key)


def test_factories_of_users_keep_their_class_and_fields(store: Store) -> None:
    factory = CountingFactory(store.put("value"), store.config())
    assert factory() == "value"
    for made in (pickle.loads(pickle.dumps(factory)), copy.copy(factory)):
        assert type(made) is CountingFactory
        assert made.resolved == 1
    proxy = pickle.loads(pickle.dumps(Proxy(factory)))
    assert extract(proxy) == "value"
    assert get_factory(proxy).resolved == 2


def test_a_store_that_cannot_be_made_says_why() -> None:
    config = StoreConfig("test", ConnectorConfig("no.such.Connector"))
    with pytest.raises(StoreConfigError, match=r"no\.such\.Connector"):
        StoreFactory(("key",), config).resolve()


def test_tokens_are_deterministic_and_differ_by_key(store: Store) -> None:
    from dask.base import tokenize

    one, other = store.proxy([1]), store.proxy([1])
    assert tokenize(one) == tokenize(pickle.loads(pickle.dumps(one)))
    assert tokenize(one) != tokenize(other)
