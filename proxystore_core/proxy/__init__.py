"""A lazy, typed reference that behaves as the object it refers to.

A `Proxy[T]` holds a *factory*, any callable without parameters, and calls it when
the target is first needed; from then on every operation goes to the target. What
Python does not let a proxy imitate is listed in `docs/transparency.md`; there,
`extract(p)` gives the target itself.

A factory's type can say how its proxies travel, by three optional methods:

* `__proxy_reduce__(self, info, proxy_cls)` gives the reduce tuple with which a
  proxy pickles, or `NotImplemented`;
* `__proxy_token__(self)` gives a deterministic token for `dask.base.tokenize`;
* `__proxy_copied__(self)` gives the factory for a copy of the proxy.
"""

from __future__ import annotations

from typing import Any, Generic, TypeAlias, TypeVar

from proxystore_core.exceptions import ProxyResolveError
from proxystore_core.proxy._proxy import (
    DefaultClassType,
    DefaultHashType,
    FactoryType,
    Proxy,
    restore,
)
from proxystore_core.proxy.info import TargetInfo, describe

__all__ = [
    "DefaultClassType",
    "DefaultHashType",
    "FactoryType",
    "Proxy",
    "ProxyLocker",
    "ProxyOr",
    "ProxyResolveError",
    "TargetInfo",
    "describe",
    "extract",
    "get_factory",
    "get_info",
    "is_proxy",
    "is_resolved",
    "resolve",
    "restore",
]

T = TypeVar("T")

ProxyOr: TypeAlias = Proxy[T] | T
"""A `T`, or a proxy of one."""


class ProxyLocker(Generic[T]):
    """Holds a proxy so that nothing resolves it by accident.

    Args:
        proxy: The proxy to keep.
    """

    __slots__ = ("_proxy",)

    def __init__(self, proxy: Proxy[T]) -> None:
        self._proxy = proxy

    def __getattribute__(self, name: str) -> Any:
        if name == "_proxy":
            raise AttributeError("A locked proxy is reached by unlock() only.")
        return super().__getattribute__(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.unlock(),)

    def unlock(self) -> Proxy[T]:
        """Give the proxy back."""
        proxy: Proxy[T] = super().__getattribute__("_proxy")
        return proxy


def is_proxy(obj: Any) -> bool:
    """Tell whether an object is a proxy, without resolving anything."""
    return issubclass(type(obj), Proxy)


def get_factory(proxy: Proxy[T]) -> FactoryType[T]:
    """Give the factory of a proxy."""
    return proxy.__proxy_factory__


def get_info(proxy: Proxy[T]) -> TargetInfo | None:
    """Give what a proxy knows of its target, without resolving it."""
    return proxy.__proxy_info__


def extract(proxy: Proxy[T]) -> T:
    """Give the target of a proxy, resolving it first where need be.

    Raises:
        ProxyResolveError: If the factory failed.
    """
    return proxy.__proxy_wrapped__


def is_resolved(proxy: Proxy[T]) -> bool:
    """Tell whether the target of a proxy is here."""
    return proxy.__proxy_resolved__


def resolve(proxy: Proxy[T]) -> None:
    """Make sure that the target of a proxy is here.

    Raises:
        ProxyResolveError: If the factory failed.
    """
    proxy.__proxy_wrapped__  # noqa: B018  # reading it resolves
