"""The memory that the scheduler, the workers and the clients of a node share.

All of them own it together: it goes with the last of them, however that ends.
Each has a store of its own there, so that the ids of what a process stored
tell who it was, and where.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from proxystore_core.autoproxy import Policy
from proxystore_core.autoproxy.sizes import size_of
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, shared_memory_root
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorUnavailableError,
    MissingReason,
    ProxyResolveMissingKeyError,
    SerializationError,
    StorageFullError,
)
from proxystore_core.proxy import TargetInfo, describe
from proxystore_core.serialize import BytesLike, Parts, load
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig
from proxystore_dask.sizes import is_foreign

_COPIED = (bytes, bytearray, str)
_REMEMBERED = 10_000  # copies of objects of other nodes


class Handle:
    """Where a stored object lies; small to send, whatever the size of the object.

    Attributes:
        config: The store, or `None` where only the scheduler knows where it lies.
        key: Key of the object in it.
        nbytes: Size of the object, as Dask measures it.
        mapped: Whether getting the object costs nothing, because its data stays where it is.
        info: What is known of the object without getting it.
        kept: The object itself, in a one-item tuple, where this process has it too.
    """

    __slots__ = ("config", "info", "kept", "key", "mapped", "nbytes")

    def __init__(
        self,
        config: StoreConfig | None,
        key: Any,
        nbytes: int,
        mapped: bool,
        info: TargetInfo | None = None,
    ) -> None:
        self.config = config
        self.key = key
        self.nbytes = nbytes
        self.mapped = mapped
        self.info = info
        self.kept: tuple[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Handle, (self.config, self.key, self.nbytes, self.mapped, self.info)

    def __repr__(self) -> str:
        return f"Handle({self.key!r}, {self.nbytes} bytes)"

    def __dask_tokenize__(self) -> Any:
        return "proxystore", tuple(self.key)


class Memory:
    """One party's access to the memory of a node.

    Args:
        store: The store, which is closed with this.
        policy: What is stored, and how it is handed out.
    """

    def __init__(self, store: Store[Any], policy: Policy) -> None:
        self.store = store
        self.config = store.config()
        self._lies_in: StoreConfig | None = self.config  # what is stored
        self.policy = policy
        self.prefix = _prefix(store)
        with _lock:
            _parties[self.config] = (*_parties.get(self.config, ()), self)

    @classmethod
    def open(cls, cluster: str, policy: Policy, config: StoreConfig | None = None) -> Memory:
        """Open the memory of this node.

        Args:
            cluster: Id of the scheduler.
            policy: What is stored, and how it is handed out.
            config: A store of the user's to use instead.

        Raises:
            ConnectorUnavailableError: It cannot be reached or made here.
            ConnectorClosedError: The store of the user's is gone.
        """
        if config is not None:
            store = Store.from_config(config)
        else:
            directory = f"{shared_memory_root()}/dask-{cluster}"
            store = Store(f"dask-{cluster}", SharedMemoryConnector(directory, joint=True))
        try:
            return cls(store, policy)
        except BaseException:
            store.close()
            raise

    @classmethod
    def try_open(
        cls, cluster: str, policy: Policy, config: StoreConfig | None = None
    ) -> Memory | None:
        """Open the memory of this node; `None` where it cannot be reached or made."""
        try:
            return cls.open(cluster, policy, config)
        except (ConnectorClosedError, ConnectorUnavailableError, OSError):
            return None

    @property
    def home(self) -> str:
        """The id of this memory, with which the ids of all objects in it begin."""
        return "" if self.prefix is None else self.prefix.partition("-")[0]

    @property
    def token(self) -> str:
        """Name the memory, so that two parties can tell whether they share it."""
        return f"proxystore:{self.home or self.config.name}"

    def put(
        self, obj: Any, nbytes: int, *, at_least: int = 0, parts: Parts | None = None
    ) -> Handle | None:
        """Store an object.

        Args:
            obj: The object.
            nbytes: Its size, as Dask measures it.
            at_least: Do not store what takes fewer bytes.
            parts: What it was serialized to, if it was.

        Returns:
            Where it lies; `None` where it cannot be stored, and should be sent as it is.
        """
        try:
            parts = self.store.dump(obj) if parts is None else parts
            if parts.nbytes < at_least:
                return None
            key = self._put_parts(parts)
        except (SerializationError, StorageFullError, ConnectorClosedError):
            return None
        mapped = not isinstance(obj, _COPIED) and size_of(obj) is not None
        return Handle(self._lies_in, key, nbytes, mapped, describe(obj))

    def _put_parts(self, parts: Parts) -> Any:
        return self.store.put_parts(parts)

    def put_raw(self, buffers: Sequence[BytesLike]) -> Any:
        """Store the stored form of an object of another node; return its key here, or `None`."""
        connector = self.store.connector
        try:
            if hasattr(connector, "put_parts"):
                return connector.put_parts(buffers)
            return connector.put(b"".join(buffers))
        except (StorageFullError, ConnectorClosedError):
            return None

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

    def evict_unknown(self, prefix: str, known: set[Any]) -> None:
        """Remove what a party stored and nobody knows of.

        Args:
            prefix: How the ids of the party begin.
            known: Keys of what stays.
        """
        stored: Iterable[Any] = self.store.keys()
        self.evict([key for key in stored if key.object_id.startswith(prefix) and key not in known])

    def nbytes(self) -> int:
        """Count the bytes of all objects in the memory of this node."""
        usage = getattr(self.store.connector, "usage", None)
        return 0 if usage is None else int(usage().nbytes)

    def detach(self) -> None:
        """Be a party no more, but leave the store open."""
        with _lock:
            others = tuple(party for party in _parties.get(self.config, ()) if party is not self)
            _parties[self.config] = others
            if not others:
                del _parties[self.config]

    def close(self) -> None:
        """Let go; with the last who does the memory is removed."""
        self.detach()
        self.store.close()


class FarMemory(Memory):
    """The memory of a client on another node than the scheduler, which takes what it stores.

    Args:
        mine: The client's access to the memory of its own node, replaced by this one.
        send: Sends the scheduler a message: its name and its parts.
    """

    def __init__(self, mine: Memory, send: Callable[..., None]) -> None:
        super().__init__(mine.store, mine.policy)
        self._send = send
        self._lies_in = None
        mine.detach()

    def _put_parts(self, parts: Parts) -> Any:
        key = self.store.connector.new_key()
        # Copied: it is sent some time later, and the caller may write to it before.
        self._send("upload", key=key, data=[bytes(buffer) for buffer in parts.buffers])
        return key

    def evict(self, keys: Iterable[Any]) -> None:
        """Remove objects."""
        self._send("drop", needs={key: [] for key in keys})


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
        return load(fetched, writable=writable)
    near = _copies.get(handle.key, handle)
    store = _store(near.config)
    obj = None if store is None else store.get(near.key, default=_MISSING, writable=writable)
    if store is None or obj is _MISSING:
        reason = MissingReason.UNREACHABLE if store is None else store.missing_reason(near.key)
        name = "" if handle.config is None else handle.config.name
        raise ProxyResolveMissingKeyError(handle.key, Store, name, reason=reason)
    return obj


def is_near(handle: Handle) -> bool:
    """Tell whether an object, or a copy of it, is on this node as long as it is not evicted."""
    if handle.kept is not None or _store(handle.config) is not None:
        return True
    near = _copies.get(handle.key)
    if near is None:
        return False
    store = _store(near.config)
    if store is not None and store.exists(near.key):
        return True
    with _lock:
        _copies.pop(handle.key, None)
    return False


def remember(handle: Handle, near: Handle) -> None:
    """Make `get` take a copy that lies on this node instead of an object of another."""
    with _lock:
        _copies[handle.key] = near
        if len(_copies) > _REMEMBERED:
            _copies.popitem(last=False)


def bring(handle: Handle, buffer: BytesLike) -> None:
    """Let `get` have an object of another node that there is no room for, while it is held."""
    with _lock:
        if handle.key in _holders:
            _fetched[handle.key] = buffer


def is_brought(handle: Handle) -> bool:
    """Tell whether this process was brought an object."""
    return handle.key in _fetched


@contextmanager
def held(handles: Iterable[Handle]) -> Iterator[None]:
    """Keep what is brought to this process of some objects until the end of the context."""
    keys = [handle.key for handle in handles]
    with _lock:
        _holders.update(keys)
    try:
        yield
    finally:
        with _lock:
            _holders.subtract(keys)
            for key in keys:
                if _holders[key] <= 0:
                    del _holders[key]
                    _fetched.pop(key, None)


def _store(config: StoreConfig | None) -> Store[Any] | None:
    if config is None:
        return None
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
_fetched: dict[Any, BytesLike] = {}
_holders: Counter[Any] = Counter()
_copies: OrderedDict[Any, Handle] = OrderedDict()
