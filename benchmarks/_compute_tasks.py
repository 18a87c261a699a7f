"""Functions of the Globus Compute benchmark; workers import them."""

from __future__ import annotations

from typing import Any


def noop() -> None:
    """Do nothing."""


def echo(data: Any) -> Any:
    """Return a new array of the same size."""
    return data + 1


def echo_by_hand(data: Any, name: str, directory: str) -> Any:
    """Return a proxy of a new array, made by hand with ProxyStore's file store."""
    from proxystore.connectors.file import FileConnector
    from proxystore.store import Store, get_store

    store = get_store(name)
    if store is None:
        store = Store(name, FileConnector(directory, clear=False), cache_size=0, register=True)
    # A bare proxy is callable, and Globus Compute would take it for code: hand it over in a list.
    return [store.proxy(data + 1)]
