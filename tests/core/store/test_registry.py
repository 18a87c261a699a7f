from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.exceptions import ProxyStoreFactoryError, StoreExistsError
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, extract, get_factory
from proxystore_core.store import (
    ConnectorConfig,
    Store,
    StoreConfig,
    get_or_create_store,
    get_store,
    register_store,
    registry,
    store_registration,
    unregister_store,
)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Unregister what a test made."""
    yield
    for store in {*registry._by_name.values(), *registry._made.values()}:
        store.close()


def test_register_and_unregister() -> None:
    with Store("one", LocalConnector()) as one, Store("one", LocalConnector()) as other:
        assert get_store("one") is None
        register_store(one)
        assert get_store("one") is one
        with pytest.raises(StoreExistsError, match="'one' is registered"):
            register_store(other)
        register_store(other, exist_ok=True)
        assert get_store("one") is other
        unregister_store(one)  # another one has the name
        assert get_store("one") is other
        unregister_store("one")
        unregister_store("one")
        assert get_store("one") is None
        register_store(one)
        unregister_store(one)
        assert get_store("one") is None


def test_store_registers_and_unregisters_itself() -> None:
    with Store("one", LocalConnector(), register=True) as store:
        assert get_store("one") is store
        with pytest.raises(StoreExistsError):
            Store("one", LocalConnector(), register=True)
    assert get_store("one") is None


def test_a_default_store_that_cannot_be_registered_leaves_nothing() -> None:
    with Store("one", LocalConnector(), register=True), pytest.raises(StoreExistsError):
        Store("one", register=True)


def test_store_registration() -> None:
    with Store("a", LocalConnector()) as a, Store("b", LocalConnector()) as b:
        with store_registration(a, b):
            assert get_store("a") is a
            assert get_store("b") is b
        assert get_store("a") is get_store("b") is None
        register_store(b)
        with pytest.raises(StoreExistsError), store_registration(a, b):
            pass
        assert get_store("a") is None
        with pytest.raises(ZeroDivisionError), store_registration(a):
            raise ZeroDivisionError
        assert get_store("a") is None


def test_a_proxy_finds_its_store() -> None:
    with Store("one", LocalConnector()) as store:
        assert get_store(store.proxy("value")) is store
        assert get_store(pickle.loads(pickle.dumps(store.proxy("value")))) is store
    with pytest.raises(ProxyStoreFactoryError, match="SimpleFactory"):
        get_store(Proxy(SimpleFactory(1)))


def test_equal_configurations_are_one_store(tmp_path: Path) -> None:
    config = StoreConfig("one", ConnectorConfig("file", {"store_dir": str(tmp_path)}))
    store = get_or_create_store(config)
    assert get_or_create_store(dataclasses.replace(config)) is store
    assert get_or_create_store(store.config()) is store
    assert get_store("one") is store


def test_same_name_and_another_configuration_is_another_store(tmp_path: Path) -> None:
    # ProxyStore went by the name: it gave the other store's data, or none.
    with Store("one", FileConnector(str(tmp_path / "a")), register=True) as a:
        here = a.proxy("of a", populate_target=False)
        connector = FileConnector(str(tmp_path / "b"))
        with Store("one", connector) as b:
            there = pickle.dumps(b.proxy("of b"))
            key, config = get_factory(pickle.loads(there)).key, b.config()
            del b
            gc.collect()
            made = get_or_create_store(config)
            assert made is not a
            assert get_store("one") is a
            assert made.get(key) == "of b"
            assert extract(pickle.loads(there)) == "of b"
            assert get_or_create_store(config) is made
            assert here == "of a"
            assert not a.exists(key)
        unregister_store(made)


def test_unregistered_stores_that_had_to_be_made_are_not_kept(tmp_path: Path) -> None:
    config = StoreConfig("one", ConnectorConfig("file", {"store_dir": str(tmp_path)}))
    store = get_or_create_store(config, register=False)
    assert get_store("one") is None
    assert get_or_create_store(config, register=False) is store
    del store
    gc.collect()
    assert registry.find_store(config) is None


def test_closed_stores_are_not_found(tmp_path: Path) -> None:
    config = StoreConfig("one", ConnectorConfig("file", {"store_dir": str(tmp_path)}))
    first = get_or_create_store(config)
    first.close()
    second = get_or_create_store(config)
    assert second is not first
    assert not second.closed


def test_threads_make_a_store_once(tmp_path: Path) -> None:
    config = StoreConfig("one", ConnectorConfig("file", {"store_dir": str(tmp_path)}))
    barrier = threading.Barrier(8)

    def get() -> Store:
        barrier.wait(10)
        return get_or_create_store(config)

    with ThreadPoolExecutor(8) as pool:
        stores = [future.result() for future in [pool.submit(get) for _ in range(8)]]
    assert len(set(stores)) == 1


def test_a_store_in_the_making_holds_nobody_up() -> None:
    # The registry's lock must not be held while a connector is made.
    with Store("other", LocalConnector(), register=True) as other:
        made = get_or_create_store(
            StoreConfig("slow", ConnectorConfig(f"{__name__}.SlowConnector"))
        )
        assert SlowConnector.found is other
        assert isinstance(made.connector, SlowConnector)


class SlowConnector(LocalConnector):
    """Looks, in another thread, for a store while it is made."""

    found: Store | None = None

    def __init__(self) -> None:
        super().__init__()
        with ThreadPoolExecutor(1) as pool:
            type(self).found = pool.submit(get_store, "other").result(10)

    @classmethod
    def from_config(cls, config: dict[str, object]) -> SlowConnector:
        return cls()


def test_a_forked_child_goes_on_when_locks_were_held() -> None:
    with Store("one", LocalConnector(), register=True) as store:
        key = store.put("value")
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with registry._lock, store.cache._lock, store._flights._lock:
                held.set()
                release.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        pid = os.fork()
        if pid == 0:
            try:
                ok = get_store("one") is store and store.get(key) == "value"
                os._exit(0 if ok else 1)
            finally:
                os._exit(2)
        release.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
