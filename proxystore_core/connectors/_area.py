"""Areas: a directory of published segments and one of partial ones."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import count

from proxystore_core.connectors._issued import Issued, is_object_id
from proxystore_core.connectors._layout import OBJECTS, PARTIAL
from proxystore_core.connectors._ledger import Ledger
from proxystore_core.connectors._mapping import allocate_pages, map_shared
from proxystore_core.connectors._parts import write_all
from proxystore_core.connectors._process import random_id, try_lock, unlock, watch_fork
from proxystore_core.connectors._segments import HEAD, REUSABLE, charge_of, read_head
from proxystore_core.exceptions import CorruptObjectError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MARGIN = 64 << 20


class Segment:
    """A segment that is being written.

    Attributes:
        fd: The file, locked so that all see that its writer lives.
        path: Where it lies until it is published.
        charge: Bytes of the quota that it takes.
        inode: Its inode, where it was another object's before.
    """

    __slots__ = ("charge", "fd", "inode", "path")

    def __init__(self, fd: int, path: str, charge: int, inode: int | None = None) -> None:
        self.fd = fd
        self.path = path
        self.charge = charge
        self.inode = inode

    def let_go(self) -> None:
        """Unlock and close the file; doing so twice is no error."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            unlock(fd)  # a child forked meanwhile has the file open too
            os.close(fd)


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a device, or a limit on files, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


class Area:
    """Segments in one file system.

    Args:
        directory: Where the directories `o` and `t` are.
        ledger: The lock under which partial segments come to be.
        issued: Where to note that an object exists.
    """

    def __init__(self, directory: str, ledger: Ledger, issued: Issued) -> None:
        self.directory = directory
        self.ledger = ledger
        self._issued = issued
        self._objects = f"{directory}/{OBJECTS}"
        self._partial = f"{directory}/{PARTIAL}"
        self._names = count()
        self._prefix = random_id(8)
        watch_fork(self)

    def after_fork(self) -> None:
        """Take, in a child, other names than the parent."""
        self._prefix = random_id(8)

    @property
    def needs_descriptor(self) -> bool:
        """Whether a reader must keep the file open so that nobody writes it again."""
        return False

    def path(self, object_id: str) -> str:
        """Return where an object is published."""
        return f"{self._objects}/{object_id}"

    def ids(self) -> list[str]:
        """Return the ids of all published objects."""
        try:
            return list(filter(is_object_id, os.listdir(self._objects)))
        except FileNotFoundError:
            return []

    def sizes(self) -> Iterator[int]:
        """Yield the length of every published object, in bytes."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._objects):
                if not is_object_id(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError, CorruptObjectError):
                    size = entry.stat().st_size
                    yield size - HEAD if size < REUSABLE else _length(entry.path)

    def has_room(self, nbytes: int) -> bool:
        """Tell whether the device has room for so many bytes more, and a little for others."""
        status = os.statvfs(self._partial)
        margin = min(_MARGIN, status.f_blocks * status.f_frsize // 64)
        return status.f_bavail * status.f_frsize >= nbytes + margin

    def write(self, object_id: str, head: bytes, views: Sequence[memoryview], *, new: bool) -> bool:
        """Store an object, or nothing; tell whether there was room.

        Args:
            object_id: Its id.
            head: The head of its segment.
            views: Its parts, views of format `B`.
            new: Whether the id cannot have an object yet.
        """
        segment = self.allocate(HEAD + sum(map(len, views)))
        return segment is not None and self.finish(segment, object_id, head, views, new=new)

    def finish(
        self,
        segment: Segment,
        object_id: str,
        head: bytes,
        views: Sequence[memoryview],
        *,
        new: bool,
    ) -> bool:
        """Fill a segment, unless it is filled, and publish it; tell whether there was room.

        Args:
            segment: The segment; it is gone if anything fails.
            object_id: The id of the object.
            head: The head of the segment.
            views: Its parts, as for `write`; none where only the head is missing.
            new: Whether the id cannot have an object yet.
        """
        try:
            if views:
                self.fill(segment, head, views)
            else:
                os.pwrite(segment.fd, head, 0)
            self._issued.stored(object_id)
            (self.publish if new else self.replace)(segment, object_id)
        except BaseException as error:
            if not self.abort(segment, mapped=not views) and new:
                self.evict(object_id)  # interrupted when it was just published
            if is_full(error):
                return False
            raise
        return True

    def allocate(self, size: int) -> Segment | None:
        """Make a segment of `size` bytes, or return `None` where there is no room."""
        if size >= REUSABLE and not self.has_room(size):
            return None
        with self.ledger:
            return self._make(charge_of(size))

    def _make(self, charge: int) -> Segment:
        path = self._partial_name(charge)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try_lock(fd, exclusive=False)
        return Segment(fd, path, charge)

    def _partial_name(self, charge: int) -> str:
        return f"{self._partial}/{self._prefix}.{next(self._names):x}.{charge}"

    def fill(self, segment: Segment, head: bytes, views: Sequence[memoryview]) -> None:
        """Write an object into a segment."""
        write_all(segment.fd, [head, *views])

    def publish(self, segment: Segment, object_id: str) -> None:
        """Make a filled segment the object of a new id."""
        os.rename(segment.path, self.path(object_id))
        segment.let_go()

    def replace(self, segment: Segment, object_id: str) -> None:
        """Make a filled segment the object of an id that may have one already."""
        path = self.path(object_id)
        if not os.path.exists(path):
            # Where another comes in between, its bytes stay charged until the next count.
            self.publish(segment, object_id)
            return
        with self.ledger:
            old, size = self._partial_name(0), None
            with contextlib.suppress(OSError):  # there is none, or the file system has no links
                os.link(path, old)
                size = os.stat(old).st_size
            os.rename(segment.path, path)
            if size is not None:
                self._retire(size)
        segment.let_go()
        discard(old)

    def _retire(self, size: int) -> None:
        """Take note that a segment of `size` bytes goes; the ledger is entered."""

    def map(self, segment: Segment) -> mmap.mmap:
        """Map all of a segment to be written, on pages that the device has set aside for it.

        Raises:
            OSError: The device is full, or the process has too many mappings.
        """
        allocate_pages(segment.fd, segment.charge)
        return map_shared(segment.fd, segment.charge, populate=False)

    def abort(self, segment: Segment, *, mapped: bool = False) -> bool:
        """Remove a segment; tell whether it was there still, and not yet published.

        Args:
            segment: The segment.
            mapped: Whether somebody may still write to a mapping of it: its pages go
                with the mapping then. Without them a write would kill the process.
        """
        try:
            os.unlink(segment.path)
            if not mapped:
                os.ftruncate(segment.fd, 0)  # its pages go at once
        except FileNotFoundError:
            return False
        finally:
            segment.let_go()
        return True

    def evict(self, object_id: str) -> bool:
        """Remove an object; tell whether there was one."""
        try:
            os.unlink(self.path(object_id))
        except FileNotFoundError:
            return False
        return True


def discard(path: str) -> None:
    """Remove a segment that nobody can find any more.

    Where nobody reads it the pages are freed at once, even if a writer still has
    it mapped; otherwise they go with the last reader. Of a small one, which is read
    without a lock, no page is taken away.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size >= REUSABLE and try_lock(fd, exclusive=True):
                os.ftruncate(fd, 0)
            os.unlink(path)
        finally:
            os.close(fd)


def _length(path: str) -> int:
    with open(path, "rb", buffering=0) as file:
        return read_head(file.read(HEAD))[1]
