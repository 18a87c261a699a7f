"""A cache that forgets what was least recently used, bounded by count and by bytes."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar, overload

from proxystore_core.exceptions import StoreConfigError

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
DefaultT = TypeVar("DefaultT")


class LRUCache(Generic[KeyT, ValueT]):
    """A thread-safe cache that drops the least recently used entries.

    Args:
        maxsize: Most entries to hold; 0 holds none.
        maxbytes: Most bytes to hold, by the `nbytes` that `set` is told;
            `None` for no limit.

    Attributes:
        hits: How often `get` found an entry.
        misses: How often it did not.
        nbytes: Bytes held now.

    Raises:
        StoreConfigError: If a bound is negative.
    """

    def __init__(self, maxsize: int = 16, *, maxbytes: int | None = None) -> None:
        if maxsize < 0 or (maxbytes is not None and maxbytes < 0):
            raise StoreConfigError(
                f"A cache cannot be bounded by {maxsize} entries and {maxbytes} bytes: "
                "give bounds of 0 (no cache) or more."
            )
        self.maxsize = maxsize
        self.maxbytes = maxbytes
        self.hits = 0
        self.misses = 0
        self.nbytes = 0
        # A dict keeps the order of insertion: the first entry is the least recently used.
        self._entries: dict[KeyT, tuple[ValueT, int]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def evict(self, key: KeyT) -> None:
        """Forget a key; forgetting an unknown one is no error."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.nbytes -= entry[1]

    def exists(self, key: KeyT) -> bool:
        """Tell whether a key is held."""
        with self._lock:
            return key in self._entries

    @overload
    def get(self, key: KeyT, default: None = ...) -> ValueT | None: ...

    @overload
    def get(self, key: KeyT, default: DefaultT) -> ValueT | DefaultT: ...

    def get(self, key: KeyT, default: object = None) -> object:
        """Return the value of a key, which becomes the most recently used, or the default."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                self.misses += 1
                return default
            self._entries[key] = entry
            self.hits += 1
            return entry[0]

    def set(self, key: KeyT, value: ValueT, nbytes: int = 0) -> None:
        """Hold a value; one that is larger than the whole cache is not held.

        Args:
            key: Key of the value; an older value of this key is replaced.
            value: The value.
            nbytes: Size of the value in bytes.
        """
        with self._lock:
            self.evict(key)
            if self.maxsize == 0 or (self.maxbytes is not None and nbytes > self.maxbytes):
                return
            self._entries[key] = (value, nbytes)
            self.nbytes += nbytes
            while len(self._entries) > self.maxsize or (
                self.maxbytes is not None and self.nbytes > self.maxbytes
            ):
                self.evict(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.nbytes = 0

    def reset_lock(self) -> None:
        """Start anew in a forked child, where a thread that held the lock does not exist."""
        self._lock = threading.RLock()
