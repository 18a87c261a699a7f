"""The database of durable objects: what there is for good, and the small ones themselves.

SQLite with a write-ahead log, synced at every commit; writers that come together share
one commit. Against what a disk may do to the files, rows are sealed with a digest, the
number and the sum of all seals are kept, and so is, in a file of its own, how many
commits were acknowledged: what is lost or altered shows when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from proxystore_core.exceptions import CorruptObjectError, StorageFullError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.exceptions import DatabaseCorruptError, EndpointStorageError
from proxystore_endpoint.storage.files import sync
from proxystore_endpoint.storage.rows import (
    INSERT,
    SCHEMA,
    SELECT,
    Row,
    checked,
    number_of,
    readable_rows,
    sum_of,
)

INLINE = 64 << 10
"""Largest object (bytes) that lies in the database itself."""

_VERSION = 1
_WAL_PAGES = 200  # of the log, merged into the database from then on
_SHRINK_STEPS = 25
_BALLAST = 4 << 20  # set aside so that a full device can record what was evicted: > 2 logs
_ACKNOWLEDGED = struct.Struct("<Q8s")
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Change:
    """What one writer wants to be committed."""

    __slots__ = ("data", "delete", "done", "error", "insert")

    def __init__(self, insert: Row | None, data: bytes | None, delete: list[Row]) -> None:
        self.insert, self.data, self.delete = insert, data, delete
        self.done = False
        self.error: Exception | None = None


class Database:
    """The database in a directory; it belongs to one process, and to all its threads.

    Args:
        directory: The directory; nobody else uses it.

    Attributes:
        rows: The rows that were there when it was opened.
        problems: What was found to be damaged or lost then.

    Raises:
        DatabaseCorruptError: It is of another release, or cannot even be set aside.
    """

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "objects.db")
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self._directory = directory
        self._queue: list[_Change] = []
        self._queue_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._commits = self._count = self._seals = self._next = 0
        self._tight = False  # whether the ballast is spent
        self._acknowledged = os.open(
            directory / "acknowledged", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        salvaged = False
        try:
            self._load(self._connect())
        except (sqlite3.DatabaseError, CorruptObjectError) as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_corrupt(error):
                raise self._translate(error, 0) from error
            self._salvage(error)
            salvaged = True
        before = self._read_acknowledged()
        if before is None and self._commits:
            self.problems.append(f"{self._directory}/acknowledged is damaged")
        elif before is not None and before > self._commits and not salvaged:
            self.problems.append(
                f"the last {before - self._commits} changes of {self.path} are lost"
            )
        self._commits = max(self._commits, before or 0)
        self._next = max((row.id for row in self.rows), default=0)
        self._reader = self._connection()
        self._refill()

    def _connection(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        made.executescript(
            "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;"
        )
        return made

    def _connect(self) -> sqlite3.Connection:
        if not Path(self.path).exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._writer = writer = self._connection()
        version = writer.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not writer.execute("SELECT 1 FROM sqlite_schema").fetchone():
            writer.executescript("PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;")
            writer.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={_VERSION}; COMMIT")
            sync(self._directory)
        elif version != _VERSION:
            raise CorruptObjectError(f"It has version {version}; this release reads {_VERSION}.")
        writer.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
            f"PRAGMA wal_autocheckpoint={_WAL_PAGES};"
        )
        return writer

    def _load(self, writer: sqlite3.Connection) -> None:
        found = writer.execute("PRAGMA quick_check(3)").fetchall()
        if found != [("ok",)]:
            raise CorruptObjectError("; ".join(str(line[0]) for line in found))
        self.rows = [Row.parse(values) for values in writer.execute(SELECT)]
        totals = writer.execute("SELECT commits, rows, seals FROM totals WHERE id=1")
        self._commits, count, seals = totals.fetchone() or (0, -1, b"")
        self._count, self._seals = len(self.rows), sum_of(row.seal() for row in self.rows)
        if (count, seals) != (self._count, self._seals.to_bytes(16, "big")):
            raise CorruptObjectError(f"It has {len(self.rows)} rows, and should have {count}.")

    def _salvage(self, error: Exception) -> None:
        """Set a damaged database aside, and go on with what can be read of it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        number = 1
        while Path(aside := f"{self.path}.damaged-{number}").exists():
            number += 1
        try:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
            kept = readable_rows(aside)
            self._connect()
            self._commits = self._count = self._seals = 0
        except (OSError, sqlite3.DatabaseError) as failure:
            raise DatabaseCorruptError(
                f"The database {self.path} is damaged ({error}) and cannot be set aside "
                f"({failure}). Move it away by hand to start without it.",
                path=self.path,
            ) from error
        self.problems.append(
            f"{self.path} was damaged ({error}); {len(kept)} objects were saved from it, the "
            f"rest is in {aside}"
        )
        for row, data in kept.values():
            self.change(insert=row, data=data)
        self.rows = [row for row, _ in kept.values()]

    def change(
        self, *, insert: Row | None = None, data: bytes | None = None, delete: Iterable[Row] = ()
    ) -> None:
        """Change rows; all of it is on the disk when this returns, or none.

        Args:
            insert: A row to add.
            data: The bytes of its object, where they are to lie in it.
            delete: Rows to remove.

        Raises:
            StorageFullError: The device is full; never, if rows are removed only.
            EndpointStorageError: The device failed.
        """
        change = _Change(insert, data, list(delete))
        with self._queue_lock:
            self._queue.append(change)
        with self._commit_lock:  # whoever has it commits for all who wait for it
            if not change.done:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        if change.error is not None:
            raise change.error

    def _commit(self, batch: list[_Change]) -> None:
        error = self._attempt(batch)
        if error is not None and len(batch) > 1:
            for one in batch:
                self._commit([one])
            return
        if error is not None and batch[0].insert is None and isinstance(error, StorageFullError):
            self._drop_ballast()
            error = self._attempt(batch)
        for change in batch:
            change.done, change.error = True, error

    def _attempt(self, batch: list[_Change]) -> Exception | None:
        writer = self._writer
        if writer is None:
            return EndpointStorageError("The storage was closed.")
        count, seals = self._count, self._seals
        if self._tight and any(change.insert is not None for change in batch):
            self._shrink(0)
            self._refill()
            if self._tight:  # what is left is kept for evicting
                return self._full(sum(len(change.data or b"") for change in batch))
        try:
            writer.execute("BEGIN IMMEDIATE")
            for change in batch:
                for row in change.delete:
                    gone = writer.execute("DELETE FROM objects WHERE id=?", (row.id,))
                    if gone.rowcount == 1:
                        count, seals = count - 1, (seals - number_of(row.seal())) % (1 << 128)
                if change.insert is not None:
                    writer.execute(INSERT, (*change.insert.values(), change.data))
                    count, seals = count + 1, (seals + number_of(change.insert.seal())) % (1 << 128)
            totals = (self._commits + 1, count, seals.to_bytes(16, "big"))
            writer.execute("UPDATE totals SET commits=?, rows=?, seals=? WHERE id=1", totals)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            nbytes = sum(len(change.data or b"") for change in batch)
            return self._translate(error, nbytes)
        self._commits, self._count, self._seals = totals[0], count, seals
        self._write_acknowledged()
        return None

    def new_id(self) -> int:
        """Return a number for a new row."""
        with self._queue_lock:
            self._next += 1
            return self._next

    def data(self, row: Row) -> bytes:
        """Return the bytes of an object that lie in its row.

        Raises:
            CorruptObjectError: They are not what was written.
        """
        with self._read_lock:
            if self._reader is None:
                raise EndpointStorageError("The storage was closed.")
            try:
                found = self._reader.execute("SELECT data FROM objects WHERE id=?", (row.id,))
                values = found.fetchone()
            except sqlite3.Error as error:
                raise CorruptObjectError(
                    f"The object {row.key!r} in {self.path} cannot be read: {error}."
                ) from error
        return checked(row, None if values is None else values[0], self.path)

    def shrink(self) -> None:
        """Give pages that are free back to the file system."""
        with self._commit_lock:
            self._shrink(1000)

    def _shrink(self, least: int) -> None:
        """Give free pages back, if there are more than `least`; the caller commits."""
        if self._writer is None:
            return
        with contextlib.suppress(sqlite3.Error):  # a full disk: next time
            for _ in range(_SHRINK_STEPS):  # in steps, each of which the log has room for
                if self._writer.execute("PRAGMA freelist_count").fetchone()[0] <= least:
                    break
                self._writer.executescript(f"PRAGMA incremental_vacuum({_WAL_PAGES})")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Let go of the files, with everything in the database itself."""
        with self._commit_lock, self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
            self._reader = self._writer = None
            if self._acknowledged >= 0:
                os.close(self._acknowledged)
                self._acknowledged = -1

    def _read_acknowledged(self) -> int | None:
        written = os.pread(self._acknowledged, _ACKNOWLEDGED.size, 0)
        if len(written) == _ACKNOWLEDGED.size:
            number, check = _ACKNOWLEDGED.unpack(written)
            if check == _check(number):
                return int(number)
        return None

    def _write_acknowledged(self) -> None:
        # Not synced: after a loss of power it may say less than was done, and never more.
        with contextlib.suppress(OSError):
            written = _ACKNOWLEDGED.pack(self._commits, _check(self._commits))
            os.pwrite(self._acknowledged, written, 0)

    def _drop_ballast(self) -> None:
        self._tight = True
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._directory / "ballast", 0)

    def _refill(self) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._directory / "ballast", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_size < _BALLAST and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, _BALLAST)
                self._tight = False
            finally:
                os.close(fd)

    def _full(self, nbytes: int) -> StorageFullError:
        return StorageFullError(
            f"There is no room for {bytes_to_readable(nbytes)} on the device of {self.path}.",
            nbytes=nbytes,
        )

    def _translate(self, error: sqlite3.Error, nbytes: int) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _FULL:
            return self._full(nbytes)
        if _is_corrupt(error):
            return DatabaseCorruptError(
                f"The database {self.path} is damaged: {error}. Restart the endpoint: it saves "
                "what can be read.",
                path=self.path,
            )
        return EndpointStorageError(f"The database {self.path} failed: {error}.")


def _is_corrupt(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def _check(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8).digest()
