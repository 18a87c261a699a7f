"""The index: which objects there are, where each lies, and what goes first."""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
from collections import OrderedDict
from typing import NamedTuple

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.storage.rows import Row
from proxystore_endpoint.storage.types import Durability, ObjectStat

_REASONS = 50_000
_RUN = secrets.token_hex(4)  # versions of an earlier run are others
_NUMBERS = itertools.count()


class Name(NamedTuple):
    """Name of an object here.

    Attributes:
        origin: Endpoint that it is a copy from; `''` for an own object.
        key: Its key there.
    """

    origin: str
    key: str


class Entry:
    """One object.

    Attributes:
        name: Its name.
        nbytes: Its length in bytes.
        etag: SHA-256 in hex, or `''`.
        stored: When it was stored, on the storage's clock.
        expires: When it expires, or `None`.
        in_memory: Whether it lies in memory.
        file: Name of the spilled file it lies in, or `''`.
        row: Its row among the durable objects, or `None`.
        damaged: Whether its bytes were found to be damaged.
        version: Differs from that of every other object that this name had or will have.
    """

    __slots__ = (
        "damaged", "etag", "expires", "file", "in_memory", "name", "nbytes", "row", "stored",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        name: Name,
        nbytes: int,
        *,
        stored: float,
        expires: float | None = None,
        etag: str = "",
        in_memory: bool = False,
        file: str = "",
        row: Row | None = None,
    ) -> None:
        self.name = name
        self.nbytes = nbytes
        self.etag = etag
        self.stored = stored
        self.expires = expires
        self.in_memory = in_memory
        self.file = file
        self.row = row
        self.damaged = False
        self.version = f"{_RUN}-{next(_NUMBERS):x}"

    @property
    def durability(self) -> Durability:
        """Where it lies, as the acknowledgement of a put says it."""
        if self.row is not None:
            return "durable"
        return "memory" if self.in_memory else "spill"

    @property
    def droppable(self) -> bool:
        """Whether its bytes in memory may go: it lies elsewhere too."""
        return self.in_memory and (self.row is not None or bool(self.name.origin))

    def stat(self, now: float) -> ObjectStat:
        """Return what is known of it."""
        return ObjectStat(
            key=self.name.key,
            nbytes=self.nbytes,
            durability=self.durability,
            etag=self.etag,
            expires_in=None if self.expires is None else max(0.0, self.expires - now),
            age=max(0.0, now - self.stored),
            origin=self.name.origin,
            version=self.version,
        )


class Index:
    """All objects of a storage. Its methods may be called from any thread; none does I/O."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._entries: dict[Name, Entry] = {}
        # Whose bytes in memory may go, the longest unused first.
        self._copies: OrderedDict[Name, Entry] = OrderedDict()
        self._cached: OrderedDict[Name, Entry] = OrderedDict()
        self._expiring: list[tuple[float, int, Entry]] = []
        self._turn = 0
        self._reasons: OrderedDict[str, MissingReason] = OrderedDict()
        self.objects = self.nbytes = self.copies = self.copies_nbytes = 0
        self.memory = self.in_memory = self.damaged = 0

    def get(self, name: Name, now: float) -> Entry | None:
        """Return an object unless it expired, and count it as used."""
        with self._mutex:
            entry = self._entries.get(name)
            if entry is None or (entry.expires is not None and entry.expires <= now):
                return None
            for shelf in (self._copies, self._cached):
                if name in shelf:
                    shelf.move_to_end(name)
            return entry

    def peek(self, name: Name) -> Entry | None:
        """Return an object, expired or not."""
        return self._entries.get(name)

    def put(self, entry: Entry) -> Entry | None:
        """Add an object; return the one whose place it takes."""
        with self._mutex:
            old = self._take(entry.name)
            self._entries[entry.name] = entry
            self._count(entry, 1)
            self._shelve(entry)
            if entry.expires is not None:
                self._turn += 1
                heapq.heappush(self._expiring, (entry.expires, self._turn, entry))
                if len(self._expiring) > 2 * len(self._entries) + 1000:  # mostly of what is gone
                    self._expiring = [
                        one for one in self._expiring if self._entries.get(one[2].name) is one[2]
                    ]
                    heapq.heapify(self._expiring)
            if not entry.name.origin:
                self._reasons.pop(entry.name.key, None)
            return old

    def remove(self, entry: Entry, reason: MissingReason | None = None) -> bool:
        """Remove an object, if it is this one that is there; tell whether it was."""
        with self._mutex:
            if self._entries.get(entry.name) is not entry:
                return False
            self._take(entry.name)
            if reason is not None and not entry.name.origin:
                self._reasons[entry.name.key] = reason
                while len(self._reasons) > _REASONS:
                    self._reasons.popitem(last=False)
            return True

    def set_in_memory(self, entry: Entry, *, in_memory: bool) -> None:
        """Note that the bytes of an object came into memory, or left it."""
        with self._mutex:
            if self._entries.get(entry.name) is entry and entry.in_memory != in_memory:
                self.memory += entry.nbytes if in_memory else -entry.nbytes
                self.in_memory += 1 if in_memory else -1
                entry.in_memory = in_memory
                self._unshelve(entry.name)
                self._shelve(entry)

    def set_damaged(self, entry: Entry) -> None:
        """Note that the bytes of an object are damaged."""
        with self._mutex:
            if self._entries.get(entry.name) is entry and not entry.damaged:
                entry.damaged = True
                self.damaged += 1

    def droppable(self, *, copies_only: bool = False) -> Entry | None:
        """Return the object whose bytes in memory should go first, copies before others."""
        with self._mutex:
            for shelf in (self._copies,) if copies_only else (self._copies, self._cached):
                if shelf:
                    return next(iter(shelf.values()))
        return None

    def due(self, now: float) -> list[Entry]:
        """Return the objects that expired, and forget that they do."""
        due: list[Entry] = []
        with self._mutex:
            while self._expiring and self._expiring[0][0] <= now:
                entry = heapq.heappop(self._expiring)[2]
                if self._entries.get(entry.name) is entry:
                    due.append(entry)
        return due

    def next_due(self) -> float | None:
        """Return when the next object expires."""
        with self._mutex:
            return self._expiring[0][0] if self._expiring else None

    def reason(self, key: str, now: float) -> MissingReason:
        """Say why there is no object of this endpoint under a key."""
        with self._mutex:
            entry = self._entries.get(Name("", key))
            if entry is not None and entry.expires is not None and entry.expires <= now:
                return MissingReason.EXPIRED
            return self._reasons.get(key, MissingReason.UNKNOWN)

    def all(self) -> list[Entry]:
        """Return all objects, in the order in which they were stored."""
        with self._mutex:
            return list(self._entries.values())

    def _take(self, name: Name) -> Entry | None:
        old = self._entries.pop(name, None)
        if old is not None:
            self._count(old, -1)
            self._unshelve(name)
        return old

    def _shelve(self, entry: Entry) -> None:
        if entry.droppable:
            (self._copies if entry.name.origin else self._cached)[entry.name] = entry

    def _unshelve(self, name: Name) -> None:
        self._copies.pop(name, None)
        self._cached.pop(name, None)

    def _count(self, entry: Entry, sign: int) -> None:
        if entry.name.origin:
            self.copies += sign
            self.copies_nbytes += sign * entry.nbytes
        else:
            self.objects += sign
            self.nbytes += sign * entry.nbytes
        self.memory += sign * entry.nbytes if entry.in_memory else 0
        self.in_memory += sign if entry.in_memory else 0
        self.damaged += sign if entry.damaged else 0
