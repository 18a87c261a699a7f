from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.exceptions import (
    MissingReason,
    NonProxiableTypeError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    StoreArgumentError,
    StoreUnsupportedError,
)
from proxystore_core.proxy import (
    Proxy,
    ProxyLocker,
    extract,
    get_factory,
    get_info,
    is_proxy,
    is_resolved,
    resolve,
)
from proxystore_core.store import Store
from proxystore_core.store.lifetimes import ContextLifetime
from proxystore_core.store.ref import OwnedProxy
from proxystore_core.store.utils import get_key


def travel(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj))


def missing(proxy: Proxy[Any]) -> MissingReason:
    """Resolve a proxy whose object is gone."""
    with pytest.raises(ProxyResolveError) as caught:
        resolve(proxy)
    assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)
    assert isinstance(caught.value.cause, KeyError)
    assert caught.value.cause.reason.value in str(caught.value)
    return caught.value.cause.reason


def test_proxy(store: Store) -> None:
    proxy = store.proxy([1, 2])
    assert is_resolved(proxy)
    there = travel(proxy)
    assert not is_resolved(there)
    assert isinstance(there, list)
    assert len(there) == 2
    assert not is_resolved(there)
    assert there == [1, 2]
    assert extract(there) is not extract(proxy)


def test_default_connector_is_shared_memory(shm_store: Store) -> None:
    assert type(shm_store.connector).__name__ == "SharedMemoryConnector"
    array = np.arange(10_000)
    assert (travel(shm_store.proxy(array)) == array).all()


def test_populate_target() -> None:
    with Store("test", LocalConnector(), populate_target=False) as store:
        obj = [1]
        assert not is_resolved(store.proxy(obj))
        assert extract(store.proxy(obj, populate_target=True)) is obj
        assert not is_resolved(store.proxy_batch([obj])[0])
        assert isinstance(store.proxy(obj), list)


def test_facts_are_left_out_where_a_custom_serializer_may_change_the_object(store: Store) -> None:
    proxy = store.proxy([1], serializer=repr_bytes, deserializer=bytes.decode)
    assert get_info(proxy) is None
    assert travel(proxy) == "[1]"


def repr_bytes(obj: Any) -> bytes:
    return repr(obj).encode()


def test_proxy_batch(store: Store) -> None:
    proxies = store.proxy_batch(["a", None, "b", True], skip_nonproxiable=True)
    assert [is_proxy(proxy) for proxy in proxies] == [True, False, True, False]
    assert [travel(proxy) for proxy in proxies] == ["a", None, "b", True]
    assert proxies[1] is None
    assert proxies[3] is True


@pytest.mark.parametrize("value", [None, True, False])
def test_what_cannot_be_proxied(store: Store, value: Any) -> None:
    for call in (store.proxy, lambda obj: store.proxy_batch(["a", obj])):
        with pytest.raises(NonProxiableTypeError, match=repr(value)):
            call(value)
    for call in (store.locked_proxy, store.owned_proxy):
        assert call(value) is value
        with pytest.raises(NonProxiableTypeError):
            call(value, skip_nonproxiable=False)
    assert store.proxy(value, skip_nonproxiable=True) is value
    assert store.usage().objects == 0


def test_a_proxy_of_a_proxy_resolves_neither(store: Store) -> None:
    inner = travel(store.proxy([1]))
    outer = store.proxy(inner)
    assert not is_resolved(inner)
    assert travel(outer) == [1]
    assert travel(outer)[0] == 1


def test_locked_proxy(store: Store) -> None:
    locked = store.locked_proxy([1])
    assert type(locked) is ProxyLocker
    assert travel(locked).unlock() == [1]


def test_owned_proxy(store: Store) -> None:
    proxy = store.owned_proxy([1])
    assert type(proxy) is OwnedProxy
    key = get_key(proxy)
    assert proxy == [1]
    del proxy
    assert not store.exists(key)


def test_proxy_from_key(store: Store) -> None:
    key = store.put([1])
    assert travel(store.proxy_from_key(key)) == [1]
    info = get_info(store.proxy([1]))
    assert len(travel(store.proxy_from_key(key, info=info))) == 1
    with ContextLifetime(store) as lifetime:
        store.proxy_from_key(key, lifetime=lifetime)
    assert not store.exists(key)


def test_evict_goes_with_the_first_resolve(store: Store) -> None:
    proxy = store.proxy([1], evict=True)
    copies = [travel(proxy), travel(proxy)]
    assert copies[0] == [1]
    assert copies[0] == [1]
    assert not store.exists(get_key(proxy))
    assert proxy == [1]
    # A second consumer, or a retry of the task, is told what happened.
    assert missing(copies[1]) is MissingReason.EVICTED
    assert missing(copies[1]) is MissingReason.EVICTED


def test_an_object_that_cannot_be_deserialized_is_not_evicted(store: Store) -> None:
    def fail(data: Any) -> Any:
        raise ZeroDivisionError

    key = store.put("text", serializer=str.encode)
    proxy = store.proxy_from_key(key, evict=True, deserializer=fail)
    with pytest.raises(ProxyResolveError):
        resolve(proxy)
    assert store.exists(key)


def test_evict_and_lifetime_exclude_each_other(store: Store) -> None:
    with ContextLifetime(store) as lifetime:
        for call in (
            lambda **kw: store.proxy("a", **kw),
            lambda **kw: store.proxy_batch(["a"], **kw),
            lambda **kw: store.locked_proxy("a", **kw),
            lambda **kw: store.proxy_from_key(store.put("a"), **kw),
        ):
            with pytest.raises(StoreArgumentError, match="only one") as caught:
                call(evict=True, lifetime=lifetime)
            assert isinstance(caught.value, ValueError)


def test_writable_arrays(store: Store) -> None:
    array = np.zeros(1000)
    read_only, writable = travel(store.proxy(array)), travel(store.proxy(array, writable=True))
    with pytest.raises(ValueError, match="read-only"):
        read_only[0] = 1
    writable[0] = 1
    assert travel(store.proxy(array, writable=True))[0] == 0


@pytest.mark.parametrize("kind", ["local", "file", "shm"])
def test_missing_objects_say_what_happened(make_connector: Any, kind: str) -> None:
    with Store("test", make_connector(kind)) as store:
        never = store.proxy_from_key(store.connector.new_key())
        reason = missing(never)
        assert reason in (MissingReason.NEVER_STORED, MissingReason.UNKNOWN)
        assert (reason is MissingReason.NEVER_STORED) == (kind != "file")
        evicted = travel(store.proxy("value"))
        store.evict(get_key(evicted))
        assert missing(evicted) is MissingReason.EVICTED
        expired = travel(store.proxy("value"))
        store.evict_batch([get_key(expired)], reason=MissingReason.EXPIRED)
        assert missing(expired) is MissingReason.EXPIRED
        there = store.proxy("value", populate_target=False)
        travelled = pickle.dumps(there)
    if kind != "local":  # whose objects stay as long as a connector
        assert missing(there) is MissingReason.STORE_CLOSED
        assert missing(pickle.loads(travelled)) is MissingReason.STORE_CLOSED


@pytest.mark.parametrize("name", ["default", "a-longer-store-name"])
def test_pickles_are_small(name: str) -> None:
    # ProxyStore's take 690 to 790 bytes. The key is included.
    with Store(name) as store:
        proxy = store.proxy(np.zeros((1000, 1000)))
        for protocol in (4, 5):
            assert len(pickle.dumps(proxy, protocol)) <= 200
        assert len(cloudpickle.dumps(proxy)) <= 200


def test_pickles_of_a_file_store_are_small(tmp_path: Path) -> None:
    with Store("default", FileConnector(str(tmp_path / "s"))) as store:
        proxy = store.proxy(np.zeros((1000, 1000)))
        beside = len(str(tmp_path / "s")) - len("/scratch/me/store")
        assert len(pickle.dumps(proxy)) - beside <= 200


def test_all_options_travel(tmp_path: Path) -> None:
    with Store(
        "test",
        FileConnector(str(tmp_path)),
        cache_size=3,
        cache_bytes="1 MB",
        metrics=True,
        populate_target=False,
        verify=True,
        serializer=repr_bytes,
        deserializer=bytes.decode,
    ) as store:
        proxy = store.proxy([1], evict=True, writable=True, deserializer=len)
        factory = get_factory(travel(proxy))
        assert factory.store_config == store.config()
        assert (factory.evict, factory.writable, factory.deserializer) == (True, True, len)
        assert factory.key == get_key(proxy)
        assert type(factory.key) is type(get_key(proxy))
        with Store.from_config(factory.store_config) as there:
            assert there.config() == store.config()
            assert there.cache.maxbytes == 1_000_000


def test_proxies_of_foreign_connectors_travel(plain_store: Store) -> None:
    assert travel(plain_store.proxy([1])) == [1]
    assert type(get_key(travel(plain_store.proxy([1])))).__name__ == "LocalKey"


def test_from_config_shares_the_objects(store: Store) -> None:
    key = store.put("value")
    with Store.from_config(store.config()) as other:
        assert other.config() == store.config()
        assert other.get(key) == "value"
    assert store.get(key) == "value"


def test_closing_a_store_made_from_a_configuration_deletes_nothing(store: Store) -> None:
    # ProxyStore's workers deleted everybody's data.
    proxy = store.proxy("value")
    with Store.from_config(travel(store.config())):
        pass
    assert travel(proxy) == "value"


def test_another_process_resolves_a_proxy(tmp_path: Path) -> None:
    script = (
        "import pickle, sys; p = pickle.load(sys.stdin.buffer); print(type(p).__name__, p.sum())"
    )
    for store in (Store("test"), Store("test", FileConnector(str(tmp_path)))):
        with store:
            data = pickle.dumps(store.proxy(np.arange(1000)))
            run = [sys.executable, "-c", script]
            done = subprocess.run(run, input=data, capture_output=True, check=True)
            assert done.stdout.split() == [b"Proxy", b"499500"]
            assert done.stderr == b""
            assert pickle.loads(data).sum() == 499500


def test_a_local_proxy_in_another_process_is_out_of_reach() -> None:
    script = (
        "import pickle, sys\n"
        "from proxystore_core.proxy import resolve\n"
        "try: resolve(pickle.load(sys.stdin.buffer))\n"
        "except Exception as error: print(error.cause.reason.name)"
    )
    with Store("test", LocalConnector()) as store:
        data = pickle.dumps(store.proxy([1]))
        run = [sys.executable, "-c", script]
        done = subprocess.run(run, input=data, capture_output=True, check=True)
        assert done.stdout.strip() == b"UNREACHABLE"


def test_stores_cannot_be_pickled(store: Store) -> None:
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(StoreUnsupportedError, match=r"store\.config\(\)") as caught:
            dumps(store)
        assert isinstance(caught.value, TypeError)


def test_closing_reaches_the_connector_with_its_arguments(tmp_path: Path) -> None:
    store = Store("test", FileConnector(str(tmp_path)))
    key = store.put("value")
    store.close(clear=False)
    with Store("test", FileConnector(str(tmp_path))) as again:
        assert again.get(key) == "value"


def test_metrics_property_and_repr(store: Store) -> None:
    assert store.metrics is None
    assert store.name in repr(store)
    assert type(store.connector).__name__ in repr(store)


def test_a_failing_option_leaves_no_shared_memory() -> None:
    with pytest.raises(ValueError, match="no size"):
        Store("test", cache_bytes="a lot")


def test_a_store_that_nobody_holds_goes_at_once(plain: Any) -> None:
    # Shared memory goes with its connector, and should not wait for a garbage collection.
    gc.disable()
    try:
        for connector in (None, plain):
            store = Store("test", connector)
            store.get(store.put("value"))
            left = weakref.ref(store)
            proxy = store.proxy("value", populate_target=False)
            assert proxy == "value"
            del store
            assert left() is not None  # a proxy of this process needs it
            del proxy
            assert left() is None
    finally:
        gc.enable()
