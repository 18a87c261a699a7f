"""Locks by name: whoever changes one object waits for nobody who changes another."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Locks:
    """A lock for each name, for as long as somebody has it or waits for it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._wanted: dict[Hashable, _Wanted] = {}

    def __call__(self, name: Hashable) -> Hold:
        """Return a context in which this thread has the lock of a name."""
        return Hold(self, name)

    def busy(self, name: Hashable) -> bool:
        """Tell whether a thread has the lock of a name."""
        return name in self._wanted

    def acquire(self, name: Hashable, *, blocking: bool = True) -> bool:
        """Take the lock of a name; tell whether it was taken.

        Args:
            name: The name.
            blocking: Whether to wait for it, where another thread has it.
        """
        with self._mutex:
            wanted = self._wanted.get(name)
            if wanted is None:
                wanted = self._wanted[name] = _Wanted()
            elif not blocking:
                return False
            wanted.by += 1
        wanted.lock.acquire()
        return True

    def release(self, name: Hashable) -> None:
        """Give the lock of a name back."""
        with self._mutex:
            wanted = self._wanted[name]
            wanted.by -= 1
            if not wanted.by:
                del self._wanted[name]
            wanted.lock.release()


class _Wanted:
    __slots__ = ("by", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by = 0


class Hold:
    """The time in which a thread has a lock."""

    __slots__ = ("_locks", "_name")

    def __init__(self, locks: Locks, name: Hashable) -> None:
        self._locks = locks
        self._name = name

    def __enter__(self) -> None:
        self._locks.acquire(self._name)

    def __exit__(self, *exc_info: object) -> None:
        self._locks.release(self._name)
