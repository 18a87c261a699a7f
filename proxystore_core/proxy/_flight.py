"""One call of a proxy's factory at a time, without a lock in each proxy."""

from __future__ import annotations

import os
from _thread import allocate_lock, get_ident
from typing import TYPE_CHECKING, Any

from proxystore_core.exceptions import ProxyResolveError

if TYPE_CHECKING:
    from _thread import LockType

ABSENT: Any = object()
"""Stands for the target that a proxy does not have yet."""

_set = object.__setattr__


class _Flight:
    """A resolve under way: whose it is, who waits for it, and what came of it."""

    __slots__ = ("error", "landed", "owner", "target", "waiting")

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.waiting: list[LockType] = []
        self.landed = False
        self.target = ABSENT
        self.error: Exception | None = None

    def wait(self) -> None:
        lock = allocate_lock()
        lock.acquire()
        self.waiting.append(lock)
        if not self.landed:
            lock.acquire()

    def land(self) -> None:
        self.landed = True  # first, for who queues up after the loop
        for lock in self.waiting:
            lock.release()


# By the id of the proxy, which the leading thread keeps alive. Only `setdefault` and `del` are
# used, both atomic: a lock around them could be met again by a finalizer in the same thread.
_flights: dict[int, _Flight] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_flights.clear)


def load(proxy: Any) -> Any:
    """Call the factory of an unresolved proxy and keep the target in the proxy.

    Threads that come meanwhile wait and share the outcome, an error included; what
    comes later tries again.

    Raises:
        ProxyResolveError: The factory failed, is missing, or needs its own proxy.
    """
    me, key = get_ident(), id(proxy)
    while True:
        flight = _Flight(me)
        other = _flights.setdefault(key, flight)
        if other is flight:
            return _lead(proxy, key, flight)
        target = _follow(other, me)
        if target is not ABSENT:
            return target


def _lead(proxy: Any, key: int, flight: _Flight) -> Any:
    try:
        target = proxy.__proxy_peek__
        if target is ABSENT:  # else another thread landed just before
            target = proxy.__proxy_factory__()
            if target is proxy:
                raise ProxyResolveError("The factory of this proxy returned the proxy itself.")
            _set(proxy, "__proxy_target__", target)
        flight.target = target
    except ProxyResolveError as error:
        flight.error = error
        raise
    except Exception as error:
        flight.error = error
        raise _failed(error) from error
    finally:
        del _flights[key]
        flight.land()
    return target


def _follow(flight: _Flight, me: int) -> Any:
    if flight.owner == me:
        raise ProxyResolveError("The factory of this proxy needs the proxy's own target.")
    flight.wait()
    if flight.error is not None:
        raise _failed(flight.error) from flight.error
    return flight.target


def _failed(error: Exception) -> ProxyResolveError:
    return ProxyResolveError(
        f"The factory of this proxy failed with {type(error).__name__}: {error}", error
    )
