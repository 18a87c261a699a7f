"""Segments: files that hold one object each behind a head that says which.

A segment is a 64-byte head and the object's bytes from offset 64, so that what
is aligned in the object is aligned in memory. It may be larger than its object,
when it held another one before. The head is written last, and made invalid
before a segment is written again: at any time it tells the truth or nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

from proxystore_core.connectors._process import Backoff, try_lock
from proxystore_core.exceptions import ConnectorUnavailableError, CorruptObjectError

HEAD = 64
PAGE = mmap.PAGESIZE
REUSABLE = 128 * 1024
"""Smallest segment (bytes) that is written again, and so must be locked by readers."""

_MAPPED = 32 * 1024  # from this size on (bytes) a mapping costs less than a copy
_FORMAT = struct.Struct("<4sHHQ40s")
_CHECKED = struct.Struct("<56sI4x")
_MAGIC = b"PSsm"
_VERSION = 1


def charge_of(size: int) -> int:
    """Return what a file of `size` bytes takes from the quota: whole pages."""
    return -(-size // PAGE) * PAGE


def make_head(object_id: str, nbytes: int) -> bytes:
    """Return the head of a segment that holds `nbytes` bytes of an object."""
    name = object_id.encode("ascii")
    fields = _FORMAT.pack(_MAGIC, _VERSION, len(name), nbytes, name)
    return _CHECKED.pack(fields, zlib.crc32(fields))


def read_head(head: bytes) -> tuple[str, int]:
    """Return the object id and the length (bytes) that a head names.

    Raises:
        CorruptObjectError: It is no head.
    """
    if len(head) != HEAD:
        raise CorruptObjectError(f"The head of the segment is cut off after {len(head)} bytes.")
    fields, crc = _CHECKED.unpack(head)
    magic, version, length, nbytes, name = _FORMAT.unpack(fields)
    if magic != _MAGIC or crc != zlib.crc32(fields):
        raise CorruptObjectError("The head of the segment is damaged.")
    if version != _VERSION:
        raise CorruptObjectError(f"The segment has format {version}, this release reads 1.")
    return name[:length].decode("ascii"), nbytes


class OpenSegment:
    """A segment opened to be read, whose bytes nobody replaces while `fd` is open.

    Attributes:
        fd: The open file; the caller closes it.
        nbytes: Length of the object in bytes.
        small: All of a small segment, head included; `None` of one that is to be mapped.
        locked: Whether the open file holds a lock, which the mapping has to keep.
    """

    __slots__ = ("fd", "locked", "nbytes", "small")

    def __init__(self, fd: int, nbytes: int, small: bytes | None, *, locked: bool) -> None:
        self.fd = fd
        self.nbytes = nbytes
        self.small = small
        self.locked = locked


def open_segment(path: str, object_id: str) -> OpenSegment | None:
    """Open the segment of an object and check its head.

    Args:
        path: Path that the object is published under.
        object_id: Id of the object.

    Returns:
        The open segment, or `None` where there is none.

    Raises:
        CorruptObjectError: The segment is damaged, truncated, or another object's.
        ConnectorUnavailableError: Another process keeps it locked.
    """
    backoff: Backoff | None = None
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = _lock_and_check(fd, path, object_id)
        except BaseException:
            os.close(fd)
            raise
        if found is not None:
            return found
        os.close(fd)
        # Evicted and taken for another object since it was opened, or just
        # published and not yet unlocked: look again.
        backoff = backoff or Backoff(10.0)
        if not backoff.pause():
            raise ConnectorUnavailableError(f"Another process keeps {path} locked.")


def _lock_and_check(fd: int, path: str, object_id: str) -> OpenSegment | None:
    size = os.fstat(fd).st_size
    small = None
    locked = size >= REUSABLE
    if locked:
        if not try_lock(fd, exclusive=False):
            return None
        size = os.fstat(fd).st_size  # it may have been given up before the lock
        head = os.pread(fd, HEAD, 0)
    elif size >= _MAPPED:
        head = os.pread(fd, HEAD, 0)
    else:
        small = os.read(fd, size + 1)
        size = len(small)
        head = small[:HEAD]
    try:
        name, nbytes = read_head(head)
        if name != object_id:
            raise CorruptObjectError(f"The segment holds the object {name!r}.")
        if HEAD + nbytes > size:
            raise CorruptObjectError(f"{HEAD + nbytes - size} bytes at its end are missing.")
    except CorruptObjectError as error:
        if not _is_still(fd, path):
            return None
        raise CorruptObjectError(
            f"The object {object_id!r} in {path} is unreadable: {error}"
        ) from None
    return OpenSegment(fd, nbytes, small, locked=locked)


def _is_still(fd: int, path: str) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
