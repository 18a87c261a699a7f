from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_core.exceptions import ProxyResolveError, ProxyStoreFactoryError
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, is_resolved
from proxystore_core.store import Store
from proxystore_core.store.utils import get_key, resolve_all, resolve_async

DEADLINE = 10


def unresolved(store: Store, *objs: Any) -> list[Any]:
    return store.proxy_batch(objs, populate_target=False)


def test_get_key(store: Store) -> None:
    key = store.put("value")
    proxy = store.proxy_from_key(key)
    assert get_key(proxy) == get_key(pickle.loads(pickle.dumps(proxy))) == key
    assert not is_resolved(proxy)
    with pytest.raises(ProxyStoreFactoryError, match="SimpleFactory"):
        get_key(Proxy(SimpleFactory(1)))


def test_resolve_async(store: Store) -> None:
    (proxy,) = unresolved(store, [1])
    assert resolve_async(proxy).result(DEADLINE) is None
    assert is_resolved(proxy)
    assert resolve_async(proxy).done()
    with pytest.raises(ProxyStoreFactoryError):
        resolve_async(Proxy(SimpleFactory(1)))


def test_resolve_async_gets_once_though_it_is_used_meanwhile(
    plain: Any, plain_store: Store
) -> None:
    (proxy,) = unresolved(plain_store, [1])
    started, go_on = threading.Event(), threading.Event()

    def wait(key: Any) -> None:
        started.set()
        assert go_on.wait(DEADLINE)

    plain.before_get = wait
    future = resolve_async(proxy)
    assert started.wait(DEADLINE)
    with ThreadPoolExecutor(1) as pool:
        used = pool.submit(lambda: proxy == [1])
        go_on.set()
        assert used.result(DEADLINE)
    assert future.result(DEADLINE) is None
    assert len(plain.gets) == 1


def test_resolve_async_fails_with_what_resolving_raises(store: Store) -> None:
    (proxy,) = unresolved(store, [1])
    store.evict(get_key(proxy))
    assert isinstance(resolve_async(proxy).exception(DEADLINE), ProxyResolveError)


def test_resolve_all_works_side_by_side(plain: Any, plain_store: Store) -> None:
    proxies = unresolved(plain_store, *range(4))
    barrier = threading.Barrier(4)
    plain.before_get = lambda key: barrier.wait(DEADLINE)  # all four have to be in it
    resolve_all(*proxies)
    assert all(map(is_resolved, proxies))


def test_resolve_all_with_one_worker_uses_the_caller(plain: Any, plain_store: Store) -> None:
    proxies = unresolved(plain_store, *range(4))
    threads = set()
    plain.before_get = lambda key: threads.add(threading.get_ident())
    resolve_all(*proxies, max_workers=1)
    assert threads == {threading.get_ident()}


def test_resolve_all_of_nothing_and_of_what_is_there(store: Store) -> None:
    resolve_all()
    proxies = store.proxy_batch([1, 2])
    store.evict_batch(map(get_key, proxies))
    resolve_all(*proxies)


def test_resolve_all_does_all_others_before_it_fails(store: Store) -> None:
    proxies = unresolved(store, *"abcd")
    store.evict_batch(map(get_key, proxies[:2]))
    with pytest.raises(ProxyResolveError, match="evicted") as caught:
        resolve_all(*proxies)
    assert caught.value.__notes__ == ["2 of 4 proxies failed."]
    assert [is_resolved(proxy) for proxy in proxies] == [False, False, True, True]


def test_resolve_all_inside_of_resolve_all(plain: Any, plain_store: Store) -> None:
    # A pool that waits for itself would stop here.
    inner = unresolved(plain_store, *range(8))

    class Outer:
        def __call__(self) -> int:
            resolve_all(*inner)
            return sum(inner)

    outer = [Proxy(Outer()) for _ in range(64)]
    resolve_all(*outer, max_workers=64)
    assert outer == [28] * 64
