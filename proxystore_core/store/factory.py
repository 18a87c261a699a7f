"""What a proxy of a store carries: the key of its object and the store's configuration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from proxystore_core.exceptions import ProxyResolveMissingKeyError
from proxystore_core.proxy import Proxy, TargetInfo
from proxystore_core.store._compact import pack_config, pack_info, unpack_config, unpack_info
from proxystore_core.store.config import StoreConfig
from proxystore_core.store.registry import get_or_create_store
from proxystore_core.store.types import ConnectorKeyT, ConnectorT, DeserializerT

if TYPE_CHECKING:
    from concurrent.futures import Future

    from proxystore_core.store.base import Store

T = TypeVar("T")
MISSING = object()


class StoreFactory(Generic[ConnectorT, T]):
    """Gets an object from a store.

    Args:
        key: Key of the object.
        store_config: Configuration of its store, which is made where a process
            does not have it yet.
        evict: Evict the object once it was resolved.
        deserializer: Deserializer of this object; `None` for that of the store.
        writable: Hand out arrays that can be written to. What is written stays
            in this process.
    """

    def __init__(
        self,
        key: ConnectorKeyT,
        store_config: StoreConfig,
        *,
        evict: bool = False,
        deserializer: DeserializerT | None = None,
        writable: bool = False,
    ) -> None:
        self._key = key
        self.store_config = store_config
        self.evict = evict
        self.deserializer = deserializer
        self.writable = writable
        self._store: Store[Any] | None = None  # kept, as what its connector holds may go with it
        self._future: Future[T] | None = None

    def __call__(self) -> T:
        """Get the object, or what `resolve_async` got of it."""
        start = time.perf_counter_ns()
        future, self._future = self._future, None
        # A resolve that no thread began yet is done here: waiting for it could last for ever.
        obj = self.resolve() if future is None or future.cancel() else future.result()
        self._time("factory.call", start)
        return obj

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r}, store={self.store_config.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None, "_future": None}

    def __reduce__(self) -> Any:
        if type(self) in _CLASSES:
            return load_factory, self._pack(None)
        return super().__reduce__()  # of a class of the user, which has what we know nothing of

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__() if type(self) in _CLASSES else super().__reduce_ex__(protocol)

    def __proxy_reduce__(self, info: TargetInfo | None, proxy_cls: type[Proxy[Any]]) -> Any:
        if type(self) in _CLASSES and proxy_cls is Proxy:
            return load_proxy, self._pack(info)
        return NotImplemented

    def __proxy_token__(self) -> object:
        connector = self.store_config.connector
        options = repr(sorted(connector.options.items()))
        return (self.store_config.name, connector.short_kind(), options, *self._key)

    @property
    def key(self) -> ConnectorKeyT:
        """Key of the object."""
        if type(self._key) is tuple:
            self._key = self.store_config.connector.make_key(self._key)
        return self._key

    def get_store(self) -> Store[ConnectorT]:
        """Return the store, which is made if need be.

        Raises:
            StoreConfigError: If this process cannot make it.
        """
        store = self._store
        if store is None or store.closed:
            store = self._store = get_or_create_store(self.store_config, register=True)
        return store

    def resolve(self) -> T:
        """Get the object.

        Raises:
            ProxyResolveMissingKeyError: If there is no object; its `reason` says why.
        """
        start = time.perf_counter_ns()
        store = self.get_store()
        obj = self._get(store)
        if obj is MISSING:
            raise self._missing(store)
        if self.evict:
            store.evict(self.key)
        self._time("factory.resolve", start)
        return cast("T", obj)

    def resolve_async(self) -> Future[T]:
        """Start to get the object in another thread; the next call of the factory waits for it.

        Returns:
            The future of the object.
        """
        if self._future is None:
            from proxystore_core.store._background import submit

            self._future = submit(self.resolve)
        return self._future

    def _pack(self, info: TargetInfo | None) -> tuple[Any, ...]:
        name, kind, options, store_options = pack_config(self.store_config)
        # The type of our own keys is known from the kind.
        key = self._key if "." in kind else tuple(self._key)
        args = [name, kind, options, key, pack_info(info), store_options, self._options()]
        while not args[-1]:
            args.pop()
        return tuple(args)

    def _options(self) -> dict[str, Any]:
        names = ("evict", "deserializer", "writable")
        return {
            name: value for name in names if (value := getattr(self, name)) not in (None, False)
        }

    def _get(self, store: Store[Any]) -> Any:
        return store.get(
            self.key, deserializer=self.deserializer, default=MISSING, writable=self.writable
        )

    def _missing(self, store: Store[Any]) -> ProxyResolveMissingKeyError:
        reason = store.missing_reason(self.key)
        return ProxyResolveMissingKeyError(self.key, type(store), store.name, reason)

    def _time(self, name: str, start: int) -> None:
        if self.store_config.metrics:
            metrics = self.get_store().metrics
            if metrics is not None:
                metrics.add_time(name, self.key, (time.perf_counter_ns() - start) / 1e6)


class PollingStoreFactory(StoreFactory[ConnectorT, T]):
    """Gets an object that is yet to come.

    Args:
        key: Key of the object.
        store_config: Configuration of its store.
        deserializer: Deserializer of this object; `None` for that of the store.
        evict: Evict the object once it was resolved.
        polling_interval: Seconds between the first two looks.
        polling_backoff_factor: The interval grows by this factor with each look.
        polling_interval_limit: Longest interval, in seconds.
        polling_timeout: Give up after so many seconds; `None` for never.
        writable: Hand out arrays that can be written to.
    """

    def __init__(
        self,
        key: ConnectorKeyT,
        store_config: StoreConfig,
        *,
        deserializer: DeserializerT | None = None,
        evict: bool = False,
        polling_interval: float = 0.01,
        polling_backoff_factor: float = 1.5,
        polling_interval_limit: float | None = 1,
        polling_timeout: float | None = None,
        writable: bool = False,
    ) -> None:
        super().__init__(
            key, store_config, evict=evict, deserializer=deserializer, writable=writable
        )
        self.polling_interval = polling_interval
        self.polling_backoff_factor = polling_backoff_factor
        self.polling_interval_limit = polling_interval_limit
        self.polling_timeout = polling_timeout

    def _options(self) -> dict[str, Any]:
        polling = (
            self.polling_interval,
            self.polling_backoff_factor,
            self.polling_interval_limit,
            self.polling_timeout,
        )
        return {**super()._options(), "polling": polling}

    def resolve(self) -> T:
        """Wait for the object.

        Raises:
            FutureTimeoutError: If it did not come in time.
            ProxyResolveMissingKeyError: If it came, and is gone again.
            Exception: What the producer set in its place.
        """
        from proxystore_core.store.future import wait

        start = time.perf_counter_ns()
        obj = wait(self, self.polling_timeout)
        self._time("factory.polling_resolve", start)
        return obj


_CLASSES = (StoreFactory, PollingStoreFactory)


def load_factory(
    name: str,
    kind: str,
    options: tuple[Any, ...],
    key: tuple[Any, ...],
    facts: tuple[Any, ...] = (),
    store_options: dict[str, Any] | None = None,
    own_options: dict[str, Any] | None = None,
) -> StoreFactory[Any, Any]:
    """Make a factory from what is in a pickle."""
    config = unpack_config(name, kind, options, store_options or {})
    own_options = dict(own_options or {})
    polling = own_options.pop("polling", None)
    if polling is None:
        return StoreFactory(key, config, **own_options)
    names = ("interval", "backoff_factor", "interval_limit", "timeout")
    own_options |= {f"polling_{name}": value for name, value in zip(names, polling, strict=True)}
    return PollingStoreFactory(key, config, **own_options)


def load_proxy(*args: Any) -> Proxy[Any]:
    """Make a proxy from what is in a pickle."""
    return Proxy(load_factory(*args), info=unpack_info(args[4]) if len(args) > 4 else None)


load_proxy.__module__ = "proxystore_core.store"  # a short path, since it is in every pickle
