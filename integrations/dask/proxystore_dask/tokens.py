"""Large arguments that Dask need not look into: its keys come from their stored form.

To make the key of a task Dask hashes its arguments: 100 MB of bytes, or a few of dicts,
take it seconds, ten times as long as carrying them. And it looks for futures in all that is
in containers, more than once. Plain data is serialized anyway: that is quicker to hash, and
there are no futures in it.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask._task_spec import DataNode
from dask.hashing import hash_buffer, hash_buffer_hex

from proxystore_core.autoproxy.sizes import size_of
from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import Parts
from proxystore_dask.memory import Memory
from proxystore_dask.sizes import estimate

_ROWS = (bytes, bytearray, str)
_SHAPES = (list, tuple, dict)
_CHUNK = 4_000_000
_THREADS = min(8, os.cpu_count() or 1)


class GivenNode(DataNode):  # type: ignore[misc]  # Dask has no types
    """A large argument on its way into a graph; elsewhere it is the constant that it holds.

    Args:
        value: The argument.
        parts: What it was serialized to.
    """

    def __init__(self, value: Any, parts: Parts) -> None:
        super().__init__(None, value)
        self.parts = parts
        self._token: str | None = None

    def __dask_tokenize__(self) -> Any:
        if self._token is None:
            self._token = digest(self.parts)
        return "proxystore", self._token


class Giver:
    """Takes the large arguments of one call out of Dask's sight.

    Args:
        memory: Where they will be stored.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._threshold: int = memory.policy.nbytes
        self._seen: dict[int, tuple[Any, Any]] = {}  # alive, so that ids stay theirs

    def give(self, value: Any, depth: int = 0) -> Any:
        """Return an argument as a node if it is large and plain data, else as it is."""
        cls = type(value)
        if cls in _ROWS or (cls.__name__ == "ndarray" and cls.__module__ == "numpy"):
            return value if (size_of(value) or 0) < self._threshold else self._node(value)
        if cls not in _SHAPES or estimate(value, self._threshold) < self._threshold:
            return value
        if len(value) <= 64 and depth < self._memory.policy.depth:
            items = list(value.values() if cls is dict else value)
            given = [self.give(item, depth + 1) for item in items]
            if any(new is not old for new, old in zip(given, items, strict=True)):
                return dict(zip(value, given, strict=True)) if cls is dict else cls(given)
        return self._node(value)

    def _node(self, value: Any) -> Any:
        known = self._seen.get(id(value))
        if known is None:
            known = self._seen[id(value)] = value, self._made(value)
        return known[1]

    def _made(self, value: Any) -> Any:
        if not self._memory.wants(value):
            return value
        try:
            if type(value) in _SHAPES:
                _check_plain(value.items() if isinstance(value, dict) else value)
            return GivenNode(value, self._memory.store.dump(value))
        except (SerializationError, ValueError):
            return value


def _check_plain(items: Iterable[Any]) -> None:
    """Raise a `ValueError` if anything in a container has a class that Python does not know.

    So there are no futures and nothing with a token of its own; array data may be. To marshal
    it is the quickest way to look at all of it, one by one, so that little memory is used.
    """
    for item in items:
        marshal.dumps(item, 2)


def digest(parts: Parts) -> str:
    """Hash serialized data, with the hash that Dask would use, by several threads."""
    if parts.nbytes < 2 * _CHUNK:
        return str(hash_buffer_hex(b"".join(map(hash_buffer, _chunks(parts)))))
    with ThreadPoolExecutor(_THREADS) as pool:
        return str(hash_buffer_hex(b"".join(pool.map(hash_buffer, _chunks(parts)))))


def _chunks(parts: Parts) -> Iterator[memoryview]:
    for buffer in parts.buffers:
        view = memoryview(buffer)
        for start in range(0, len(view), _CHUNK):
            yield view[start : start + _CHUNK]
