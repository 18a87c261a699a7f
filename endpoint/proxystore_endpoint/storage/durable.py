"""Durable objects: small ones in the database, large ones in files that it names."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from proxystore_core.exceptions import CorruptObjectError
from proxystore_endpoint.exceptions import EndpointStorageError
from proxystore_endpoint.storage.budget import Budget, pages
from proxystore_endpoint.storage.clock import Clock, Deadline
from proxystore_endpoint.storage.database import INLINE, Database
from proxystore_endpoint.storage.files import Files, digest_of, make_private, write_file
from proxystore_endpoint.storage.rows import Row

_ROW = 400  # bytes that a row takes beside the object


class Durable:
    """The durable objects of an endpoint.

    An object is there if the database says so. A file comes before its row and goes
    after it, so a file without a row is what a crash left.

    Args:
        directory: Where they lie.
        budget: Bytes on disk.
        clock: The time.

    Attributes:
        rows: The objects that were there when it was opened.
        problems: What was found to be damaged or lost.
        nbytes: Bytes that the objects take on disk.

    Raises:
        EndpointStorageError: The directory cannot be used, or is in use.
        DatabaseCorruptError: The database is beyond help.
    """

    def __init__(self, directory: Path, budget: Budget, clock: Clock) -> None:
        try:
            make_private(directory)
        except OSError as error:
            raise EndpointStorageError(
                f"The directory {directory} cannot be used: {error.strerror}."
            ) from error
        self.files = Files(directory / "files")  # whose lock holds for the database too
        try:
            self._database = Database(directory)
        except BaseException:
            self.files.close()
            raise
        self._budget = budget
        self._clock = clock
        self._verified: set[int] = set()
        self._mutex = threading.Lock()
        self.problems = list(self._database.problems)
        self.rows = self._database.rows
        self._tidy()
        self.nbytes = 0
        for row in self.rows:
            budget.force(self._count(row, 1))

    def _tidy(self) -> None:
        self.files.remove_partial()
        known = {row.file: row for row in self.rows if row.file}
        for name in self.files.names():
            if name not in known and not self.problems:  # else its row may be what was lost
                self.files.remove(name)
        for row in known.values():
            if self.files.size(row.file) != row.nbytes:
                self.problems.append(f"the file of the object {row.key!r} is damaged or gone")

    def close(self) -> None:
        """Let go of all files."""
        self._database.close()
        self.files.close()

    def add(
        self,
        key: str,
        views: Sequence[memoryview],
        nbytes: int,
        *,
        deadline: Deadline | None,
        replaces: Row | None,
    ) -> Row:
        """Store an object for good.

        Args:
            key: Its key.
            views: Its parts.
            nbytes: Their length.
            deadline: When it expires.
            replaces: The row of the object that it takes the place of.

        Raises:
            StorageFullError: The quota or the device is full.
            EndpointStorageError: The device failed.
        """
        if nbytes > INLINE:
            name = self.reserve(nbytes)
            try:
                etag = write_file(self.files.partial(name), views)
            except OSError as error:
                self.abandon(name, nbytes)
                raise self.files.full(nbytes, error) from error
            return self.adopt(key, name, nbytes, etag, deadline=deadline, replaces=replaces)
        charge = charge_of(nbytes, in_file=False)
        self._budget.take(charge)
        try:
            data = b"".join(views)
            row = self._row(key, nbytes, digest_of([memoryview(data)]), "", deadline)
            self._insert(row, data, replaces)
        except BaseException:
            self._budget.give(charge)
            raise
        return row

    def reserve(self, nbytes: int) -> str:
        """Make a file to be filled; return its name."""
        self._budget.take(pages(nbytes))
        name = self.files.new_name()
        try:
            self.files.create(name, nbytes)
        except BaseException:
            self._budget.give(pages(nbytes))
            raise
        return name

    def abandon(self, name: str, nbytes: int) -> None:
        """Remove a file of `reserve`."""
        self.files.remove(name, partial=True)
        self._budget.give(pages(nbytes))

    def adopt(
        self,
        key: str,
        name: str,
        nbytes: int,
        etag: bytes,
        *,
        deadline: Deadline | None,
        replaces: Row | None,
    ) -> Row:
        """Make a file of `reserve`, filled by now, an object; without success it is removed."""
        try:
            self.files.finish(name, durable=True)
            row = self._row(key, nbytes, etag, name, deadline)
            self._insert(row, None, replaces)
        except BaseException as error:
            self.files.remove(name)
            self.abandon(name, nbytes)
            if isinstance(error, OSError) and error.errno is not None:
                raise self.files.full(nbytes, error) from error
            raise
        return row

    def _row(self, key: str, nbytes: int, etag: bytes, file: str, deadline: Deadline | None) -> Row:
        return Row(self._database.new_id(), key, nbytes, etag, file, self._clock.wall(), deadline)

    def _insert(self, row: Row, data: bytes | None, replaces: Row | None) -> None:
        gone = [] if replaces is None else [replaces]
        self._database.change(insert=row, data=data, delete=gone)
        with self._mutex:
            self._verified.add(row.id)
            self._count(row, 1)
        self._clean_up(gone)

    def remove(self, rows: Iterable[Row]) -> None:
        """Remove objects, for good; each must be there still.

        Raises:
            EndpointStorageError: The device failed; they may be there still.
        """
        gone = list(rows)
        if gone:
            self._database.change(delete=gone)
            self._clean_up(gone)

    def _clean_up(self, gone: list[Row]) -> None:
        for row in gone:
            with self._mutex:
                self._verified.discard(row.id)
                charge = self._count(row, -1)
            if row.file:
                self.files.remove(row.file)
            self._budget.give(charge)

    def _count(self, row: Row, sign: int) -> int:
        charge = charge_of(row.nbytes, in_file=bool(row.file))
        self.nbytes += sign * charge
        return charge

    def view(self, row: Row) -> memoryview:
        """Return the bytes of an object; those of a file are checked once in a run.

        Raises:
            CorruptObjectError: They are not what was stored.
        """
        if not row.file:
            return memoryview(self._database.data(row))
        view = self.files.view(row.file, row.nbytes)
        if row.id not in self._verified:
            if self.files.digest(row.file) != row.etag:
                raise CorruptObjectError(
                    f"The bytes of the object {row.key!r} in {self.files.path(row.file)} are "
                    "damaged."
                )
            with self._mutex:
                self._verified.add(row.id)
        return view

    def shrink(self) -> None:
        """Give free pages of the database back."""
        self._database.shrink()


def charge_of(nbytes: int, *, in_file: bool) -> int:
    """Return what an object takes from the disk quota."""
    if in_file:
        return pages(nbytes)
    return pages(nbytes) + _ROW if nbytes + _ROW > 4000 else nbytes + _ROW
