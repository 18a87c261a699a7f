"""Task functions of the Parsl benchmark; workers import them."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

_arrays: dict[int, np.ndarray[Any, Any]] = {}


def noop() -> None:
    """Do nothing."""


def prepare(sizes: list[int], wait: float) -> int:
    """Make what `give` returns; take long enough that every worker gets such a task."""
    for nbytes in sizes:
        array(nbytes)
    time.sleep(wait)
    return os.getpid()


def array(nbytes: int) -> np.ndarray[Any, Any]:
    """Return the same float64 array each time, so that making it is not measured."""
    if nbytes not in _arrays:
        _arrays[nbytes] = np.ones(nbytes // 8)
    return _arrays[nbytes]


def take(data: Any) -> None:
    """Take an argument and leave it alone."""


def take_and_fetch(data: Any) -> int:
    """Take an argument and have the array itself, but read none of its data."""
    return int(data.shape[0])


def take_and_read(data: Any) -> float:
    """Take an argument and read all of it."""
    return float(data.sum())


def give(nbytes: int) -> Any:
    """Return an array."""
    return array(nbytes)


def give_proxy(name: str, directory: str, nbytes: int) -> Any:
    """Return a proxy of an array, made by hand with ProxyStore's file store."""
    from proxystore.connectors.file import FileConnector
    from proxystore.store import Store, get_store

    store = get_store(name)
    if store is None:
        store = Store(name, FileConnector(directory, clear=False), cache_size=0, register=True)
    # A bare proxy is callable, and Parsl would take it for code: hand it over in a list.
    return [store.proxy(array(nbytes))]
