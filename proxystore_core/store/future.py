"""Futures through a store: proxies of an object that is yet to come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from proxystore_core.connectors.protocols import DeferrableConnector
from proxystore_core.exceptions import (
    FutureAlreadySetError,
    FutureTimeoutError,
    MissingReason,
    StoreArgumentError,
)
from proxystore_core.proxy import Proxy
from proxystore_core.serialize import serialize
from proxystore_core.store._outcome import Outcome
from proxystore_core.store.factory import MISSING, PollingStoreFactory
from proxystore_core.store.types import SerializerT

if TYPE_CHECKING:
    from proxystore_core.store.base import Store

T = TypeVar("T")

# There will be no object after one of these, if it is said for longer than storing one takes
# between the moment that it counts as stored and the moment that it is there.
_FINAL = {MissingReason.EVICTED, MissingReason.EXPIRED, MissingReason.STORE_CLOSED}
_SURE_AFTER = 1.0


class Future(Generic[T]):
    """An object that is yet to come; made by `Store.future`.

    It can be pickled: send it to the producer, which sets the result or the
    exception, and send proxies of it to consumers, which wait when they use them.

    Args:
        factory: Waits for the object.
        serializer: Serializer of the object; `None` for that of the store.
    """

    def __init__(
        self, factory: PollingStoreFactory[Any, T], *, serializer: SerializerT | None = None
    ) -> None:
        self._factory = factory
        self._serializer = serializer
        self._set = False

    def __repr__(self) -> str:
        return f"Future(key={self._factory.key!r}, store={self._factory.store_config.name!r})"

    def done(self) -> bool:
        """Tell whether there is a result, an exception, or the future was cancelled."""
        return self._set or self._factory.get_store().exists(self._factory.key)

    def cancelled(self) -> bool:
        """Tell whether the future was cancelled."""
        outcome = self._factory._get(self._factory.get_store())
        return isinstance(outcome, Outcome) and outcome.cancelled

    def proxy(self) -> Proxy[T]:
        """Return a proxy that waits for the object when it is used.

        If the producer fails, using it raises `ProxyResolveError`, whose cause is
        the producer's exception.
        """
        return Proxy(self._factory)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the object.

        Args:
            timeout: Give up after so many seconds; `None` for the `polling_timeout`
                of the future.

        Raises:
            FutureTimeoutError: If it did not come in time.
            FutureCancelledError: If the future was cancelled.
            ProxyResolveMissingKeyError: If it came, and is gone again.
            Exception: What the producer set in its place.
        """
        if timeout is None:
            return self._factory.resolve()
        return wait(self._factory, timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the exception of the producer, if there is one.

        Args:
            timeout: As for `result`.

        Raises:
            FutureTimeoutError: If it did not come in time.
        """
        outcome = poll(self._factory, self._factory.polling_timeout if timeout is None else timeout)
        return outcome.exception() if isinstance(outcome, Outcome) else None

    def set_result(self, obj: T) -> None:
        """Store the object.

        Raises:
            FutureAlreadySetError: If there is a result or an exception, or the
                future was cancelled.
            SerializationError: If the object cannot be serialized.
        """
        self._finish(obj, self._serializer)

    def set_exception(self, exception: BaseException) -> None:
        """Store an exception, which consumers get instead of an object.

        Raises:
            FutureAlreadySetError: If there is a result or an exception, or the
                future was cancelled.
            StoreArgumentError: If it is no exception.
        """
        if not isinstance(exception, BaseException):
            raise StoreArgumentError(f"{exception!r} is no exception: use set_result().")
        self._finish(Outcome.of(exception), serialize)

    def cancel(self) -> bool:
        """Let consumers wait no longer; tell whether it was not too late for that.

        The producer is not interrupted: setting its result raises.
        """
        try:
            self._finish(Outcome("", b""), serialize)
        except FutureAlreadySetError:
            return False
        return True

    def _finish(self, obj: Any, serializer: SerializerT | None) -> None:
        if self.done():
            raise FutureAlreadySetError(
                f"{self!r} has a result or an exception, or was cancelled: make one future "
                "for each result."
            )
        self._factory.get_store()._set(self._factory.key, obj, serializer=serializer)
        self._set = True


def make_future(
    store: Store[Any], *, serializer: SerializerT | None, **options: Any
) -> Future[Any]:
    """Make a future; see `Store.future`.

    Raises:
        StoreUnsupportedError: If the connector cannot make keys in advance.
        StoreArgumentError: If the polling has no meaning.
    """
    for name in ("polling_interval", "polling_interval_limit", "polling_timeout"):
        if options[name] is not None and not options[name] >= 0:
            raise StoreArgumentError(f"{name} is a time in seconds, not {options[name]!r}.")
    if not options["polling_backoff_factor"] >= 1:
        raise StoreArgumentError("polling_backoff_factor is 1 or more.")
    if not isinstance(store.connector, DeferrableConnector):
        raise store._unsupported("make futures", DeferrableConnector)
    start = time.perf_counter_ns()
    key = store.connector.new_key()
    store._record("store.future.connector", key, start)
    factory: PollingStoreFactory[Any, Any] = PollingStoreFactory(key, store.config(), **options)
    factory._store = store
    store._record("store.future", key, start)
    return Future(factory, serializer=serializer)


def poll(factory: PollingStoreFactory[Any, T], timeout: float | None) -> T | Outcome:
    """Wait for the end of a future.

    Raises:
        FutureTimeoutError: If it did not come in time.
        ProxyResolveMissingKeyError: If it can come no more.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    interval = factory.polling_interval
    store = factory.get_store()
    gone_since: float | None = None
    while True:
        obj = factory._get(store)
        if obj is not MISSING:
            return cast("T | Outcome", obj)
        if store.missing_reason(factory.key) not in _FINAL:
            gone_since = None
        elif gone_since is None:
            gone_since = time.monotonic()
        elif time.monotonic() - gone_since >= _SURE_AFTER:
            raise factory._missing(store)
        pause = interval
        if deadline is not None:
            pause = min(pause, deadline - time.monotonic())
            if pause <= 0:
                raise FutureTimeoutError(
                    f"There was no result under {factory.key!r} within {timeout} s: wait longer, "
                    "or see what became of the producer."
                )
        time.sleep(pause)
        interval *= factory.polling_backoff_factor
        if factory.polling_interval_limit is not None:
            interval = min(interval, factory.polling_interval_limit)


def wait(factory: PollingStoreFactory[Any, T], timeout: float | None) -> T:
    """Wait for the result of a future; see `Future.result`."""
    obj = poll(factory, timeout)
    if isinstance(obj, Outcome):
        raise obj.exception()
    if factory.evict:
        factory.get_store().evict(factory.key)
    return obj
