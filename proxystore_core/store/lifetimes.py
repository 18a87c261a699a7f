"""Lifetimes: when the objects of a store go.

A lifetime is told keys, or proxies, and evicts their objects when it ends. It
belongs to the process that made it.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from proxystore_core.exceptions import (
    LifetimeClosedError,
    LifetimeError,
    MissingReason,
    StoreArgumentError,
)
from proxystore_core.proxy import Proxy
from proxystore_core.store import _background
from proxystore_core.store.registry import evict_late
from proxystore_core.store.types import ConnectorKeyT
from proxystore_core.store.utils import get_store_factory

if TYPE_CHECKING:
    from proxystore_core.store.base import Store


@runtime_checkable
class Lifetime(Protocol):
    """What `Store.put` and `Store.proxy` take as a lifetime."""

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Evict the objects of these keys when the lifetime ends.

        Args:
            keys: The keys.
            store: The store that they belong to.
        """
        ...

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Evict the objects of these proxies when the lifetime ends.

        Raises:
            ProxyStoreFactoryError: If a proxy does not come from a store.
        """
        ...

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime.

        Args:
            close_stores: Close the stores of its objects, too.
        """
        ...

    def done(self) -> bool:
        """Tell whether the lifetime ended."""
        ...


class _Objects:
    """The keys of a lifetime; safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._keys: dict[Store[Any], set[ConnectorKeyT]] = {}
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def done(self) -> bool:
        """Tell whether the lifetime ended."""
        return self._done

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime: evict all its objects. Ending it twice is no error.

        Args:
            close_stores: Close the stores of its objects, too.

        Raises:
            LifetimeError: If some objects could not be evicted; all others are.
        """
        self._end(MissingReason.EVICTED, close_stores)

    def _add(self, store: Store[Any], keys: tuple[ConnectorKeyT, ...]) -> None:
        with self._lock:
            self._check_open()
            self._keys.setdefault(store, set()).update(keys)

    def _check_open(self) -> None:
        if self._done:
            raise LifetimeClosedError(f"The lifetime {self.name!r} ended: make a new one.")

    def _is_due(self, reason: MissingReason) -> bool:
        return True

    def _end(self, reason: MissingReason, close_stores: bool) -> None:
        with self._lock:
            if self._done or not self._is_due(reason):
                return
            self._done = True
            keys, self._keys = self._keys, {}
        failed: list[Exception] = []
        for store, of_store in keys.items():
            try:
                if store.closed:
                    evict_late(store.config(), of_store, reason)
                else:
                    store.evict_batch(of_store, reason=reason)
            except Exception as error:  # noqa: BLE001 -- raised below, after the others
                failed.append(error)
            if close_stores:
                store.close()
        if failed:
            raise LifetimeError(
                f"The lifetime {self.name!r} ended, and could not evict all of its objects: "
                f"{failed[0]}"
            ) from failed[0]


class ContextLifetime(_Objects):
    """A lifetime that lasts as long as a `with` block.

    ```python
    with ContextLifetime(store) as lifetime:
        proxy = store.proxy(value, lifetime=lifetime)
    ```

    Args:
        store: The store of the objects.
        name: Name for messages; a unique one by default.
    """

    def __init__(self, store: Store[Any], *, name: str | None = None) -> None:
        super().__init__(name or str(uuid.uuid4()))
        self.store = store
        self._keys[store] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r}, name={self.name!r})"

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Evict the objects of these keys when the lifetime ends.

        Args:
            keys: The keys.
            store: Their store; that of the lifetime by default.

        Raises:
            LifetimeClosedError: If the lifetime ended.
        """
        self._add(store or self.store, keys)

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Evict the objects of these proxies when the lifetime ends.

        Raises:
            LifetimeClosedError: If the lifetime ended.
            ProxyStoreFactoryError: If a proxy does not come from a store; none is added then.
        """
        factories = [get_store_factory(proxy) for proxy in proxies]
        with self._lock:
            self._check_open()
            for factory in factories:
                self._add(factory.get_store(), (factory.key,))


class LeaseLifetime(ContextLifetime):
    """A lifetime that ends at a time, unless it is extended.

    Whoever asks for one of its objects later is told that it expired. Nobody would
    end it after the process that made it, so it ends with that process at the latest.

    Args:
        store: The store of the objects.
        expiry: When it ends: a time, or how long from now (seconds, if a number).
        name: Name for messages; a unique one by default.

    Raises:
        StoreArgumentError: If `expiry` is no time.
    """

    def __init__(
        self,
        store: Store[Any],
        expiry: datetime | timedelta | float,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(store, name=name)
        self._expiry = _monotonic(expiry, time.monotonic())
        self._callback = register_lifetime_atexit(self, close_stores=False)
        self._alarm = _background.call_at(self._expiry, self._ring)

    def extend(self, expiry: datetime | timedelta | float) -> None:
        """Move the end.

        Args:
            expiry: A time, or how much later than so far (seconds, if a number).

        Raises:
            LifetimeClosedError: If the lifetime ended.
            StoreArgumentError: If `expiry` is no time.
        """
        with self._lock:
            self._check_open()
            self._expiry = _monotonic(expiry, self._expiry)
            _background.cancel(self._alarm)
            self._alarm = _background.call_at(self._expiry, self._ring)

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime now; see `ContextLifetime.close`."""
        _background.cancel(self._alarm)
        atexit.unregister(self._callback)
        super().close(close_stores=close_stores)

    def _ring(self) -> None:
        _background.submit(self._expire)

    def _is_due(self, reason: MissingReason) -> bool:
        # It may have been extended as the alarm went off.
        return reason is not MissingReason.EXPIRED or time.monotonic() >= self._expiry

    def _expire(self) -> None:
        try:
            self._end(MissingReason.EXPIRED, close_stores=False)
        except LifetimeError as error:
            import logging

            logging.getLogger(__name__).warning("%s", error)
        if self.done():
            atexit.unregister(self._callback)


class StaticLifetime(_Objects):
    """The lifetime of the process: its objects are evicted when the process ends.

    There is one; the constructor returns it. After it was closed, a new one is made.
    Stores of its objects are closed at the end of the process.
    """

    _instance: ClassVar[StaticLifetime | None] = None
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __new__(cls) -> StaticLifetime:
        """Return the one there is, or a new one where that was closed."""
        with cls._making:
            if cls._instance is None or cls._instance.done():
                made = super().__new__(cls)
                _Objects.__init__(made, "static")
                made._callback = register_lifetime_atexit(made)
                cls._instance = made
            return cls._instance

    _callback: Callable[[], None]

    def __init__(self) -> None:
        pass  # __new__ did it, once

    def add_key(self, *keys: ConnectorKeyT, store: Store[Any] | None = None) -> None:
        """Evict the objects of these keys when the process ends.

        Args:
            keys: The keys.
            store: Their store, which must be given.

        Raises:
            LifetimeClosedError: If the lifetime ended.
            StoreArgumentError: If there is no store.
        """
        if store is None:
            raise StoreArgumentError(
                "The static lifetime is of no store of its own: use add_key(..., store=store)."
            )
        self._add(store, keys)

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Evict the objects of these proxies when the process ends.

        Raises:
            LifetimeClosedError: If the lifetime ended.
            ProxyStoreFactoryError: If a proxy does not come from a store; none is added then.
        """
        for factory in [get_store_factory(proxy) for proxy in proxies]:
            self._add(factory.get_store(), (factory.key,))

    def close(self, *, close_stores: bool = False) -> None:
        """End the lifetime now; see `ContextLifetime.close`."""
        atexit.unregister(self._callback)
        super().close(close_stores=close_stores)


def register_lifetime_atexit(lifetime: Lifetime, close_stores: bool = True) -> Callable[[], None]:
    """End a lifetime when the process ends.

    Args:
        lifetime: The lifetime.
        close_stores: Close the stores of its objects, too.

    Returns:
        What `atexit.unregister` takes to undo this.
    """
    pid = os.getpid()

    def end() -> None:
        if os.getpid() == pid:  # the objects belong to the parent of a forked child
            lifetime.close(close_stores=close_stores)

    atexit.register(end)
    return end


def _monotonic(expiry: datetime | timedelta | float, start: float) -> float:
    if isinstance(expiry, datetime):
        return time.monotonic() + expiry.timestamp() - time.time()
    if isinstance(expiry, timedelta):
        return start + expiry.total_seconds()
    if type(expiry) in (int, float) and math.isfinite(expiry):
        return start + expiry
    raise StoreArgumentError(
        f"{expiry!r} does not say when a lease ends: use seconds, a timedelta or a datetime."
    )
