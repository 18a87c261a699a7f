"""The scheduler's books: which objects there are, where they lie, and who needs them.

No I/O is done here: what changes the books returns the objects that are to be
evicted. An object that a client stored is needed by tasks; one that a worker
stored is the result of a task. A copy lies in the memory of another node than
the object, and goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from proxystore_core.connectors.shared_memory import SharedMemoryKey
from proxystore_dask.access import Handle


def home_of(key: Any) -> str:
    """Name the memory that an object lies in; empty for a store that all nodes reach."""
    return key.object_id.partition("-")[0] if type(key) is SharedMemoryKey else ""


class Books:
    """Who needs which objects, and where else they lie."""

    def __init__(self) -> None:
        self._args: dict[Any, set[Any]] = {}  # task -> objects that it needs
        self._needed: dict[Any, set[Any]] = {}  # object -> tasks that need it
        self._results: dict[Any, dict[Any, Handle]] = {}  # task -> objects that are its result
        self._result_of: dict[Any, Any] = {}  # object -> task that it is the result of
        self._copies: dict[Any, dict[str, Any]] = {}  # object -> where else it lies

    def __contains__(self, stored: object) -> bool:
        return stored in self._needed or stored in self._result_of

    def __iter__(self) -> Iterator[Any]:
        """Iterate over all objects and their copies."""
        yield from self._needed
        yield from (stored for stored in self._result_of if stored not in self._needed)
        for copies in self._copies.values():
            yield from copies.values()

    def clear(self) -> list[Any]:
        """Forget everything."""
        known = list(self)
        for table in (self._args, self._needed, self._results, self._result_of, self._copies):
            table.clear()
        return known

    # What tasks need

    def is_needed(self, stored: Any) -> bool:
        """Tell whether tasks need an object as a constant."""
        return stored in self._needed

    def claim(self, stored: Any, tasks: Iterable[Any]) -> None:
        """Take note of tasks that need an object; they may be yet to come."""
        needing = self._needed.setdefault(stored, set())
        for task in tasks:
            needing.add(task)
            self._args.setdefault(task, set()).add(stored)

    def release(self, task: Any, stored: Iterable[Any] | None = None) -> list[Any]:
        """Take note that a task is over, or needs some objects no more."""
        mine = self._args.get(task, set())
        gone = []
        for key in tuple(mine) if stored is None else stored:
            mine.discard(key)
            needing = self._needed.get(key)
            if needing is not None:
                needing.discard(task)
                if not needing:
                    del self._needed[key]
                    gone += self._gone(key)
        if not mine:
            self._args.pop(task, None)
        return gone

    # What tasks made

    def publish(self, task: Any, handle: Handle) -> None:
        """Take note that an object is the result of a task."""
        self._results.setdefault(task, {})[handle.key] = handle
        self._result_of[handle.key] = task

    def unpublish(self, task: Any) -> list[Any]:
        """Take note that the result of a task is in memory no more."""
        gone = []
        for key in self._results.pop(task, ()):
            self._result_of.pop(key, None)
            gone += self._gone(key)
        return gone

    def results(self, task: Any) -> Iterable[Handle]:
        """Return the objects that are the result of a task."""
        return self._results.get(task, {}).values()

    # Where objects lie

    def copied(self, stored: Any, copy: Any) -> list[Any]:
        """Take note of a copy of an object."""
        if stored not in self:
            return [copy]
        self._copies.setdefault(stored, {})[home_of(copy)] = copy
        return []

    def places(self, stored: Any) -> dict[str, Any]:
        """Return the memories that an object lies in, with its key in each."""
        return {home_of(stored): stored, **self._copies.get(stored, {})}

    def leave(self, home: str) -> None:
        """Take note that a memory is gone, and all copies in it."""
        for stored, copies in list(self._copies.items()):
            copies.pop(home, None)
            if not copies:
                del self._copies[stored]

    def _gone(self, stored: Any) -> list[Any]:
        if stored in self:
            return []
        return [stored, *self._copies.pop(stored, {}).values()]
