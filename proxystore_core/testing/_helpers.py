"""What the conformance tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_core.exceptions import InvalidKeyError


def ability(connector: Any, protocol: Any) -> Any:
    """Return the connector if it has an ability, else skip the test."""
    if not isinstance(connector, protocol):
        pytest.skip(f"{type(connector).__name__} is no {protocol.__name__}")
    return connector


def same(found: Any, data: bytes) -> bool:
    """Tell whether something found holds these bytes."""
    return found is not None and memoryview(found) == memoryview(data)


def refusing(act: Callable[[], Any]) -> Any:
    """Return what `act` does, or `None` where it refuses the key."""
    try:
        return act()
    except InvalidKeyError:
        return None


def some_parts(large: int) -> list[list[Any]]:
    """Return objects in parts: none, empty, few, very many, and one of `large` bytes."""
    return [
        [],
        [b""],
        [b"a", b"", bytearray(b"bc"), memoryview(b"def")[1:]],
        [bytes([number % 251]) * 3 for number in range(3000)],
        [b"head", os.urandom(large), b"", memoryview(bytearray(large)).cast("d"), b"tail"],
    ]


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Call `work(0)`, `work(1)`, … side by side, and raise what any of them raises."""
    with ThreadPoolExecutor(count) as pool:
        for result in [pool.submit(work, number) for number in range(count)]:
            result.result(60)
