"""Handles: where objects lie, and how this process gets them.

An object is in the memory of this node, or in one of another node and here only
as a copy, or brought to this process alone because there was no room for a copy.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from proxystore_core.exceptions import (
    ConnectorUnavailableError,
    MissingReason,
    ProxyResolveMissingKeyError,
)
from proxystore_core.proxy import TargetInfo
from proxystore_core.serialize import BytesLike, load
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig

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


def enter(config: StoreConfig, store: Store[Any]) -> None:
    """Let `get` use a store of this process."""
    with _lock:
        _stores[config] = (*_stores.get(config, ()), store)


def leave(config: StoreConfig, store: Store[Any]) -> None:
    """Let `get` use a store no more."""
    with _lock:
        others = tuple(other for other in _stores.get(config, ()) if other is not store)
        _stores[config] = others
        if not others:
            del _stores[config]


def _store(config: StoreConfig | None) -> Store[Any] | None:
    if config is None:
        return None
    for store in _stores.get(config, ()):
        if not store.closed:
            return store
    with _guest_lock:  # a process that is no party, like one of a pool that a worker runs
        if config not in _guests:
            _guests[config] = _attach(config)
        return _guests[config]


def _attach(config: StoreConfig) -> Store[Any] | None:
    try:
        return Store.from_config(config)
    except (ConnectorUnavailableError, OSError):
        return None


_MISSING = object()
_lock = threading.Lock()
_guest_lock = threading.Lock()
_stores: dict[StoreConfig, tuple[Store[Any], ...]] = {}
_guests: dict[StoreConfig, Store[Any] | None] = {}
_fetched: dict[Any, BytesLike] = {}
_holders: Counter[Any] = Counter()
_copies: OrderedDict[Any, Handle] = OrderedDict()
