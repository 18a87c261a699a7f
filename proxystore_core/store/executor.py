"""`StoreExecutor`, under the name by which code written for ProxyStore imports it.

It is part of the auto-proxy engine, which stands above the stores: here are names only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxystore_core.autoproxy.executor import ProxyAlways as ProxyAlways
    from proxystore_core.autoproxy.executor import ProxyNever as ProxyNever
    from proxystore_core.autoproxy.executor import ProxyType as ProxyType
    from proxystore_core.autoproxy.executor import StoreExecutor as StoreExecutor

__all__ = ["ProxyAlways", "ProxyNever", "ProxyType", "StoreExecutor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("proxystore_core.autoproxy.executor"), name)


def __dir__() -> list[str]:
    return __all__
