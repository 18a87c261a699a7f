"""The ledger of a store: what its quota has been spent on, counted by all its processes.

The books err only upwards: bytes are charged before a segment is made and given
back after it is gone, so a process killed in between leaves them too high. When
they say that the quota is spent, they are counted anew from the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from typing import Self

from proxystore_core.connectors._layout import FREE, LEDGER, OBJECTS, PARTIAL
from proxystore_core.connectors._process import Backoff, try_lock, unlock, watch_fork
from proxystore_core.connectors._segments import charge_of
from proxystore_core.exceptions import ConnectorClosedError

_BOOKS = struct.Struct("<8sQQQQ")  # token, used, free, number of free segments, closed
_CLOSED = struct.Struct("<Q")


class Ledger:
    """The books of one store; entering it locks them against all threads and processes.

    Attributes:
        quota: Bytes that the segments may take.
        used: Bytes that they do take, free ones included. Of use only while entered.
        free: Bytes of free segments. Of use only while entered.
        free_count: Number of free segments. Of use only while entered.
    """

    def __init__(self, directory: str, token: str, quota: int) -> None:
        self.quota = quota
        self.used = self.free = self.free_count = 0
        self._directory = directory
        self._token = token.encode("ascii")
        self._fd = -1
        self._before = b""
        self._mutex = threading.Lock()
        watch_fork(self)

    def __enter__(self) -> Self:
        self._mutex.acquire()
        try:
            if self._fd < 0:
                self._fd = os.open(f"{self._directory}/{LEDGER}", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._read()
        except BaseException as error:
            if self._fd >= 0:
                unlock(self._fd)
            self._mutex.release()
            if isinstance(error, FileNotFoundError):
                raise closed_error(self._directory) from error
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            after = self._pack()
            if after != self._before:
                os.pwrite(self._fd, after, 0)
        finally:
            unlock(self._fd)
            self._mutex.release()

    def _read(self) -> None:
        self._before = os.pread(self._fd, _BOOKS.size, 0)
        if len(self._before) < _BOOKS.size:  # not yet used, or used up by a marker alone
            self._before = self._before.ljust(_BOOKS.size, b"\0")
        token, self.used, self.free, self.free_count, closed = _BOOKS.unpack(self._before)
        if closed or token not in (self._token, bytes(8)):
            raise closed_error(self._directory)

    def _pack(self) -> bytes:
        counts = (max(0, self.used), max(0, self.free), max(0, self.free_count))
        return _BOOKS.pack(self._token, *counts, 0)

    def fits(self, charge: int) -> bool:
        """Tell whether the quota has room for so many bytes more."""
        return self.used + charge <= self.quota

    def recount(self) -> None:
        """Count anew from the files, and remove what killed writers left. Enter it first."""
        self.used = self.free = self.free_count = 0
        with contextlib.suppress(FileNotFoundError):
            self.used = sum(_sizes(f"{self._directory}/{OBJECTS}"))
            free = _sizes(f"{self._directory}/{FREE}")
            self.free, self.free_count = sum(free), len(free)
            self.used += self.free + remove_stale(f"{self._directory}/{PARTIAL}")[0]

    def after_fork(self) -> None:
        """Drop, in a child, the descriptor whose lock it would share with its parent."""
        self._mutex = threading.Lock()
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def closed_error(directory: str) -> ConnectorClosedError:
    """Return the error for a store that its owner removed."""
    return ConnectorClosedError(
        f"The store in {directory} was closed by its owner, or the owner died."
    )


def mark_closed(path: str) -> None:
    """Make all who have the ledger open see that the store is gone."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            backoff = Backoff(1.0)  # but do not wait for ever for a process that was stopped
            while not try_lock(fd, exclusive=True) and backoff.pause():
                pass
            os.pwrite(fd, _CLOSED.pack(1), _BOOKS.size - _CLOSED.size)
        finally:
            os.close(fd)


def remove_stale(directory: str, *, dry_run: bool = False) -> tuple[int, int]:
    """Remove the partial segments whose writers are gone.

    Args:
        directory: Where partial segments lie; the ledger is locked, so that none is
            between being made and being locked by its writer.
        dry_run: Only count them.

    Returns:
        Bytes charged for segments whose writers live, bytes of those that were removed.
    """
    charged = removed = 0
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if try_lock(fd, exclusive=True):
                    removed += os.fstat(fd).st_size
                    if not dry_run:
                        os.unlink(entry.path)
                else:
                    charged += charge_in(entry.name)
            finally:
                os.close(fd)
    return charged, removed


def charge_in(name: str) -> int:
    """Return the bytes that a partial segment takes from the quota, which its name ends with."""
    charge = name.rpartition(".")[2]
    return int(charge) if charge.isdecimal() else 0


def _sizes(directory: str) -> list[int]:
    sizes = []
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(charge_of(entry.stat().st_size))
    return sizes
