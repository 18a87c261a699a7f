"""Objects as files: spilled ones, and large durable ones.

A file holds the bytes of an object and nothing else. It is filled under a name that
is removed at the next start, and given its final name when it is whole; it never
changes after that, so that it can be mapped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from proxystore_core.exceptions import CorruptObjectError, StorageFullError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.exceptions import EndpointStorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PARTIAL = ".partial-"
_CHUNK = 4 << 20


class Files:
    """The files of one kind, in a directory of their own.

    Args:
        directory: The directory; it is made, for this user alone.

    Raises:
        EndpointStorageError: It cannot be made, or another process uses it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._lock = -1
        try:
            make_private(self.directory)
            self._lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise EndpointStorageError(
                f"Another process stores objects in {directory}: stop that endpoint first."
            ) from error
        except OSError as error:
            self.close()
            raise EndpointStorageError(
                f"The directory {directory} cannot be used: {error.strerror}."
            ) from error

    def close(self, *, remove: bool = False) -> None:
        """Let go of the directory.

        Args:
            remove: Remove it, if there are no files in it.
        """
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        if remove and not self.names():
            with contextlib.suppress(OSError):  # somebody else's files are in it
                (self.directory / ".lock").unlink()
                self.directory.rmdir()
        os.close(lock)

    def path(self, name: str) -> str:
        """Return where a whole file lies."""
        return str(self.directory / name)

    def partial(self, name: str) -> Path:
        """Return where a file lies while it is filled."""
        return self.directory / f"{_PARTIAL}{name}"

    def names(self) -> list[str]:
        """Return the names of all whole files."""
        names = (path.name for path in self.directory.iterdir())
        return [name for name in names if not name.startswith(".")]

    def remove_partial(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self.directory.glob(f"{_PARTIAL}*"):
            path.unlink()

    def new_name(self) -> str:
        """Return a name that no file has."""
        return os.urandom(12).hex()

    def create(self, name: str, nbytes: int) -> None:
        """Make a file to be filled, with all its bytes set aside.

        Raises:
            StorageFullError: The device is full.
        """
        path = self.partial(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, nbytes)
        except OSError as error:
            path.unlink()
            raise self.full(nbytes, error) from error
        finally:
            os.close(fd)

    def full(self, nbytes: int, error: OSError) -> Exception:
        """Return what to raise for an error of the device."""
        if error.errno not in FULL:
            return EndpointStorageError(f"Writing to {self.directory} failed: {error.strerror}.")
        return StorageFullError(
            f"There is no room for {bytes_to_readable(nbytes)} on the device of {self.directory}.",
            nbytes=nbytes,
        )

    def finish(self, name: str, *, durable: bool) -> None:
        """Give a filled file its name; if `durable`, so that it survives a loss of power.

        Raises:
            OSError: The device failed; what is there of the file is no object.
        """
        partial = self.partial(name)
        if durable:
            sync(partial)
        partial.rename(self.path(name))
        if durable:
            sync(self.directory)

    def remove(self, name: str, *, partial: bool = False) -> None:
        """Remove a file, if it is there."""
        path = self.partial(name) if partial else self.directory / name
        path.unlink(missing_ok=True)

    def view(self, name: str, nbytes: int) -> memoryview:
        """Map a file, read-only.

        Raises:
            CorruptObjectError: It is gone, or not `nbytes` long.
        """
        if nbytes == 0:
            return memoryview(b"")
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CorruptObjectError(f"The file {self.path(name)} of an object is gone.") from None
        try:
            size = os.fstat(fd).st_size
            if size != nbytes:
                raise CorruptObjectError(
                    f"The file {self.path(name)} has {size} bytes instead of {nbytes}."
                )
            return memoryview(mmap.mmap(fd, nbytes, prot=mmap.PROT_READ))
        finally:
            os.close(fd)

    def size(self, name: str) -> int:
        """Return the length of a file in bytes, -1 where there is none."""
        try:
            return (self.directory / name).stat().st_size
        except FileNotFoundError:
            return -1

    def digest(self, name: str) -> bytes:
        """Return the SHA-256 of a file, read and not mapped: a bad disk is an error then.

        Raises:
            CorruptObjectError: It cannot be read.
        """
        sha = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK))
        try:
            with open(self.path(name), "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    sha.update(buffer[:count])
        except OSError as error:
            raise CorruptObjectError(
                f"The file {self.path(name)} cannot be read: {error.strerror}."
            ) from error
        return sha.digest()


def map_writable(path: Path, nbytes: int) -> memoryview:
    """Map a file whose bytes are set aside, to be filled."""
    if nbytes == 0:
        return memoryview(bytearray())
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED))
    finally:
        os.close(fd)


def write_file(path: Path, views: Sequence[memoryview]) -> bytes:
    """Write parts to a file that was made for them; return their SHA-256.

    Raises:
        OSError: The device failed.
    """
    sha = hashlib.sha256()
    with open(path, "r+b", buffering=0) as file:
        for view in views:
            for start in range(0, len(view), _CHUNK):
                chunk = view[start : start + _CHUNK]
                sha.update(chunk)
                while chunk:
                    chunk = chunk[file.write(chunk) :]
    return sha.digest()


def digest_of(views: Sequence[memoryview]) -> bytes:
    """Return the SHA-256 of parts."""
    sha = hashlib.sha256()
    for view in views:
        sha.update(view)
    return sha.digest()


def sync(path: Path) -> None:
    """Have the device keep a file, or the names in a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private(directory: Path) -> None:
    """Make a directory, or one that is there, this user's alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def _allocate(fd: int, nbytes: int) -> None:
    if nbytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, nbytes)
    elif nbytes:
        zeros = bytes(min(nbytes, _CHUNK))  # macOS cannot allocate otherwise
        for start in range(0, nbytes, len(zeros)):
            os.pwrite(fd, zeros[: nbytes - start], start)
