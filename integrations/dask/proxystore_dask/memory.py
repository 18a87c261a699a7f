"""The memory that the scheduler, the workers and the clients of a node share.

The scheduler owns it: it makes the store and removes it when it ends, however it
ends. All others attach to it, each with a store of its own, so that the ids of
what a process stored tell who it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from proxystore_core.autoproxy import Policy
from proxystore_core.autoproxy.sizes import size_of
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorUnavailableError,
    MissingReason,
    ProxyResolveMissingKeyError,
    SerializationError,
    StorageFullError,
)
from proxystore_core.serialize import BytesLike, load
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig
from proxystore_dask.sizes import is_foreign

_COPIED = (bytes, bytearray, str)


class Handle:
    """Where a stored object lies; small to send, whatever the size of the object.

    Attributes:
        config: The store.
        key: Key of the object in it.
        nbytes: Size of the object, as Dask measures it.
        mapped: Whether getting the object costs nothing, because its data stays where it is.
        kept: The object itself, in a one-item tuple, where this process has it too.
    """

    __slots__ = ("config", "kept", "key", "mapped", "nbytes")

    def __init__(self, config: StoreConfig, key: Any, nbytes: int, mapped: bool) -> None:
        self.config = config
        self.key = key
        self.nbytes = nbytes
        self.mapped = mapped
        self.kept: tuple[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Handle, (self.config, self.key, self.nbytes, self.mapped)

    def __repr__(self) -> str:
        return f"Handle({self.key!r}, {self.nbytes} bytes)"

    def __dask_tokenize__(self) -> Any:
        return "proxystore", self.config.name, tuple(self.key)


class Memory:
    """One party's access to the memory of a node.

    Args:
        store: The store, which is closed with this.
        policy: What is stored, and how it is handed out.
    """

    def __init__(self, store: Store[Any], policy: Policy) -> None:
        self.store = store
        self.config = store.config()
        self.policy = policy
        self.prefix = _prefix(store)
        with _lock:
            _parties[self.config] = (*_parties.get(self.config, ()), self)

    @classmethod
    def attach(cls, config: StoreConfig, policy: Policy) -> Memory | None:
        """Attach to the memory; `None` where it cannot be reached from here."""
        store = _attach(config)
        if store is None:
            return None
        try:
            return cls(store, policy)
        except (ConnectorClosedError, ConnectorUnavailableError, OSError):
            store.close()  # it is gone, or the memory of another node
            return None

    @property
    def token(self) -> str:
        """Name the memory, so that two parties can tell whether they share it."""
        return f"proxystore:{self.config.name}"

    def put(self, obj: Any, nbytes: int, *, at_least: int = 0) -> Handle | None:
        """Store an object.

        Args:
            obj: The object.
            nbytes: Its size, as Dask measures it.
            at_least: Do not store what takes fewer bytes.

        Returns:
            Where it lies; `None` where it cannot be stored, and should be sent as it is.
        """
        try:
            parts = self.store.dump(obj)
            if parts.nbytes < at_least:
                return None
            key = self.store.put_parts(parts)
        except (SerializationError, StorageFullError, ConnectorClosedError):
            return None
        mapped = not isinstance(obj, _COPIED) and size_of(obj) is not None
        return Handle(self.config, key, nbytes, mapped)

    def stored(self, handle: Handle) -> bool:
        """Tell whether this party stored an object, as far as its key tells."""
        object_id = getattr(handle.key, "object_id", "")
        return self.prefix is not None and str(object_id).startswith(self.prefix)

    def wants(self, obj: Any) -> bool:
        """Tell whether an object of this type travels by reference if it is large."""
        types = self.policy.types
        return not (
            is_foreign(type(obj))
            or isinstance(obj, self.policy.exclude)
            or (types is not None and not isinstance(obj, types))
            or (self.policy.should_proxy is not None and not self.policy.should_proxy(obj))
        )

    def evict(self, keys: Iterable[Any]) -> None:
        """Remove objects."""
        self.store.evict_batch(keys)

    def close(self) -> None:
        """Let go; where this owns the memory it is removed."""
        with _lock:
            others = tuple(party for party in _parties.get(self.config, ()) if party is not self)
            _parties[self.config] = others
            if not others:
                del _parties[self.config]
        self.store.close()


class Fetched(NamedTuple):
    """The stored form of an object that another node sent."""

    buffer: BytesLike


def get(handle: Handle, *, writable: bool = True) -> Any:
    """Return the object of a handle.

    Args:
        handle: Where it lies.
        writable: Hand out arrays that can be written to; what is written stays in this process.

    Raises:
        ProxyResolveMissingKeyError: If it is not there, or cannot be reached.
    """
    if handle.kept is not None:
        return handle.kept[0]
    fetched = _fetched.get(handle.key)
    if fetched is not None:
        return load(fetched.buffer, writable=writable)
    store = _store(handle.config)
    obj = None if store is None else store.get(handle.key, default=_MISSING, writable=writable)
    if store is None or obj is _MISSING:
        reason = MissingReason.UNREACHABLE if store is None else store.missing_reason(handle.key)
        raise ProxyResolveMissingKeyError(handle.key, Store, handle.config.name, reason=reason)
    return obj


def is_reachable(handle: Handle) -> bool:
    """Tell whether `get` can get an object."""
    return handle.kept is not None or handle.key in _fetched or _store(handle.config) is not None


def bring(key: Any, buffer: BytesLike) -> None:
    """Make an object that was fetched from another node available to `get`."""
    _fetched[key] = Fetched(buffer)


def forget(key: Any) -> None:
    """Let go of an object that was fetched."""
    _fetched.pop(key, None)


def _store(config: StoreConfig) -> Store[Any] | None:
    for party in _parties.get(config, ()):
        if not party.store.closed:
            return party.store
    with _guest_lock:  # a process that is no party, like one of a pool that a worker runs
        if config not in _guests:
            _guests[config] = _attach(config)
        return _guests[config]


def _attach(config: StoreConfig) -> Store[Any] | None:
    try:
        return Store.from_config(config)
    except (ConnectorUnavailableError, OSError):
        return None


def _prefix(store: Store[Any]) -> str | None:
    """Return how all ids of what this store puts begin, where its connector tells."""
    connector = store.connector
    if not hasattr(connector, "new_key"):
        return None
    object_id = getattr(connector.new_key(), "object_id", None)
    return None if object_id is None else str(object_id).rpartition("-")[0] + "-"


_MISSING = object()
_lock = threading.Lock()
_guest_lock = threading.Lock()
_parties: dict[StoreConfig, tuple[Memory, ...]] = {}
_guests: dict[StoreConfig, Store[Any] | None] = {}
_fetched: dict[Any, Fetched] = {}
