"""Rows of the database of durable objects, sealed so that damage shows."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from proxystore_core.exceptions import CorruptObjectError
from proxystore_endpoint.storage.clock import Deadline

SCHEMA = """
CREATE TABLE objects (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, nbytes INTEGER NOT NULL, etag BLOB NOT NULL,
    file TEXT NOT NULL, stored REAL NOT NULL, ttl REAL, wall REAL, boot TEXT, now REAL,
    seal BLOB NOT NULL, data BLOB
) STRICT;
CREATE TABLE totals (
    id INTEGER PRIMARY KEY, commits INTEGER NOT NULL, rows INTEGER NOT NULL, seals BLOB NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, zeroblob(16));
"""
_COLUMNS = "id, key, nbytes, etag, file, stored, ttl, wall, boot, now, seal"
INSERT = f"INSERT INTO objects ({_COLUMNS}, data) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants
SELECT = f"SELECT {_COLUMNS} FROM objects"  # noqa: S608 - constants


class Row(NamedTuple):
    """A durable object.

    Attributes:
        id: Number of the row.
        key: Key of the object.
        nbytes: Its length in bytes.
        etag: Its SHA-256.
        file: Name of its file; `''` where its bytes are in the row.
        stored: When it was stored, in seconds since the epoch.
        deadline: When it expires, or `None`.
    """

    id: int
    key: str
    nbytes: int
    etag: bytes
    file: str
    stored: float
    deadline: Deadline | None

    def values(self) -> tuple[Any, ...]:
        """Return the values of all columns but the data."""
        return (*self[:6], *(self.deadline or (None,) * 4), self.seal())

    def seal(self) -> bytes:
        """Return a digest of the row."""
        text = repr((*self[:6], None if self.deadline is None else tuple(self.deadline)))
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    @classmethod
    def parse(cls, values: tuple[Any, ...]) -> Row:
        """Make a row of the values of its columns.

        Raises:
            CorruptObjectError: They are not what was written.
        """
        with contextlib.suppress(TypeError, ValueError):
            number, key, nbytes, etag, file, stored, ttl, *rest = values[:10]
            deadline = None if ttl is None else Deadline(ttl, *rest)
            row = cls(number, key, nbytes, etag, file, stored, deadline)
            if row.seal() == values[10]:
                return row
        raise CorruptObjectError(f"The row of the object {values[1]!r:.100} is damaged.")


def readable_rows(path: str) -> dict[str, tuple[Row, bytes | None]]:
    """Return by key all rows of a damaged database that can be read and are whole."""
    kept: dict[str, tuple[Row, bytes | None]] = {}
    for order in ("ASC", "DESC"):  # from both ends up to what is damaged
        with contextlib.suppress(sqlite3.DatabaseError):
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                select = f"SELECT {_COLUMNS}, data FROM objects ORDER BY id {order}"  # noqa: S608
                for values in connection.execute(select):
                    with contextlib.suppress(CorruptObjectError):
                        row = Row.parse(values[:-1])
                        data = None if row.file else checked(row, values[-1], path)
                        if row.key not in kept or kept[row.key][0].id < row.id:
                            kept[row.key] = row, data
            finally:
                connection.close()
    return kept


def checked(row: Row, data: object, path: str) -> bytes:
    """Return the bytes of an object in a row if they are what was written.

    Raises:
        CorruptObjectError: They are not.
    """
    if isinstance(data, bytes) and hashlib.sha256(data).digest() == row.etag:
        return data
    raise CorruptObjectError(f"The bytes of the object {row.key!r} in {path} are damaged.")


def number_of(seal: bytes) -> int:
    """Return a seal as a number of 128 bits."""
    return int.from_bytes(seal, "big")


def sum_of(seals: Iterable[bytes]) -> int:
    """Return the sum of seals, of 128 bits."""
    return sum(map(number_of, seals)) % (1 << 128)
