"""Proxies of results, for clients whose policy is to keep them."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, get_factory, is_proxy
from proxystore_dask import access
from proxystore_dask.access import Handle


class HandleFactory:
    """Gets the object of a handle.

    Args:
        handle: Where the object lies.
        writable: Whether to hand out arrays that can be written to.
        holder: What keeps the object from being evicted while there is a proxy.
    """

    __slots__ = ("__weakref__", "handle", "holder", "writable")

    def __init__(self, handle: Handle, writable: bool, holder: object = None) -> None:
        self.handle = handle
        self.writable = writable
        self.holder = holder
        _alive.add(self)

    def __call__(self) -> Any:
        """Return the object."""
        return access.get(self.handle, writable=self.writable)

    def __proxy_reduce__(self, info: object, proxy_cls: type) -> tuple[Any, ...]:
        return _identity, (self(),)  # whoever gets it cannot know how long the object stays

    def __proxy_token__(self) -> object:
        return self.handle.__dask_tokenize__()

    def __proxy_copied__(self) -> HandleFactory:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return SimpleFactory, (self(),)


def make_proxy(handle: Handle, writable: bool, holder: object = None) -> Proxy[Any]:
    """Return a proxy of the object of a handle."""
    return Proxy(HandleFactory(handle, writable, holder), info=handle.info)


def handle_of(obj: Any) -> Handle | None:
    """Return the handle of a proxy of ours, else `None`."""
    if not is_proxy(obj):
        return None
    factory: object = get_factory(obj)
    return factory.handle if type(factory) is HandleFactory else None


def has_proxies() -> bool:
    """Tell whether this process has proxies of ours."""
    return bool(_alive)


_alive: WeakSet[HandleFactory] = WeakSet()


def _identity(obj: Any) -> Any:
    return obj
