"""One call of a proxy's factory at a time, without a lock in each proxy."""

from __future__ import annotations

import os
import threading
from typing import Any

from proxystore_core.exceptions import ProxyResolveError

_ABSENT = object()
_get = object.__getattribute__
_set = object.__setattr__


class _Flight:
    """A resolve under way: whose it is, and what came of it."""

    __slots__ = ("done", "error", "owner", "target")

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.done = threading.Lock()
        self.done.acquire()
        self.target: Any = _ABSENT
        self.error: Exception | None = None


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
    while True:
        mine = _Flight()
        flight = _flights.setdefault(id(proxy), mine)
        try:
            if flight is mine:
                return _lead(proxy, mine)
            if flight.owner == mine.owner:
                raise ProxyResolveError("The factory of this proxy needs the proxy's own target.")
            with flight.done:
                pass
            if flight.error is not None:
                raise _failed(flight.error) from flight.error
            if flight.target is not _ABSENT:
                return flight.target
        finally:
            del mine, flight  # else the error, its traceback and the flight hold each other


def _lead(proxy: Any, flight: _Flight) -> Any:
    try:
        try:
            target = _get(proxy, "__proxy_target__")  # another thread landed just before
        except AttributeError:
            target = _call_factory(proxy)
            _set(proxy, "__proxy_target__", target)
        flight.target = target
    except Exception as error:
        flight.error = error
        if isinstance(error, ProxyResolveError):
            raise
        raise _failed(error) from error
    finally:
        del _flights[id(proxy)]
        flight.done.release()
        del flight
    return target


def _call_factory(proxy: Any) -> Any:
    try:
        factory = _get(proxy, "__proxy_factory__")
    except AttributeError as error:
        raise ProxyResolveError(
            "This proxy was never initialized: it has no factory.", error
        ) from error
    target = factory()
    if target is proxy:
        raise ProxyResolveError("The factory of this proxy returned the proxy itself.")
    return target


def _failed(error: Exception) -> ProxyResolveError:
    return ProxyResolveError(
        f"The factory of this proxy failed with {type(error).__name__}: {error}", error
    )
