"""Small things to do with the proxies of stores."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, TypeVar

from proxystore_core.exceptions import ProxyStoreFactoryError
from proxystore_core.proxy import Proxy, get_factory, is_resolved, resolve
from proxystore_core.store._background import submit
from proxystore_core.store.factory import StoreFactory
from proxystore_core.store.types import ConnectorKeyT

T = TypeVar("T")


def get_store_factory(proxy: Proxy[T]) -> StoreFactory[Any, T]:
    """Return the factory of a proxy.

    Raises:
        ProxyStoreFactoryError: If the proxy does not come from a store.
    """
    factory = get_factory(proxy)
    if not isinstance(factory, StoreFactory):
        raise ProxyStoreFactoryError(
            f"The proxy comes from a {type(factory).__name__}, not from a store: "
            "use a proxy that a Store made."
        )
    return factory


def get_key(proxy: Proxy[T]) -> ConnectorKeyT:
    """Return the key of the object that a proxy stands for.

    Raises:
        ProxyStoreFactoryError: If the proxy does not come from a store.
    """
    return get_store_factory(proxy).key


def resolve_async(proxy: Proxy[T]) -> Future[None]:
    """Start to resolve a proxy in another thread.

    Whoever uses the proxy meanwhile waits for that thread instead of getting the
    object a second time.

    Returns:
        A future that is done when the proxy is resolved; its exception is what
        resolving it raised.

    Raises:
        ProxyStoreFactoryError: If the proxy does not come from a store.
    """
    get_store_factory(proxy)
    if is_resolved(proxy):
        done: Future[None] = Future()
        done.set_result(None)
        return done
    return submit(resolve, proxy)


def resolve_all(*proxies: Proxy[Any], max_workers: int = 8) -> None:
    """Resolve proxies side by side, and return when all of them are.

    Args:
        proxies: The proxies, from any stores; those that are resolved already cost nothing.
        max_workers: Most threads to use, that of the caller included.

    Raises:
        ProxyResolveError: If one cannot be resolved, when all others are done.
    """
    todo = [proxy for proxy in proxies if not is_resolved(proxy)]
    errors: list[Exception] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not todo:
                    return
                proxy = todo.pop(0)
            try:
                resolve(proxy)
            except Exception as error:  # noqa: BLE001 -- raised below, when all are done
                errors.append(error)

    # The caller works too, so that no pool can be too small for what waits in it.
    helpers = [submit(work) for _ in range(min(max_workers, len(todo)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if errors:
        if len(errors) > 1:
            errors[0].add_note(f"{len(errors)} of {len(proxies)} proxies failed.")
        raise errors[0]
