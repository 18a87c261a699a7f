"""Proxies of objects: what a store does beside putting and getting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from proxystore_core.exceptions import NonProxiableTypeError, StoreArgumentError
from proxystore_core.proxy import Proxy, ProxyLocker, TargetInfo, describe
from proxystore_core.store._codec import Codec
from proxystore_core.store._objects import ObjectStore
from proxystore_core.store.cache import LRUCache
from proxystore_core.store.config import ConnectorConfig, StoreConfig, to_bytes
from proxystore_core.store.factory import StoreFactory
from proxystore_core.store.metrics import StoreMetrics
from proxystore_core.store.types import ConnectorKeyT, ConnectorT, DeserializerT, SerializerT
from proxystore_core.utils.imports import get_object_path

if TYPE_CHECKING:
    from proxystore_core.store.lifetimes import Lifetime
    from proxystore_core.store.ref import OwnedProxy

T = TypeVar("T")
NonProxiableT = TypeVar("NonProxiableT", bool, None)


class ProxyStore(ObjectStore[ConnectorT]):
    """Makes proxies of objects; `Store` is what to use."""

    def __init__(self, connector: ConnectorT, config: StoreConfig) -> None:
        verify = config.verify
        trusted = getattr(connector, "trusted", False) is True
        codec = Codec(
            config.serializer,
            config.deserializer,
            verify=verify,
            digest=not trusted if verify is None else verify,
        )
        cache: LRUCache[ConnectorKeyT, Any]
        cache = LRUCache(config.cache_size, maxbytes=to_bytes(config.cache_bytes))
        super().__init__(connector, codec, cache, StoreMetrics() if config.metrics else None)
        self._kind = get_object_path(type(connector))
        self._config = config

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._config.name

    def config(self) -> StoreConfig:
        """Return what `from_config` makes the same store from, in this or another process."""
        options = self.connector.config()
        if self._config.connector.kind != self._kind or self._config.connector.options != options:
            connector = ConnectorConfig(self._kind, options)
            self._config = dataclasses.replace(self._config, connector=connector)
        return self._config

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
            store: Any = self
            lifetime.add_key(key, store=store)
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
        store: Any = self
        factory._store = store
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
