"""The pool: the area in memory, whose evicted segments are written again.

Fresh pages of a memory file system cost several times the copy into them, so a
large segment is not removed when its object is evicted. It goes to the free
list, and the next object of about its size takes it from there, provided that
no reader still maps it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from proxystore_core.connectors._area import Area, Segment, discard
from proxystore_core.connectors._issued import Issued
from proxystore_core.connectors._layout import FREE, WRITERS, StoreInfo
from proxystore_core.connectors._ledger import Ledger
from proxystore_core.connectors._mapping import (
    allocate_pages,
    copy_into,
    is_memory_file_system,
    lock_outlives_descriptor,
    map_shared,
    overlay_works,
)
from proxystore_core.connectors._memory import available_memory
from proxystore_core.connectors._parts import write_all
from proxystore_core.connectors._process import try_lock
from proxystore_core.connectors._segments import HEAD, REUSABLE, charge_of
from proxystore_core.connectors._warm import WarmMaps

_MAX_FREE = 256
_TRIES = 8
_SCARCE = 64 << 20  # from this size on (bytes), look whether the machine has memory left


class _Free(NamedTuple):
    """A free segment, as its name tells it: bytes, when it was evicted, its inode."""

    charge: int
    stamp: int
    inode: int

    @classmethod
    def parse(cls, name: str) -> _Free:
        return cls(*map(int, name.split(".")))

    @property
    def name(self) -> str:
        return f"{self.charge}.{self.stamp}.{self.inode}"


class Pool(Area):
    """The segments of a store that lie in its own directory.

    Args:
        info: The store.
        ledger: Its ledger.
        issued: Where to note that an object exists.
    """

    def __init__(self, info: StoreInfo, ledger: Ledger, issued: Issued) -> None:
        super().__init__(info.directory, ledger, issued)
        self._free = f"{info.directory}/{FREE}"
        self._recycle = info.recycle
        self._warm = WarmMaps(info.recycle)
        self._recounted = self._recount_took = 0.0

    def after_fork(self) -> None:
        """Drop, in a child, the mappings of the parent."""
        super().after_fork()
        self._warm.after_fork()

    def close(self) -> None:
        """Let go of all mappings."""
        self._warm.clear()

    def write(self, object_id: str, head: bytes, views: Sequence[memoryview], *, new: bool) -> bool:
        """Store an object, or nothing; tell whether there was room."""
        if super().write(object_id, head, views, new=new):
            return True
        return self.drop_free() > 0 and super().write(object_id, head, views, new=new)

    def allocate(self, size: int) -> Segment | None:
        """Take a free segment or make one; `None` where quota or device have no room."""
        doomed: list[str] = []
        charge = charge_of(size)
        try:
            with self.ledger as books:
                segment = self._reuse(size) if size >= REUSABLE and books.free_count else None
                if segment is None and charge <= books.quota:
                    segment = self._afford(charge, doomed)
        finally:
            self._discard(doomed)
        if segment is None or segment.inode is not None or size < REUSABLE:
            return segment
        self._warm.purge()
        if self.has_room(size) or (self.drop_free() and self.has_room(size)):
            return segment
        self.abort(segment)
        return None

    def has_room(self, nbytes: int) -> bool:
        """Tell whether the device and the machine's memory have room for so many bytes more."""
        if not super().has_room(nbytes):
            return False
        if nbytes < _SCARCE or not self._in_memory:
            return True
        return nbytes + _SCARCE < available_memory()

    @cached_property
    def _in_memory(self) -> bool:
        return is_memory_file_system(self.directory)

    def _afford(self, charge: int, doomed: list[str]) -> Segment | None:
        books = self.ledger
        if not books.fits(charge):
            self._recount()
        if not books.fits(charge):
            self._trim(doomed, used=books.quota - charge)
        if not books.fits(charge):
            return None
        books.used += charge
        return self._make(charge)

    def _recount(self) -> None:
        """Count the books anew, unless that was done just now: it reads the whole directory."""
        now = time.monotonic()
        if now - self._recounted > 50 * self._recount_took:
            self.ledger.recount()
            self._recounted = time.monotonic()
            self._recount_took = self._recounted - now

    def _reuse(self, size: int) -> Segment | None:
        charge = charge_of(size)
        fitting = [free for free in self._list() if charge <= free.charge <= 2 * charge]
        # The one that this process has mapped, then the tightest, then the latest.
        fitting.sort(key=lambda free: (free.inode not in self._warm, free.charge, -free.stamp))
        for free in fitting[:_TRIES]:
            if segment := self._take(free):
                self.ledger.free -= free.charge
                self.ledger.free_count -= 1
                return segment
        return None

    def _take(self, free: _Free) -> Segment | None:
        path, name = self._partial_name(free.charge), f"{self._free}/{free.name}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, path)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if try_lock(fd, exclusive=True):
                return Segment(fd, path, free.charge, free.inode)
            os.close(fd)
            os.rename(path, name)  # a reader maps it
        return None

    def fill(self, segment: Segment, head: bytes, views: Sequence[memoryview]) -> None:
        """Write an object into a segment, through a warm mapping where there is one."""
        fd, inode = segment.fd, segment.inode
        if inode is None:
            super().fill(segment, head, views)
            if segment.charge >= REUSABLE:  # whole pages, so that all of them can be mapped
                os.ftruncate(fd, segment.charge)
            return
        os.pwrite(fd, bytes(HEAD), 0)
        mapping = None
        if self._in_memory and overlay_works():
            mapping = self._warm.take(fd, inode, segment.charge)
        if mapping is not None:
            copy_into(mapping, HEAD, views)
        else:
            os.lseek(fd, HEAD, os.SEEK_SET)
            write_all(fd, views)
        os.pwrite(fd, head, 0)

    def map(self, segment: Segment) -> mmap.mmap:
        """Map all of a segment to be written, and keep the mapping for the next one in it."""
        fresh, fd = segment.inode is None, segment.fd
        if segment.inode is None:
            allocate_pages(fd, segment.charge)
            segment.inode = os.fstat(fd).st_ino
        else:
            os.pwrite(fd, bytes(HEAD), 0)
        if self._in_memory and overlay_works():
            warm = self._warm.take(fd, segment.inode, segment.charge, populate=not fresh)
            if warm is not None:
                return warm
        return map_shared(fd, segment.charge, populate=not fresh)

    def abort(self, segment: Segment, *, mapped: bool = False) -> bool:
        """Remove a segment, and give its bytes back; tell whether it was there still."""
        if not super().abort(segment, mapped=mapped):
            return False
        if segment.inode is not None:
            self._warm.drop(segment.inode)
        with self.ledger as books:
            books.used -= segment.charge
        return True

    def _retire(self, size: int) -> None:
        self.ledger.used -= charge_of(size)

    def evict(self, object_id: str) -> bool:
        """Remove an object, keeping a large segment for reuse; tell whether there was one."""
        path = self.path(object_id)
        doomed: list[str] = []
        with self.ledger as books:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                return False
            charge = charge_of(status.st_size)
            if status.st_size < REUSABLE:
                os.unlink(path)
                books.used -= charge
            elif charge > self._recycle:
                doomed.append(self._partial_name(charge))
                os.rename(path, doomed[0])
                books.used -= charge
            else:
                free = _Free(charge, time.time_ns(), status.st_ino)
                os.rename(path, f"{self._free}/{free.name}")
                books.free += charge
                books.free_count += 1
                if books.free > self._recycle or books.free_count > _MAX_FREE:
                    self._trim(doomed, free=self._recycle)
        self._discard(doomed)
        return True

    @property
    def needs_descriptor(self) -> bool:
        """Whether a reader must keep the file open so that nobody writes it again."""
        try:
            return not lock_outlives_descriptor(f"{self.directory}/{WRITERS}")
        except OSError:  # it cannot be tried: the device is full, or the store was just removed
            return True

    def free_bytes(self) -> int:
        """Return the bytes of all free segments."""
        with contextlib.suppress(FileNotFoundError):
            return sum(free.charge for free in self._list())
        return 0

    def drop_free(self) -> int:
        """Remove all free segments; return their bytes."""
        doomed: list[str] = []
        with self.ledger as books:
            dropped = books.free
            self._trim(doomed, free=0)
        self._discard(doomed)
        return dropped

    def _trim(self, doomed: list[str], *, free: int | None = None, used: int | None = None) -> None:
        """Take the oldest free segments away until the books are down to these bytes."""
        books = self.ledger
        for oldest in sorted(self._list(), key=lambda segment: segment.stamp):
            if (
                (free is None or books.free <= free)
                and (used is None or books.used <= used)
                and books.free_count <= _MAX_FREE
            ):
                break
            path = self._partial_name(oldest.charge)
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self._free}/{oldest.name}", path)
                doomed.append(path)
                self._warm.drop(oldest.inode)
                books.used -= oldest.charge
                books.free -= oldest.charge
                books.free_count -= 1

    def _list(self) -> list[_Free]:
        return [_Free.parse(name) for name in os.listdir(self._free)]

    @staticmethod
    def _discard(doomed: list[str]) -> None:
        for path in doomed:
            discard(path)
