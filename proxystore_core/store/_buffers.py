"""Stored forms by key: the half of a store that knows nothing of objects and proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from proxystore_core.connectors.protocols import (
    AccountingConnector,
    EnumerableConnector,
    ExplainingConnector,
    Usage,
    VectoredConnector,
    VersionedConnector,
    ZeroCopyConnector,
)
from proxystore_core.exceptions import MissingReason, StoreUnsupportedError
from proxystore_core.serialize import BytesLike, Parts
from proxystore_core.store._flight import SingleFlight
from proxystore_core.store.cache import LRUCache
from proxystore_core.store.metrics import StoreMetrics
from proxystore_core.store.types import ConnectorKeyT, ConnectorT

if TYPE_CHECKING:
    from proxystore_core.store.lifetimes import Lifetime

_MAX_REMEMBERED = 4096


class _Cached(NamedTuple):
    buffer: BytesLike
    version: object


class BufferStore(Generic[ConnectorT]):
    """Puts and gets stored forms; `Store` is what to use.

    No lock is held while the connector works. The cache holds the immutable bytes
    of objects, never the objects: two consumers never share something mutable. What
    a connector can map is not cached, because mapping it again costs little.
    """

    def __init__(
        self,
        connector: ConnectorT,
        cache: LRUCache[ConnectorKeyT, Any],
        metrics: StoreMetrics | None,
    ) -> None:
        self.connector = connector
        self.cache = cache
        self._metrics = metrics
        self._flights: SingleFlight[ConnectorKeyT, _Cached] = SingleFlight()
        self._gone: dict[ConnectorKeyT, MissingReason] = {}
        # Asking a runtime protocol costs more than some operations: ask once.
        channel: Any = connector
        self._put_parts = channel.put_parts if isinstance(channel, VectoredConnector) else None
        self._get_view = channel.get_view if isinstance(channel, ZeroCopyConnector) else None
        # What says, of something cached, that it is still there: and where it can, still the same.
        self._version: Callable[[ConnectorKeyT], object] = (
            channel.version
            if isinstance(channel, VersionedConnector)
            else lambda key: channel.exists(key) or None
        )
        self._explains = isinstance(channel, ExplainingConnector)

    @property
    def metrics(self) -> StoreMetrics | None:
        """Metrics of this store, if they are recorded."""
        return self._metrics

    def put_parts(
        self, parts: Parts, *, lifetime: Lifetime | None = None, **kwargs: Any
    ) -> ConnectorKeyT:
        """Store an object that `dump` serialized.

        Args:
            parts: The serialized object.
            lifetime: Evict the object when this lifetime ends.
            kwargs: What the connector's `put` takes beside the data.
        """
        start = perf_counter_ns()
        key: ConnectorKeyT
        if self._put_parts is not None:
            key = self._put_parts(parts.buffers, **kwargs)
        else:
            key = self.connector.put(parts.tobytes(), **kwargs)
        if self._metrics is not None:
            self._record("store.put.connector", key, start)
            self._metrics.add_attribute("store.put.object_size", key, parts.nbytes)
        if lifetime is not None:
            self._attach(lifetime, [key])
        return key

    def get_view(self, key: ConnectorKeyT) -> memoryview | None:
        """Return the stored form of an object, its header included, or `None`.

        Returns:
            A read-only view; mapped, not read, where the connector can.
        """
        (found,) = self._buffers([key], writable=False)
        return None if found is None else memoryview(found[0]).toreadonly()

    def exists(self, key: ConnectorKeyT) -> bool:
        """Tell whether there is an object under a key now."""
        start = perf_counter_ns()
        found = self.connector.exists(key)
        if self._metrics is not None:
            self._record("store.exists.connector", key, start)
            self._record("store.exists", key, start)
        return found

    def is_cached(self, key: ConnectorKeyT) -> bool:
        """Tell whether the bytes of an object are in the cache of this process."""
        return self.cache.exists(key)

    def evict(self, key: ConnectorKeyT) -> None:
        """Remove an object; removing nothing is no error."""
        start = perf_counter_ns()
        self._remove(key, MissingReason.EVICTED)
        if self._metrics is not None:
            self._record("store.evict.connector", key, start)
            self._record("store.evict", key, start)

    def evict_batch(
        self, keys: Iterable[ConnectorKeyT], *, reason: MissingReason = MissingReason.EVICTED
    ) -> None:
        """Remove several objects.

        Args:
            keys: Their keys.
            reason: What to answer whoever asks for them later.

        Raises:
            ConnectorError: If some could not be removed; all others are.
        """
        failed: list[Exception] = []
        for key in keys:
            try:
                self._remove(key, reason)
            except Exception as error:  # noqa: BLE001 -- raised below, after the others
                failed.append(error)
        if failed:
            failed[0].add_note(f"{len(failed)} of the objects could not be evicted.")
            raise failed[0]

    def missing_reason(self, key: ConnectorKeyT) -> MissingReason:
        """Say why there is no object under a key, as far as it is known."""
        reason = MissingReason.UNKNOWN
        if self._explains:
            channel: Any = self.connector
            reason = channel.missing_reason(key)
        if reason is MissingReason.UNKNOWN:
            return self._gone.get(key, reason)
        return reason

    def keys(self) -> Iterator[ConnectorKeyT]:
        """Iterate over the keys of all objects.

        Raises:
            StoreUnsupportedError: If the connector cannot tell.
        """
        if not isinstance(self.connector, EnumerableConnector):
            raise self._unsupported("list its keys", EnumerableConnector)
        return self.connector.keys()

    def usage(self) -> Usage:
        """Count objects and bytes.

        Raises:
            StoreUnsupportedError: If the connector cannot tell.
        """
        if not isinstance(self.connector, AccountingConnector):
            raise self._unsupported("tell its usage", AccountingConnector)
        return self.connector.usage()

    def reset_locks(self) -> None:
        """Start anew in a forked child: a thread that held a lock does not exist there."""
        self._flights.reset()
        self.cache.reset_lock()

    def _buffers(
        self, keys: Sequence[ConnectorKeyT], writable: bool
    ) -> list[tuple[BytesLike, bool] | None]:
        """Find stored forms, each with whether it was cached (and so checked before)."""
        if self._get_view is not None:
            views = [self._get_view(key) for key in keys]
            return [
                None if view is None else (view if writable else view.toreadonly(), False)
                for view in views
            ]
        found: dict[ConnectorKeyT, tuple[BytesLike, bool] | None] = {}
        absent: list[ConnectorKeyT] = []
        for key in keys:
            held: _Cached | None = self.cache.get(key)
            if held is not None and self._version(key) == held.version:
                found[key] = (held.buffer, True)
            else:  # another process may have evicted or replaced it
                self.cache.evict(key)
                absent.append(key)
        if absent:
            for key, read in self._flights.fetch(absent, self._fetch, self._keep).items():
                found[key] = None if read is None else (read.buffer, False)
        return [found[key] for key in keys]

    def _fetch(self, keys: list[ConnectorKeyT]) -> list[_Cached | None]:
        # Versions come first: what is replaced meanwhile is then read once more than needed.
        versions = [self._version(key) if self.cache.maxsize else None for key in keys]
        if len(keys) == 1:
            buffers = [self.connector.get(keys[0])]
        else:
            buffers = self.connector.get_batch(keys)
        return [
            None if buffer is None else _Cached(buffer, version)
            for buffer, version in zip(buffers, versions, strict=True)
        ]

    def _keep(self, key: ConnectorKeyT, read: _Cached) -> None:
        if read.version is not None:
            self.cache.set(key, read, memoryview(read.buffer).nbytes)

    def _remove(self, key: ConnectorKeyT, reason: MissingReason) -> None:
        channel: Any = self.connector
        if reason is MissingReason.EXPIRED and self._explains:
            channel.expire(key)
        else:
            channel.evict(key)
        self._changed(key)
        self._gone[key] = reason
        while len(self._gone) > _MAX_REMEMBERED:
            self._gone.pop(next(iter(self._gone)), None)

    def _changed(self, key: ConnectorKeyT) -> None:
        self._flights.forget(key)
        self.cache.evict(key)

    def _attach(self, lifetime: Lifetime, keys: list[ConnectorKeyT]) -> None:
        store: Any = self
        try:
            lifetime.add_key(*keys, store=store)
        except BaseException:
            self.evict_batch(keys)  # nobody else will
            raise

    def _record(self, name: str, key: Any, start: int, end: int | None = None) -> None:
        if self._metrics is not None:
            self._metrics.add_time(name, key, ((end or perf_counter_ns()) - start) / 1e6)

    def _unsupported(self, what: str, protocol: type[Any]) -> StoreUnsupportedError:
        return StoreUnsupportedError(
            f"A store over {type(self.connector).__name__} cannot {what}: "
            f"use a connector that is a {protocol.__name__}."
        )
