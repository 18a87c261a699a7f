"""The file that keeps an endpoint's grants: read often, changed by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import GrantFileError
from proxystore_endpoint.membership import Right

logger = logging.getLogger(__name__)

_RECHECK: Final = 1.0  # seconds between looks at the file
_MAX_FILE: Final = 16 * limits.MIB


class PeerGrant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer that we know.

    Attributes:
        rights: What it may do here; it may connect even with none.
        name: For people.
        expires: When the rights end, in seconds since 1970, or None.
        addresses: TCP addresses (`host:port`) where it may be reached.
        relay: Relay where it is registered, or "".
        ticket: Secret to present to it at the first connection, until it let us in.
    """

    rights: frozenset[Right] = frozenset()
    name: str = ""
    expires: float | None = None
    addresses: tuple[str, ...] = ()
    relay: str = ""
    ticket: bytes = b""


class GroupGrant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group whose members we let in.

    Attributes:
        rights: The most that a member may do here.
        name: For people.
    """

    rights: frozenset[Right] = frozenset()
    name: str = ""


class Invitation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ticket of ours that nobody has used yet.

    Attributes:
        rights: What it gives.
        expires: When it ends, in seconds since 1970.
        name: For people: whom it is for.
    """

    rights: frozenset[Right]
    expires: float
    name: str = ""


class GrantTable(msgspec.Struct):
    """All that the file says.

    Attributes:
        version: Of the file's form.
        peers: Peers that we know.
        groups: Groups whose members we let in.
        invitations: Tickets of ours, by the hash of their secret.
        memberships: Our own memberships, encoded.
    """

    version: int = 1
    peers: dict[UUID, PeerGrant] = {}
    groups: dict[UUID, GroupGrant] = {}
    invitations: dict[str, Invitation] = {}
    memberships: list[bytes] = []


class GrantFile:
    """The file and what it last said. Thread-safe.

    Args:
        path: The file (made with mode 0600 when first needed), or None to keep it in memory.

    Raises:
        GrantFileError: The file is damaged, or others can write it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._table = GrantTable()
        self._seen: tuple[int, ...] | None = None
        self._checked = 0.0
        with self._lock:
            self._load()

    def table(self, *, fresh: bool = False) -> GrantTable:
        """What it says, to be read only; not older than a second, or than now if `fresh`.

        A file that got damaged grants nothing.
        """
        with self._lock:
            if fresh or time.monotonic() - self._checked >= _RECHECK:
                try:
                    self._load()
                except GrantFileError as error:
                    logger.error("%s Until then nobody is let in.", error)
                    self._table, self._seen = GrantTable(), None
            return self._table

    @contextmanager
    def edit(self) -> Iterator[GrantTable]:
        """Change what it says; all or nothing, and one process at a time.

        Raises:
            GrantFileError: The file is damaged: it is left as it is.
        """
        with self._lock:
            if self._path is None:
                table = _copy(self._table)
                yield table
                self._table = table
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._path.with_name(self._path.name + ".lock"), flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._load()
                table = _copy(self._table)
                yield table
                self._save(self._path, table)
                self._table, self._seen = table, None
            finally:
                os.close(lock)

    def _load(self) -> None:
        if self._path is None:
            return
        self._checked = time.monotonic()
        try:
            with open(self._path, "rb") as stream:
                status = os.fstat(stream.fileno())
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if seen == self._seen:
                    return
                if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                    raise self._damaged("can be written by others: run `chmod 600` on it")
                raw = stream.read(_MAX_FILE)
        except FileNotFoundError:
            self._table, self._seen = GrantTable(), None
            return
        except OSError as error:
            raise self._damaged(f"cannot be read ({error.strerror})") from error
        try:
            table = msgspec.json.decode(raw, type=GrantTable)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._damaged(f"is damaged ({error})") from None
        if table.version != 1:
            raise self._damaged("was written by a newer version")
        self._table, self._seen = table, seen

    def _save(self, path: Path, table: GrantTable) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as stream:
                stream.write(msgspec.json.format(msgspec.json.encode(table), indent=1))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _damaged(self, what: str) -> GrantFileError:
        return GrantFileError(f"The grants file {str(self._path)!r} {what}.", path=str(self._path))


def _copy(table: GrantTable) -> GrantTable:
    return GrantTable(
        peers=dict(table.peers),
        groups=dict(table.groups),
        invitations=dict(table.invitations),
        memberships=list(table.memberships),
    )
