"""Objects by key: what a store does without proxies."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from proxystore_core.connectors.protocols import (
    DeferrableConnector,
    VectoredDeferrableConnector,
)
from proxystore_core.serialize import Parts
from proxystore_core.store._buffers import BufferStore
from proxystore_core.store._codec import Codec
from proxystore_core.store.cache import LRUCache
from proxystore_core.store.metrics import StoreMetrics
from proxystore_core.store.types import ConnectorKeyT, ConnectorT, DeserializerT, SerializerT

if TYPE_CHECKING:
    from proxystore_core.store.lifetimes import Lifetime


class ObjectStore(BufferStore[ConnectorT]):
    """Puts and gets objects; `Store` is what to use."""

    def __init__(
        self,
        connector: ConnectorT,
        codec: Codec,
        cache: LRUCache[ConnectorKeyT, Any],
        metrics: StoreMetrics | None,
    ) -> None:
        super().__init__(connector, cache, metrics)
        self._codec = codec

    @property
    def serializer(self) -> SerializerT:
        """Serializer of this store."""
        return self._codec.serializer

    @property
    def deserializer(self) -> DeserializerT:
        """Deserializer of this store."""
        return self._codec.deserializer

    def dump(self, obj: Any, *, serializer: SerializerT | None = None) -> Parts:
        """Serialize an object as `put` does, for `put_parts`.

        Raises:
            SerializationError: If it cannot be serialized.
        """
        return self._codec.dump(obj, serializer)

    def put(
        self,
        obj: Any,
        *,
        lifetime: Lifetime | None = None,
        serializer: SerializerT | None = None,
        **kwargs: Any,
    ) -> ConnectorKeyT:
        """Store an object.

        Args:
            obj: The object.
            lifetime: Evict the object when this lifetime ends.
            serializer: Serializer of this object; `None` for that of the store.
            kwargs: What the connector's `put` takes beside the data.

        Returns:
            The key that `get` takes.

        Raises:
            SerializationError: If the object cannot be serialized.
            LifetimeClosedError: If the lifetime is over; nothing is stored then.
        """
        start = perf_counter_ns()
        parts = self._codec.dump(obj, serializer)
        dumped = perf_counter_ns()
        key = self.put_parts(parts, lifetime=lifetime, **kwargs)
        if self._metrics is not None:
            self._record("store.put.serialize", key, start, dumped)
            self._record("store.put", key, start)
        return key

    def put_batch(
        self,
        objs: Sequence[Any],
        *,
        lifetime: Lifetime | None = None,
        serializer: SerializerT | None = None,
        **kwargs: Any,
    ) -> list[ConnectorKeyT]:
        """Store several objects; all are stored, or none.

        Args:
            objs: The objects.
            lifetime: Evict the objects when this lifetime ends.
            serializer: Serializer of these objects; `None` for that of the store.
            kwargs: What the connector's `put_batch` takes beside the data.

        Returns:
            Their keys, in their order.

        Raises:
            SerializationError: If an object cannot be serialized.
            LifetimeClosedError: If the lifetime is over.
        """
        start = perf_counter_ns()
        batch = [self._codec.dump(obj, serializer) for obj in objs]
        dumped = perf_counter_ns()
        keys: list[ConnectorKeyT] = []
        if self._put_parts is not None:
            try:
                keys.extend(self._put_parts(parts.buffers, **kwargs) for parts in batch)
            except BaseException:
                self.evict_batch(keys)
                raise
        else:
            keys = self.connector.put_batch([parts.tobytes() for parts in batch], **kwargs)
        if self._metrics is not None:
            self._record("store.put_batch.serialize", keys, start, dumped)
            self._record("store.put_batch.connector", keys, dumped)
            self._record("store.put_batch", keys, start)
            nbytes = sum(parts.nbytes for parts in batch)
            self._metrics.add_attribute("store.put_batch.object_sizes", keys, nbytes)
        if lifetime is not None:
            self._attach(lifetime, keys)
        return keys

    def get(
        self,
        key: ConnectorKeyT,
        *,
        deserializer: DeserializerT | None = None,
        default: object | None = None,
        writable: bool = False,
    ) -> Any | None:
        """Return an object.

        Args:
            key: Its key.
            deserializer: Deserializer of this object; `None` for that of the store.
            default: What to return where there is no object.
            writable: Hand out arrays that can be written to; what is written stays
                in this process.

        Raises:
            SerializationError: If the object cannot be deserialized.
            CorruptObjectError: If its bytes are not those that were stored.
        """
        return self._get([key], deserializer, default, writable, "store.get")[0]

    def get_batch(
        self,
        keys: Sequence[ConnectorKeyT],
        *,
        deserializer: DeserializerT | None = None,
        default: object | None = None,
        writable: bool = False,
    ) -> list[Any | None]:
        """Return several objects, in the order of their keys; the arguments are those of `get`."""
        return self._get(keys, deserializer, default, writable, "store.get_batch")

    def _set(
        self,
        key: ConnectorKeyT,
        obj: Any,
        *,
        serializer: SerializerT | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(self.connector, DeferrableConnector):
            raise self._unsupported("set the object of a key", DeferrableConnector)
        start = perf_counter_ns()
        parts = self._codec.dump(obj, serializer)
        dumped = perf_counter_ns()
        channel: Any = self.connector
        if isinstance(channel, VectoredDeferrableConnector):
            channel.set_parts(key, parts.buffers, **kwargs)
        else:
            channel.set(key, parts.tobytes(), **kwargs)
        self._changed(key)
        self._gone.pop(key, None)
        if self._metrics is not None:
            self._record("store.set.serialize", key, start, dumped)
            self._record("store.set.connector", key, dumped)
            self._record("store.set", key, start)
            self._metrics.add_attribute("store.set.object_size", key, parts.nbytes)

    def _get(
        self,
        keys: Sequence[ConnectorKeyT],
        deserializer: DeserializerT | None,
        default: object,
        writable: bool,
        name: str,
    ) -> list[Any]:
        start = perf_counter_ns()
        found = self._buffers(keys, writable)
        fetched = perf_counter_ns()
        objs = []
        for key, entry in zip(keys, found, strict=True):
            if entry is None:
                objs.append(default)
                continue
            try:
                objs.append(self._codec.load(*entry, deserializer, writable))
            except Exception as error:
                error.add_note(f"This is the object of {key!r}.")
                raise
        if self._metrics is not None:
            of = keys[0] if name == "store.get" else keys
            self._record(f"{name}.connector", of, start, fetched)
            self._record(f"{name}.deserialize", of, fetched)
            self._record(name, of, start)
            for key, entry in zip(keys, found, strict=True):
                hit = entry is not None and entry[1]
                self._metrics.add_counter(f"store.get.cache_{'hits' if hit else 'misses'}", key, 1)
                if entry is not None:
                    nbytes = memoryview(entry[0]).nbytes
                    self._metrics.add_attribute("store.get.object_size", key, nbytes)
        return objs
