"""Which stores this process knows: by their name, and by what they are."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from proxystore_core.exceptions import MissingReason, ProxyStoreFactoryError, StoreExistsError
from proxystore_core.proxy import Proxy, get_factory, is_proxy
from proxystore_core.store._flight import SingleFlight
from proxystore_core.store.config import StoreConfig
from proxystore_core.store.types import ConnectorKeyT

if TYPE_CHECKING:
    from proxystore_core.store.base import Store

T = TypeVar("T")

_MAX_CLOSED = 1024

_lock = threading.RLock()
_by_name: dict[str, Store[Any]] = {}
_made: dict[StoreConfig, Store[Any]] = {}  # for proxies, where another store has the name
_live: weakref.WeakValueDictionary[StoreConfig, Store[Any]] = weakref.WeakValueDictionary()
_closed: dict[StoreConfig, None] = {}
_making: SingleFlight[StoreConfig, Store[Any]] = SingleFlight()


def get_store(val: str | Proxy[T]) -> Store[Any] | None:
    """Return the registered store of a name, or the store of a proxy.

    Args:
        val: A name, or a proxy. The store of a proxy is made where this process
            does not have it yet.

    Returns:
        The store, or `None` where none is registered under the name.

    Raises:
        ProxyStoreFactoryError: If the proxy does not come from a store.
    """
    if is_proxy(val):
        from proxystore_core.store.factory import StoreFactory

        factory: object = get_factory(cast("Proxy[T]", val))
        if not isinstance(factory, StoreFactory):
            raise ProxyStoreFactoryError(
                f"The proxy comes from a {type(factory).__name__}, not from a store: "
                "use a proxy that a Store made."
            )
        return factory.get_store()
    with _lock:
        return _by_name.get(str(val))


def get_or_create_store(store_config: StoreConfig, *, register: bool = True) -> Store[Any]:
    """Return the store that a configuration describes, and make it if need be.

    Every proxy finds its store this way: a store is its configuration, and one of
    the same name with another configuration never answers in its place.

    Args:
        store_config: The configuration.
        register: Keep a store that had to be made, under its name if that is free.

    Raises:
        StoreConfigError: If no store can be made from the configuration.
    """
    store = find_store(store_config)
    if store is not None:
        return store

    def make(configs: list[StoreConfig]) -> list[Store[Any]]:
        return [find_store(config) or _make(config, register) for config in configs]

    made = _making.fetch([store_config], make, lambda config, store: None)[store_config]
    assert made is not None  # noqa: S101 -- for the type checker: make() returns stores only
    return made


def find_store(store_config: StoreConfig) -> Store[Any] | None:
    """Return the open store of a configuration, if this process has one."""
    with _lock:
        return _live.get(store_config)


def register_store(store: Store[Any], exist_ok: bool = False) -> None:
    """Make a store known under its name in this process.

    Args:
        store: The store.
        exist_ok: Take the place of another store of this name.

    Raises:
        StoreExistsError: If a store of this name is registered, and not `exist_ok`.
    """
    config = store.config()
    with _lock:
        if store.name in _by_name and not exist_ok:
            raise StoreExistsError(
                f"A store named {store.name!r} is registered: get it with "
                f"get_store({store.name!r}), choose another name, or pass exist_ok=True."
            )
        _by_name[store.name] = store
        _live[config] = store


@contextlib.contextmanager
def store_registration(*stores: Store[Any], exist_ok: bool = False) -> Iterator[None]:
    """Register stores for the length of a `with` block.

    Args:
        stores: The stores.
        exist_ok: Take the place of other stores of these names.

    Raises:
        StoreExistsError: If a name is taken, and not `exist_ok`; no store is
            registered then.
    """
    with contextlib.ExitStack() as stack:
        for store in stores:
            register_store(store, exist_ok=exist_ok)
            stack.callback(unregister_store, store)
        yield


def unregister_store(name_or_store: str | Store[Any]) -> None:
    """Forget a registered store; one that is not registered is no error.

    Args:
        name_or_store: Its name or, to forget no other store of its name, itself.
    """
    with _lock:
        if isinstance(name_or_store, str):
            _by_name.pop(name_or_store, None)
            for config in [config for config in _made if config.name == name_or_store]:
                del _made[config]
            return
        if _by_name.get(name_or_store.name) is name_or_store:
            del _by_name[name_or_store.name]
        for config in [config for config, store in _made.items() if store is name_or_store]:
            del _made[config]


def store_opened(store: Store[Any], config: StoreConfig) -> None:
    """Let proxies find a new store, unless they find one like it already."""
    with _lock:
        _live.setdefault(config, store)


def store_closed(store: Store[Any], config: StoreConfig) -> None:
    """Let nobody find a closed store."""
    with _lock:
        unregister_store(store)
        for found in [found for found, live in _live.items() if live is store]:
            del _live[found]  # by its own words, and by those it was asked for with
        _closed.pop(config, None)
        _closed[config] = None
        if len(_closed) > _MAX_CLOSED:
            del _closed[next(iter(_closed))]


def evict_late(
    config: StoreConfig,
    keys: Iterable[ConnectorKeyT],
    reason: MissingReason = MissingReason.EVICTED,
) -> None:
    """Evict objects of a store, though it may be closed by now.

    Args:
        config: Configuration of the store. Where it was closed, one like it is made for this.
        keys: Keys of the objects.
        reason: What to answer whoever asks for them later.

    Raises:
        ConnectorError: If some could not be removed; all others are.
    """
    if find_store(config) is not None or not was_closed(config):
        get_or_create_store(config).evict_batch(keys, reason=reason)
        return
    with _make(config, register=False) as store:
        store.evict_batch(keys, reason=reason)


def was_closed(config: StoreConfig) -> bool:
    """Tell whether a store of this configuration was closed in this process."""
    with _lock:
        return config in _closed


def _make(config: StoreConfig, register: bool) -> Store[Any]:
    from proxystore_core.store.base import Store  # it stands above this module

    store = Store.from_config(dataclasses.replace(config, auto_register=False))
    with _lock:
        # The connector may describe itself in other words: it must be found by ours, too.
        _live[config] = store
        if register:
            if config.name in _by_name:
                _made[config] = store
            else:
                _by_name[config.name] = store
    return store


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _making.reset()
    for store in set(_live.values()):
        store.reset_locks()


os.register_at_fork(after_in_child=_after_fork)
