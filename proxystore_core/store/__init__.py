"""Stores: objects in a channel, and proxies of them."""

from __future__ import annotations

from proxystore_core.store.base import Store
from proxystore_core.store.config import ConnectorConfig, StoreConfig
from proxystore_core.store.factory import StoreFactory, load_proxy
from proxystore_core.store.registry import (
    get_or_create_store,
    get_store,
    register_store,
    store_registration,
    unregister_store,
)

__all__ = [
    "ConnectorConfig",
    "Store",
    "StoreConfig",
    "StoreFactory",
    "get_or_create_store",
    "get_store",
    "load_proxy",
    "register_store",
    "store_registration",
    "unregister_store",
]
