"""The memory of an endpoint, which its local clients share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from proxystore_core.connectors.protocols import Reservation
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import InvalidKeyError, StorageFullError
from proxystore_endpoint.storage.index import Name
from proxystore_endpoint.storage.names import memory_name

_T = TypeVar("_T")
_TRIES = 8


class Memory:
    """Objects in a `SharedMemoryConnector`, by their names in the index.

    Args:
        endpoint_id: UUID of the endpoint, as text.
        directory: Directory of the shared memory; a new one by default.
        quota: Bytes that it may take.
        drop: Frees so many bytes of it, if there is something that may go; tells whether
            there was.

    Attributes:
        limit: Bytes that it may take.
    """

    def __init__(
        self,
        endpoint_id: str,
        directory: str | None,
        quota: int | str | None,
        drop: Callable[[int], bool],
        used: Callable[[], int],
    ) -> None:
        self._endpoint_id = endpoint_id
        self._drop = drop
        self._used = used
        self._connector = SharedMemoryConnector(directory, quota=quota, spill=False)
        self.limit = self._connector.usage().limit or 0
        self._strangers: set[str] = set()

    def config(self) -> dict[str, Any]:
        """Return what clients attach with."""
        return self._connector.config()

    def key(self, name: Name) -> SharedMemoryKey:
        """Return the key of an object in the memory."""
        return SharedMemoryKey(memory_name(name.origin or self._endpoint_id, name.key))

    def put(self, name: Name, views: Sequence[memoryview], nbytes: int) -> bool:
        """Store an object, dropping others for it; tell whether there was room."""
        key = self.key(name)
        return self._with_room(lambda: self._put(key, views), nbytes) is not None

    def put_beside(self, name: Name, view: memoryview) -> bool:
        """Store an object if there is room for it as it is; tell whether there was."""
        with contextlib.suppress(StorageFullError):
            return self._put(self.key(name), [view])
        return False

    def _put(self, key: SharedMemoryKey, views: Sequence[memoryview]) -> bool:
        self._connector.set_parts(key, views)
        return True

    def reserve(self, name: Name, nbytes: int) -> Reservation | None:
        """Make room for an object, dropping others for it; `None` where there is none."""
        key = self.key(name)
        return self._with_room(lambda: self._connector.reserve(key, nbytes), nbytes)

    def _with_room(self, act: Callable[[], _T], nbytes: int) -> _T | None:
        for attempt in range(_TRIES):
            with contextlib.suppress(StorageFullError):
                return act()
            if not self.make_room(nbytes, attempt):
                break
        return None

    def make_room(self, nbytes: int, attempt: int = 0) -> bool:
        """Drop what lies elsewhere too, as little as will do; tell whether there was any.

        Args:
            nbytes: Bytes that are wanted.
            attempt: How often it was too little: objects that come at the same time take
                room as well, and readers keep some.
        """
        missing = self._used() + nbytes - self.limit
        return nbytes <= self.limit and self._drop(max(missing, nbytes * attempt // _TRIES, 1))

    def view(self, name: Name) -> memoryview | None:
        """Return the bytes of an object, or `None` where they are not here.

        Raises:
            CorruptObjectError: They are damaged.
        """
        found = self._connector.get(self.key(name))
        return None if found is None else memoryview(found)

    def exists(self, name: Name) -> bool:
        """Tell whether the bytes of an object are here."""
        return self._connector.exists(self.key(name))

    def evict(self, name: Name) -> None:
        """Remove the bytes of an object."""
        self._connector.evict(self.key(name))

    def warm(self) -> int:
        """Return the bytes that are kept for reuse; this looks at every object."""
        return self._connector.usage().reserved

    def sweep(self, known: set[str]) -> int:
        """Remove what a client wrote and never told of; return how many objects that were.

        Args:
            known: The memory names of all objects in the index. What is not among them
                twice in a row goes.
        """
        found = {key.object_id for key in self._connector.keys()} - known  # noqa: SIM118 - no dict
        gone = found & self._strangers
        for object_id in gone:
            with contextlib.suppress(InvalidKeyError):
                self._connector.evict(SharedMemoryKey(object_id))
        self._strangers = found - gone
        return len(gone)

    def close(self) -> None:
        """Let go of the memory, with all that is in it."""
        self._connector.close()
