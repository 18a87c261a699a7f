"""`Store`: puts objects into a channel and makes proxies of them."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, cast, overload

from proxystore_core.exceptions import (
    MissingReason,
    NonProxiableTypeError,
    StoreArgumentError,
    StoreUnsupportedError,
)
from proxystore_core.proxy import Proxy, ProxyLocker, TargetInfo, describe
from proxystore_core.store import registry
from proxystore_core.store._codec import Codec
from proxystore_core.store._objects import ObjectStore
from proxystore_core.store.cache import LRUCache
from proxystore_core.store.config import ConnectorConfig, StoreConfig
from proxystore_core.store.factory import StoreFactory
from proxystore_core.store.metrics import StoreMetrics
from proxystore_core.store.types import ConnectorKeyT, ConnectorT, DeserializerT, SerializerT
from proxystore_core.utils.imports import get_object_path

if TYPE_CHECKING:
    from proxystore_core.store.future import Future
    from proxystore_core.store.lifetimes import Lifetime
    from proxystore_core.store.ref import OwnedProxy

T = TypeVar("T")
NonProxiableT = TypeVar("NonProxiableT", bool, None)


class Store(ObjectStore[ConnectorT]):
    """Stores objects in a channel, and makes proxies that get them from there.

    A store is its configuration: in every process a proxy finds, or makes, the
    store that its own was. Use it as a context manager, which closes it:

    ```python
    with Store("my-store") as store:
        proxy = store.proxy(array)
    ```

    Stores are safe to use from several threads. They cannot be pickled: send
    `store.config()`, or a proxy.

    Args:
        name: Name of the store.
        connector: The channel; `None` makes a new one through shared memory.
        serializer: Turns objects into bytes; `None` for the default.
        deserializer: Turns these bytes back; `None` for the default.
        cache_size: Most objects in the cache of this process; 0 for no cache.
        cache_bytes: Most bytes in the cache, a number or `'256 MB'`.
        metrics: Record how long operations take.
        populate_target: Whether proxies hold their target in the process that
            makes them. Where a custom serializer or deserializer changes the
            object, pass `False`.
        register: Make the store known under its name.
        verify: `True`: write digests, and want them right; `False`: none; `None`:
            where the connector's bytes leave this user and node.

    Raises:
        StoreConfigError: If an option has no meaning.
        StoreExistsError: If a store of this name is registered, and `register`.
    """

    def __init__(
        self,
        name: str,
        connector: ConnectorT | None = None,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        cache_size: int = 16,
        cache_bytes: int | str = "256 MB",
        metrics: bool = False,
        populate_target: bool = True,
        register: bool = False,
        verify: bool | None = None,
    ) -> None:
        # Made before the connector, so that bad options leave nothing behind.
        config = StoreConfig(
            name,
            ConnectorConfig("shm"),
            serializer=serializer,
            deserializer=deserializer,
            cache_size=cache_size,
            metrics=metrics,
            populate_target=populate_target,
            auto_register=register,
            cache_bytes=cache_bytes,
            verify=verify,
        )
        made = connector is None
        if connector is None:
            connector = cast("ConnectorT", config.connector.get_connector())
        trusted = getattr(connector, "trusted", False) is True
        digest = verify if verify is not None else not trusted
        super().__init__(
            connector,
            Codec(serializer, deserializer, verify=verify, digest=digest),
            LRUCache(cache_size, maxbytes=cast("int", config.cache_bytes)),
            StoreMetrics() if metrics else None,
        )
        self.closed = False
        self._kind = get_object_path(type(connector))
        self._config = config
        self._self = weakref.ref(self)
        if register:
            try:
                registry.register_store(self)
            except BaseException:
                if made:
                    connector.close()
                raise
        registry.store_opened(self, self.config())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.name!r}, {self.connector!r}{', closed' if self.closed else ''})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StoreUnsupportedError(
            "A store cannot be pickled: send store.config() and call get_or_create_store() "
            "there, or send a proxy."
        )

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._config.name

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Close the connector, and let nobody find this store any more.

        What becomes of the objects is the connector's affair. Closing twice is no error.

        Args:
            args: What the connector's `close` takes.
            kwargs: What the connector's `close` takes.
        """
        if not self.closed:
            registry.store_closed(self, self.config())
            self.closed = True
            self.cache.clear()
        self.connector.close(*args, **kwargs)

    def config(self) -> StoreConfig:
        """Return what `from_config` makes the same store from, in this or another process."""
        options = self.connector.config()
        if self._config.connector.kind != self._kind or self._config.connector.options != options:
            connector = ConnectorConfig(self._kind, options)
            self._config = dataclasses.replace(self._config, connector=connector)
        return self._config

    @classmethod
    def from_config(cls, config: StoreConfig) -> Store[Any]:
        """Make a store.

        Args:
            config: What `config` returned, or one written by hand.

        Raises:
            StoreConfigError: If there is no such connector, or not with these options.
            StoreExistsError: If it wants to be registered, and its name is taken.
        """
        connector = config.connector.get_connector()
        try:
            return cls(
                config.name,
                cast("ConnectorT", connector),
                serializer=config.serializer,
                deserializer=config.deserializer,
                cache_size=config.cache_size,
                cache_bytes=config.cache_bytes,
                metrics=config.metrics,
                populate_target=config.populate_target,
                register=config.auto_register,
                verify=config.verify,
            )
        except BaseException:
            connector.close()
            raise

    def missing_reason(self, key: ConnectorKeyT) -> MissingReason:
        """Say why there is no object under a key, as far as it is known."""
        reason = super().missing_reason(key)
        vague = reason in (MissingReason.UNKNOWN, MissingReason.NEVER_STORED)
        if vague and (self.closed or registry.was_closed(self.config())):
            return MissingReason.STORE_CLOSED
        return reason

    def future(
        self,
        *,
        evict: bool = False,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        polling_interval: float = 0.01,
        polling_backoff_factor: float = 1.5,
        polling_interval_limit: float | None = 1,
        polling_timeout: float | None = None,
    ) -> Future[Any]:
        """Make a future of an object, whose proxies can be sent before there is the object.

        Args:
            evict: Evict the object once a proxy resolved it.
            serializer: Serializer of the object; `None` for that of the store.
            deserializer: Deserializer of the object; `None` for that of the store.
            polling_interval: Seconds between the first two looks for the object.
            polling_backoff_factor: The interval grows by this factor with each look.
            polling_interval_limit: Longest interval, in seconds.
            polling_timeout: Proxies give up after so many seconds; `None` for never.

        Raises:
            StoreUnsupportedError: If the connector cannot make keys in advance.
        """
        from proxystore_core.store.future import make_future

        return make_future(
            self,
            evict=evict,
            serializer=serializer,
            deserializer=deserializer,
            polling_interval=polling_interval,
            polling_backoff_factor=polling_backoff_factor,
            polling_interval_limit=polling_interval_limit,
            polling_timeout=polling_timeout,
        )

    @overload
    def proxy(
        self, obj: NonProxiableT, *, skip_nonproxiable: Literal[True], **kwargs: Any
    ) -> NonProxiableT: ...

    @overload
    def proxy(
        self,
        obj: T,
        *,
        evict: bool = ...,
        lifetime: Lifetime | None = ...,
        serializer: SerializerT | None = ...,
        deserializer: DeserializerT | None = ...,
        populate_target: bool | None = ...,
        skip_nonproxiable: bool = ...,
        writable: bool = ...,
        **kwargs: Any,
    ) -> Proxy[T]: ...

    def proxy(
        self,
        obj: Any,
        *,
        evict: bool = False,
        lifetime: Lifetime | None = None,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = False,
        writable: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Store an object and return a proxy of it.

        Args:
            obj: The object.
            evict: Evict the object once the proxy is resolved somewhere.
            lifetime: Evict the object when this lifetime ends.
            serializer: Serializer of this object; `None` for that of the store.
            deserializer: Deserializer of this object; `None` for that of the store.
            populate_target: Whether the proxy holds its target in this process;
                `None` for the store's setting.
            skip_nonproxiable: Return `None`, `True` and `False` as they are.
            writable: Let consumers write to the arrays of their copy of the object.
            kwargs: What the connector's `put` takes beside the data.

        Raises:
            NonProxiableTypeError: If the object is `None` or a bool, which a proxy
                cannot stand for, and not `skip_nonproxiable`.
            StoreArgumentError: If both `evict` and `lifetime` are given.
            SerializationError: If the object cannot be serialized.
        """
        _check_end(evict, lifetime)
        if _is_nonproxiable(obj):
            if skip_nonproxiable:
                return obj
            raise _nonproxiable(obj)
        start = perf_counter_ns()
        key = self.put(obj, lifetime=lifetime, serializer=serializer, **kwargs)
        factory = self._factory(key, evict=evict, deserializer=deserializer, writable=writable)
        custom = self._codec.is_custom(serializer, deserializer)
        proxy = self._proxy(factory, obj, populate_target, custom=custom)
        self._record("store.proxy", key, start)
        return proxy

    @overload
    def proxy_batch(
        self, objs: Sequence[NonProxiableT], *, skip_nonproxiable: Literal[True], **kwargs: Any
    ) -> list[NonProxiableT]: ...

    @overload
    def proxy_batch(
        self,
        objs: Sequence[T],
        *,
        evict: bool = ...,
        lifetime: Lifetime | None = ...,
        serializer: SerializerT | None = ...,
        deserializer: DeserializerT | None = ...,
        populate_target: bool | None = ...,
        skip_nonproxiable: bool = ...,
        writable: bool = ...,
        **kwargs: Any,
    ) -> list[Proxy[T]]: ...

    def proxy_batch(
        self,
        objs: Sequence[Any],
        *,
        evict: bool = False,
        lifetime: Lifetime | None = None,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = False,
        writable: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Store several objects, all or none, and return proxies of them in their order.

        The arguments and errors are those of `proxy`.
        """
        _check_end(evict, lifetime)
        bad = [obj for obj in objs if _is_nonproxiable(obj)]
        if bad and not skip_nonproxiable:
            raise _nonproxiable(bad[0])
        start = perf_counter_ns()
        good = [obj for obj in objs if not _is_nonproxiable(obj)]
        keys = self.put_batch(good, lifetime=lifetime, serializer=serializer, **kwargs)
        custom = self._codec.is_custom(serializer, deserializer)
        made = []
        for key, obj in zip(keys, good, strict=True):
            factory = self._factory(key, evict=evict, deserializer=deserializer, writable=writable)
            made.append(self._proxy(factory, obj, populate_target, custom=custom))
        proxies = iter(made)
        self._record("store.proxy_batch", keys, start)
        return [obj if _is_nonproxiable(obj) else next(proxies) for obj in objs]

    def proxy_from_key(
        self,
        key: ConnectorKeyT,
        *,
        evict: bool = False,
        lifetime: Lifetime | None = None,
        deserializer: DeserializerT | None = None,
        info: TargetInfo | None = None,
        writable: bool = False,
    ) -> Proxy[Any]:
        """Return a proxy of an object that is stored already.

        Args:
            key: Key of the object.
            evict: Evict the object once the proxy is resolved.
            lifetime: Evict the object when this lifetime ends.
            deserializer: Deserializer of the object; `None` for that of the store.
            info: What is known of the object.
            writable: Let consumers write to the arrays of their copy of the object.

        Raises:
            StoreArgumentError: If both `evict` and `lifetime` are given.
        """
        _check_end(evict, lifetime)
        if lifetime is not None:
            lifetime.add_key(key, store=self)
        factory = self._factory(key, evict=evict, deserializer=deserializer, writable=writable)
        return Proxy(factory, info=info)

    @overload
    def locked_proxy(
        self, obj: NonProxiableT, *, skip_nonproxiable: Literal[True] = ..., **kwargs: Any
    ) -> NonProxiableT: ...

    @overload
    def locked_proxy(
        self, obj: T, *, skip_nonproxiable: bool = ..., **kwargs: Any
    ) -> ProxyLocker[T]: ...

    def locked_proxy(self, obj: Any, *, skip_nonproxiable: bool = True, **kwargs: Any) -> Any:
        """Store an object and return a proxy of it that cannot be resolved until unlocked.

        The arguments and errors are those of `proxy`.
        """
        proxy: Any = self.proxy(obj, skip_nonproxiable=skip_nonproxiable, **kwargs)
        return obj if _is_nonproxiable(obj) else ProxyLocker(proxy)

    @overload
    def owned_proxy(
        self, obj: NonProxiableT, *, skip_nonproxiable: Literal[True] = ..., **kwargs: Any
    ) -> NonProxiableT: ...

    @overload
    def owned_proxy(
        self, obj: T, *, skip_nonproxiable: bool = ..., **kwargs: Any
    ) -> OwnedProxy[T]: ...

    def owned_proxy(
        self,
        obj: Any,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        populate_target: bool | None = None,
        skip_nonproxiable: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Store an object and return the proxy that owns it: it evicts the object as it goes.

        Args:
            obj: The object.
            serializer: Serializer of this object; `None` for that of the store.
            deserializer: Deserializer of this object; `None` for that of the store.
            populate_target: Whether the proxy holds its target in this process.
            skip_nonproxiable: Return `None`, `True` and `False` as they are.
            kwargs: What the connector's `put` takes beside the data.

        Raises:
            NonProxiableTypeError: If the object is `None` or a bool, and not
                `skip_nonproxiable`.
            SerializationError: If the object cannot be serialized.
        """
        from proxystore_core.store.ref import into_owned

        proxy: Any = self.proxy(
            obj,
            serializer=serializer,
            deserializer=deserializer,
            populate_target=populate_target,
            skip_nonproxiable=skip_nonproxiable,
            **kwargs,
        )
        return obj if _is_nonproxiable(obj) else into_owned(proxy)

    def _factory(self, key: ConnectorKeyT, **options: Any) -> StoreFactory[ConnectorT, Any]:
        factory: StoreFactory[ConnectorT, Any] = StoreFactory(key, self.config(), **options)
        factory._store = self._self
        return factory

    def _proxy(
        self,
        factory: StoreFactory[ConnectorT, Any],
        obj: Any,
        populate_target: bool | None,
        *,
        custom: bool,
    ) -> Proxy[Any]:
        if populate_target is None:
            populate_target = self._config.populate_target
        # With a serializer of the user, consumers may get something else than `obj`.
        info = None if custom else describe(obj)
        return Proxy(factory, target=obj if populate_target else None, info=info)


def _is_nonproxiable(obj: object) -> bool:
    return obj is None or type(obj) is bool  # isinstance() could resolve a proxy


def _nonproxiable(obj: object) -> NonProxiableTypeError:
    return NonProxiableTypeError(
        f"{obj!r} cannot be proxied, since `is` and `if` would see the proxy: "
        "pass it as it is, or use skip_nonproxiable=True."
    )


def _check_end(evict: bool, lifetime: Lifetime | None) -> None:
    if evict and lifetime is not None:
        raise StoreArgumentError(
            "Either evict=True or a lifetime says when the object goes: give only one of them."
        )
