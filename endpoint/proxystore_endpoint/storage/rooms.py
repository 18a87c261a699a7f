"""Reservations: room for one object in memory or on disk."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from proxystore_core.connectors.protocols import Reservation as MemoryRoom
from proxystore_endpoint.exceptions import ReservationError
from proxystore_endpoint.storage.files import map_writable
from proxystore_endpoint.storage.types import Durability, Stored


class Place(Protocol):
    """Where the bytes of a reservation lie."""

    @property
    def buffer(self) -> memoryview:
        """The memory to be filled."""
        ...

    def undo(self) -> None:
        """Give the room back."""
        ...


class InMemory:
    """Room in the shared memory."""

    def __init__(self, room: MemoryRoom) -> None:
        self.room = room

    @property
    def buffer(self) -> memoryview:
        """The memory to be filled."""
        return self.room.buffer

    def undo(self) -> None:
        """Give the room back."""
        self.room.abandon()


class OnDisk:
    """Room in a file, for a spilled or for a durable object.

    Attributes:
        name: Name of the file.
        path: Where it lies until it is published.
        durable: Whether it lies among the durable objects.
    """

    def __init__(
        self, name: str, path: Path, nbytes: int, undo: Callable[[], None], *, durable: bool
    ) -> None:
        self.name = name
        self.path = path
        self.durable = durable
        self._nbytes = nbytes
        self._undo = undo
        self._buffer: memoryview | None = None

    @property
    def buffer(self) -> memoryview:
        """The memory to be filled; mapped when it is asked for."""
        if self._buffer is None:
            self._buffer = map_writable(self.path, self._nbytes)
        return self._buffer

    def undo(self) -> None:
        """Give the room back."""
        self._undo()

    def release(self) -> None:
        """Take the memory away from who filled it."""
        if self._buffer is not None:
            with contextlib.suppress(BufferError):  # somebody is writing to it
                self._buffer.release()


class Room:
    """A `Reservation` of the storage.

    Args:
        place: Where the object will lie.
        nbytes: Its length in bytes.
        publish: Makes it the object; where that fails, it gives the room back.
        done: Is called once, at the end of either kind.

    Attributes:
        place: Where the object will lie.
        nbytes: Its length in bytes.
    """

    def __init__(
        self,
        place: InMemory | OnDisk,
        nbytes: int,
        publish: Callable[..., Stored],
        done: Callable[[], None],
    ) -> None:
        self.place = place
        self.nbytes = nbytes
        self._publish = publish
        self._done = done
        # Who calls it off decides what becomes of the room: once, in any thread.
        self._giving_back = weakref.finalize(self, _give_back, place, done, os.getpid())

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abandon()

    @property
    def buffer(self) -> memoryview:
        """The writable memory that becomes the object."""
        return self.place.buffer

    @property
    def path(self) -> str:
        """The file that may be filled instead, where it lies in one; `''` elsewhere."""
        return str(self.place.path) if isinstance(self.place, OnDisk) else ""

    def publish(
        self, *, ttl: float | None = None, durability: Durability | None = None, etag: str = ""
    ) -> Stored:
        """Make what was filled in the object of the key.

        Raises:
            ReservationError: It was published or abandoned before.
            StorageFullError: The disk has no room for a durable object.
            DurabilityUnavailableError: `durable` was asked of an endpoint without a disk store.
        """
        if self._giving_back.detach() is None:
            raise ReservationError("This reservation was published or abandoned before.")
        try:
            return self._publish(self.place, ttl=ttl, durability=durability, etag=etag)
        finally:
            self._done()

    def abandon(self) -> None:
        """Give the room back; after `publish` this does nothing."""
        self._giving_back()


def _give_back(place: Any, done: Callable[[], None], pid: int) -> None:
    if os.getpid() == pid:  # else it is the parent's
        place.undo()
        done()
