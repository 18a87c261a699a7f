"""The errors of stores, under the name that ProxyStore has for them."""

from __future__ import annotations

from proxystore_core.exceptions import (
    MissingReason,
    NonProxiableTypeError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    StoreArgumentError,
    StoreConfigError,
    StoreError,
    StoreExistsError,
    StoreNotFoundError,
    StoreUnsupportedError,
)

__all__ = [
    "MissingReason",
    "NonProxiableTypeError",
    "ProxyResolveMissingKeyError",
    "ProxyStoreFactoryError",
    "StoreArgumentError",
    "StoreConfigError",
    "StoreError",
    "StoreExistsError",
    "StoreNotFoundError",
    "StoreUnsupportedError",
]
