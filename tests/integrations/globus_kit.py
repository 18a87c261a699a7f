"""What the tests with Globus Compute share beside their fixtures."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable
from typing import Any

import globus_compute_sdk as globus_compute_sdk  # it starts a thread, which must precede a test

from proxystore_core.store import Store
from tests.conftest import wait_until

PATIENCE = 60.0  # seconds; the machine may be busy


def left(store: Store[Any]) -> int:
    """Count the objects of a store."""
    gc.collect()
    return int(store.connector.usage().objects)


def wait_for_none(store: Store[Any], timeout: float = 20.0) -> bool:
    """Wait until a store holds no object; tell whether it came to that."""
    return wait_until(lambda: left(store) == 0, timeout)


def portable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function travel by value, as one that was typed at a prompt does.

    Workers cannot import the modules of tests. The function may use no global name.
    """
    made = types.FunctionType(
        function.__code__,
        {"__name__": "__main__"},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__module__ = "__main__"
    return made
