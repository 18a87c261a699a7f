"""Reservations: segments that are lent out to be filled in place."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Self

from proxystore_core.connectors._area import Area, Segment
from proxystore_core.connectors._segments import HEAD, REUSABLE
from proxystore_core.exceptions import ConnectorError, ReservationError


class Reserved:
    """Room for one object in an area.

    The segment lies among the partial ones, locked: where its process is killed
    it is reaped like that of any killed writer.

    Args:
        area: The area.
        segment: The segment that was allocated in it; this object takes it over.
        nbytes: Length of the object in bytes.
        publish: Is given the area, the segment and what it is to be filled with,
            nothing if it was filled in place, and makes it the object; where that
            fails it removes the segment.

    Raises:
        OSError: The device is full, or the process has too many mappings.
    """

    def __init__(
        self,
        area: Area,
        segment: Segment,
        nbytes: int,
        publish: Callable[[Area, Segment, list[memoryview]], None],
    ) -> None:
        self._area = area
        self._segment = segment
        self._publish = publish
        self._mapped = segment.charge >= REUSABLE
        try:
            memory = area.map(segment) if self._mapped else bytearray(HEAD + nbytes)
        except BaseException:
            area.abort(segment)
            raise
        self._buffer = memoryview(memory)[HEAD : HEAD + nbytes]
        # Who calls it off the list decides what becomes of the segment: once, in any thread.
        self._giving_back = weakref.finalize(
            self, _give_back, area, segment, os.getpid(), mapped=self._mapped
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abandon()

    @property
    def buffer(self) -> memoryview:
        """The writable memory of the object."""
        return self._buffer

    def publish(self) -> None:
        """Make the bytes the object of the key.

        Raises:
            ReservationError: It was published or abandoned before.
            StorageFullError: The disk that it was to be spilled to is full by now.
            ConnectorClosedError: The store is gone.
        """
        if self._giving_back.detach() is None:
            raise ReservationError("This reservation was published or abandoned before.")
        self._publish(self._area, self._segment, [] if self._mapped else [self._buffer])
        self._release()

    def abandon(self) -> None:
        """Give the room back; after `publish` this does nothing."""
        self._giving_back()
        self._release()

    def _release(self) -> None:
        with contextlib.suppress(BufferError):  # somebody is writing to it
            self._buffer.release()


def _give_back(area: Area, segment: Segment, pid: int, *, mapped: bool) -> None:
    if os.getpid() == pid:  # else it is the parent's
        with contextlib.suppress(ConnectorError):  # the store is gone
            area.abort(segment, mapped=mapped)
