"""A store directory as one process uses it: memory first, then the spill."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from proxystore_core.connectors._area import Area, Segment, is_full
from proxystore_core.connectors._directory import leave
from proxystore_core.connectors._issued import Issued
from proxystore_core.connectors._layout import PARTIAL, StoreInfo
from proxystore_core.connectors._ledger import Ledger, closed_error
from proxystore_core.connectors._mapping import map_private
from proxystore_core.connectors._parts import read_all
from proxystore_core.connectors._pool import Pool
from proxystore_core.connectors._process import watch_fork
from proxystore_core.connectors._reserved import Reserved
from proxystore_core.connectors._segments import HEAD, OpenSegment, make_head, open_segment
from proxystore_core.connectors._spill import Spill
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorUnavailableError,
    MissingReason,
    StorageFullError,
)
from proxystore_core.utils.data import bytes_to_readable

_T = TypeVar("_T")
_NO_MAPPING = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Channel:
    """The objects of one store.

    Args:
        info: The store.
        owner: The descriptor that owns it, or `None` where this process does not.
    """

    def __init__(self, info: StoreInfo, owner: int | None) -> None:
        self.info = info
        self._owner = owner
        self._ledger = Ledger(info.directory, info.token, info.quota)
        self._issued = Issued(info.directory, info.token)
        self._pool = Pool(info, self._ledger, self._issued)
        self._spill: Spill | None = None
        if info.spill is not None:
            self._spill = Spill(info.spill, info.directory, self._ledger, self._issued)
        watch_fork(self)

    @property
    def owned(self) -> bool:
        """Whether closing the channel removes the store, unless others own it too."""
        return self._owner is not None

    def after_fork(self) -> None:
        """Leave, in a child, the ownership to the parent."""
        owner, self._owner = self._owner, None
        if owner is not None:
            os.close(owner)

    def close(self) -> None:
        """Let go; the owner, or the last of the owners, removes the store."""
        owner, self._owner = self._owner, None
        self._pool.close()
        self._issued.close()
        self._ledger.close()
        if owner is not None:
            leave(self.info, owner)

    def issue(self) -> str:
        """Return a new object id."""
        return self._issued.issue()

    def write(self, object_id: str, views: Sequence[memoryview], nbytes: int, *, new: bool) -> None:
        """Store the bytes of an object.

        Args:
            object_id: Its id.
            views: Its parts, views of format `B`.
            nbytes: Their total length.
            new: Whether the id was issued just now, and so can have no object yet.

        Raises:
            StorageFullError: There is no room, neither in memory nor on disk.
            ConnectorClosedError: The store is gone.
        """
        head = make_head(object_id, nbytes)
        written = self._first(
            nbytes, lambda area: area if area.write(object_id, head, views, new=new) else None
        )
        if not new:
            self._evict_elsewhere(object_id, written)

    def reserve(self, object_id: str, nbytes: int) -> Reserved:
        """Make room for an object, to be filled in place; raises as `write`."""
        head = make_head(object_id, nbytes)

        def publish(area: Area, segment: Segment, views: list[memoryview]) -> None:
            try:
                done = area.finish(segment, object_id, head, views, new=False)
            except FileNotFoundError as error:
                self._check_there(error)
                raise
            if not done:
                raise self._full_error(nbytes)
            self._evict_elsewhere(object_id, area)

        def reserve(area: Area) -> Reserved | None:
            segment = area.allocate(HEAD + nbytes)
            try:
                return None if segment is None else Reserved(area, segment, nbytes, publish)
            except OSError as error:
                if is_full(error):
                    return None
                raise

        return self._first(nbytes, reserve)

    def _first(self, nbytes: int, take: Callable[[Area], _T | None]) -> _T:
        """Return what the first area that has room for so many bytes gives."""
        try:
            for area in self._areas():
                taken = take(area)
                if taken is not None:
                    return taken
        except FileNotFoundError as error:
            self._check_there(error)
            raise
        except ConnectorUnavailableError as error:  # there is no place to spill to
            raise self._full_error(nbytes, str(error)) from error
        raise self._full_error(nbytes)

    def _check_there(self, error: FileNotFoundError) -> None:
        if not os.path.isdir(f"{self.info.directory}/{PARTIAL}"):
            raise closed_error(self.info.directory) from error

    def _evict_elsewhere(self, object_id: str, written: Area) -> None:
        for area in self._areas():
            if area is not written:
                area.evict(object_id)

    def _areas(self) -> Iterator[Area]:
        yield self._pool
        if self._spill is not None:
            yield self._spill

    def _full_error(self, nbytes: int, reason: str = "") -> StorageFullError:
        with self._ledger as books:
            used, limit = books.used - books.free, self.info.quota
        if self._spill is not None:
            reason = f" Nor can it spill: {reason or self._spill.directory + ' is full.'}"
        return StorageFullError(
            f"There is no room for {bytes_to_readable(nbytes)} in {self.info.directory}: "
            f"{bytes_to_readable(used)} of {bytes_to_readable(limit)} hold objects.{reason} "
            "Evict objects, raise quota=, or name a roomier spill_dir=.",
            nbytes=nbytes,
            used=used,
            limit=limit,
        )

    def read(self, object_id: str) -> bytes | memoryview | None:
        """Return the bytes of an object, read-only, or `None` where there is none."""
        found = self._open(object_id)
        if found is None:
            return None
        area, segment = found
        try:
            if segment.small is not None:
                return segment.small[HEAD : HEAD + segment.nbytes]
            return self._map(area, segment).toreadonly()
        finally:
            os.close(segment.fd)

    def view(self, object_id: str) -> memoryview | None:
        """Return the bytes of an object in private memory, or `None` where there is none."""
        found = self._open(object_id)
        if found is None:
            return None
        area, segment = found
        try:
            if segment.small is not None:
                return memoryview(bytearray(segment.small))[HEAD : HEAD + segment.nbytes]
            return self._map(area, segment)
        finally:
            os.close(segment.fd)

    def _open(self, object_id: str) -> tuple[Area, OpenSegment] | None:
        for area in self._areas():
            segment = open_segment(area.path(object_id), object_id)
            if segment is not None:
                return area, segment
        return None

    def _map(self, area: Area, segment: OpenSegment) -> memoryview:
        size = HEAD + segment.nbytes
        keep_open = segment.locked and area.needs_descriptor
        try:
            mapping = map_private(segment.fd, size, keep_open=keep_open)
        except OSError as error:
            if error.errno not in _NO_MAPPING:
                raise
            try:
                data = bytearray(size)  # as many mappings as there may be: this one is a copy
            except MemoryError:
                raise MemoryError(
                    "No memory for an object: this process holds as many mappings as it may "
                    "(see vm.max_map_count). Let go of some of the objects it got."
                ) from error
            read_all(segment.fd, data)
            return memoryview(data)[HEAD:]
        return memoryview(mapping)[HEAD:]

    def exists(self, object_id: str) -> bool:
        """Tell whether an id has an object."""
        return any(os.path.exists(area.path(object_id)) for area in self._areas())

    def evict(self, object_id: str) -> bool:
        """Remove the object of an id; tell whether there was one."""
        try:
            return any(area.evict(object_id) for area in self._areas())
        except (FileNotFoundError, ConnectorClosedError):
            return False  # all objects went with the store

    def expire(self, object_id: str) -> None:
        """Remove the object of an id, and remember it as expired."""
        if self.evict(object_id):
            self._issued.expired(object_id)

    def reason(self, object_id: str) -> MissingReason:
        """Say why an id has no object."""
        return self._issued.reason(object_id)

    def ids(self) -> Iterator[str]:
        """Yield the ids of all objects."""
        for area in self._areas():
            yield from area.ids()

    def usage(self) -> Usage:
        """Count what the store holds."""
        sizes = [size for area in self._areas() for size in area.sizes()]
        return Usage(
            objects=len(sizes),
            nbytes=sum(sizes),
            reserved=self._pool.free_bytes(),
            limit=self.info.quota,
        )
