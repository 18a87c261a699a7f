"""The areas of a storage, and how objects come into them and go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from proxystore_core.exceptions import ConnectorConfigError, MissingReason, StorageFullError
from proxystore_core.utils.data import bytes_to_readable, readable_to_bytes
from proxystore_endpoint.exceptions import DurabilityUnavailableError
from proxystore_endpoint.storage.budget import Budget, pages
from proxystore_endpoint.storage.clock import Clock
from proxystore_endpoint.storage.durable import Durable
from proxystore_endpoint.storage.files import Files, write_file
from proxystore_endpoint.storage.index import Entry, Index, Name
from proxystore_endpoint.storage.locks import Locks
from proxystore_endpoint.storage.memory import Memory
from proxystore_endpoint.storage.rooms import OnDisk
from proxystore_endpoint.storage.types import Durability

_TRIES = 32
_OVERHEAD = 2048  # bytes of memory that an object takes beside its own, on average
_IN_FLIGHT = 256_000_000  # bytes in flight that are allowed by default, however little memory

Size = int | str | None


class Settings(NamedTuple):
    """The arguments of a `Storage`, which its documentation explains."""

    memory_dir: str | None
    memory_quota: Size
    copies_quota: Size
    object_limit: Size
    in_flight_limit: Size
    disk_quota: Size
    spill_dir: str | None
    persist_dir: str | None
    durability: Durability | None


class Areas:
    """Memory, spill and durable objects of one storage, with the index over them.

    The bytes of one name are changed by one thread at a time, which holds the lock of
    the name; two locks are never waited for at once.
    """

    def __init__(self, endpoint_id: str, settings: Settings, clock: Clock) -> None:
        self.clock = clock
        self.index = Index()
        self.spill: Files | None = None
        self.durable: Durable | None = None
        self.lock = Locks()
        self.object_limit = _size("object_limit", settings.object_limit)
        memory_quota = _size("memory_quota", settings.memory_quota)
        self.memory = Memory(
            endpoint_id,
            settings.memory_dir,
            memory_quota,
            self.drop,
            lambda: self.index.memory + self.index.in_memory * _OVERHEAD,
        )
        try:
            limit = _size("copies_quota", settings.copies_quota)
            self.copies_limit = self.memory.limit // 2 if limit is None else limit
            limit = _size("in_flight_limit", settings.in_flight_limit)
            self.in_flight = Budget(
                max(self.memory.limit, _IN_FLIGHT) if limit is None else limit,
                "for objects that are arriving",
                "Try again when some have arrived.",
            )
            limit = _size("disk_quota", settings.disk_quota)
            if limit is None:
                limit = _free_space(settings.persist_dir or settings.spill_dir) // 2
            self.disk = Budget(limit, "on disk", "Evict objects, or raise disk_quota.")
            if settings.spill_dir is not None:
                self.spill = Files(Path(settings.spill_dir).absolute() / endpoint_id)
                self._empty_spill(self.spill)
            if settings.persist_dir is not None:
                self.durable = Durable(Path(settings.persist_dir).absolute(), self.disk, clock)
                self._load(self.durable)
        except BaseException:
            self.close()
            raise
        default: Durability = "memory" if self.durable is None else "durable"
        self.default_durability = settings.durability or default
        self.check_durability(self.default_durability)

    @staticmethod
    def _empty_spill(spill: Files) -> None:
        spill.remove_partial()
        for name in spill.names():
            spill.remove(name)

    def _load(self, durable: Durable) -> None:
        now, wall = self.clock.now(), self.clock.wall()
        expired = []
        for row in durable.rows:
            expires = None if row.deadline is None else row.deadline.at(self.clock)
            if expires is not None and expires <= now:
                expired.append(row)
                continue
            entry = Entry(
                Name("", row.key),
                row.nbytes,
                stored=now - max(0.0, wall - row.stored),
                expires=expires,
                etag=row.etag.hex(),
                row=row,
            )
            self.index.put(entry)
            if row.file and durable.files.size(row.file) != row.nbytes:
                self.index.set_damaged(entry)
        durable.remove(expired)

    def close(self) -> None:
        """Let go of all: memory and spilled objects go, durable ones stay."""
        self.memory.close()
        if self.spill is not None:
            self._empty_spill(self.spill)
            self.spill.close(remove=True)
        if self.durable is not None:
            self.durable.close()

    def check_durability(self, durability: Durability) -> None:
        """Check that objects can be stored so.

        Raises:
            DurabilityUnavailableError: They cannot.
        """
        if durability == "durable" and self.durable is None:
            raise DurabilityUnavailableError(
                "This endpoint keeps no durable objects: configure it with --persist, or ask "
                "for durability='memory'.",
                durability=durability,
            )
        if durability == "spill" and self.spill is None:
            raise DurabilityUnavailableError(
                "This endpoint does not spill: give it a spill_dir, or ask for "
                "durability='memory'.",
                durability=durability,
            )

    # Room.

    def drop(self, nbytes: int, *, copies_only: bool = False) -> bool:
        """Free memory of what lies elsewhere too; tell whether any was freed.

        Args:
            nbytes: How many bytes are wanted.
            copies_only: Whether to drop copies of other endpoints' objects only.
        """
        freed = busy = 0
        while freed < max(nbytes, 1) and busy < _TRIES:
            entry = self.index.droppable(copies_only=copies_only)
            if entry is None:
                break
            # Not waited for: this thread may hold the lock of another name.
            if not self.lock.acquire(entry.name, blocking=False):
                busy += 1
                self.index.get(entry.name, self.clock.now())  # to the end of the queue
                continue
            try:
                if self.index.peek(entry.name) is entry and entry.droppable:
                    if entry.name.origin:
                        self.index.remove(entry)
                    else:
                        self.index.set_in_memory(entry, in_memory=False)
                    self.memory.evict(entry.name)
                    freed += entry.nbytes
            finally:
                self.lock.release(entry.name)
        return freed > 0

    def trim_copies(self, nbytes: int) -> None:
        """Drop copies until so many bytes more are within their budget."""
        while self.index.copies_nbytes + nbytes > self.copies_limit:
            excess = self.index.copies_nbytes + nbytes - self.copies_limit
            if not self.drop(min(excess, self.index.copies_nbytes), copies_only=True):
                break

    def full(self, nbytes: int, error: StorageFullError | None = None) -> StorageFullError:
        """Return the error for an object that fits nowhere."""
        used, limit = self.index.memory, self.memory.limit
        why = "It does not spill." if self.spill is None else f"Nor can it spill: {error}"
        return StorageFullError(
            f"There is no room for {bytes_to_readable(nbytes)}: objects take "
            f"{bytes_to_readable(used)} of {bytes_to_readable(limit)} of memory. {why} Evict "
            "objects, or raise memory_quota.",
            nbytes=nbytes,
            used=used,
            limit=limit,
        )

    # Spilled objects.

    def open_file(self, nbytes: int, *, durable: bool) -> OnDisk:
        """Make a file to be filled, among the spilled or the durable objects.

        Raises:
            StorageFullError: The quota or the device is full.
        """
        if durable and self.durable is not None:
            kept = self.durable
            name = kept.reserve(nbytes)
            path = kept.files.partial(name)
            return OnDisk(name, path, nbytes, lambda: kept.abandon(name, nbytes), durable=True)
        spill = self.spill
        if spill is None:
            raise self.full(nbytes)
        try:
            self.disk.take(pages(nbytes))
        except StorageFullError as error:
            raise self.full(nbytes, error) from error
        name = spill.new_name()
        try:
            spill.create(name, nbytes)
        except StorageFullError as error:
            self.disk.give(pages(nbytes))
            raise self.full(nbytes, error) from error
        except BaseException:
            self.disk.give(pages(nbytes))
            raise

        def undo() -> None:
            spill.remove(name, partial=True)
            self.disk.give(pages(nbytes))

        return OnDisk(name, spill.partial(name), nbytes, undo, durable=False)

    def write_spill(self, views: Sequence[memoryview], nbytes: int) -> str:
        """Write a spilled object; return the name of its file."""
        place = self.open_file(nbytes, durable=False)
        try:
            write_file(place.path, views)
            self.finish_spill(place)
        except BaseException as error:
            place.undo()
            if isinstance(error, OSError) and error.errno is not None and self.spill is not None:
                raise self.spill.full(nbytes, error) from error
            raise
        return place.name

    def finish_spill(self, place: OnDisk) -> None:
        """Give a filled file its name."""
        if self.spill is not None:
            self.spill.finish(place.name, durable=False)

    # Objects, whose lock the caller holds.

    def replace(self, entry: Entry) -> None:
        """Put an object in the index, whose bytes are in place, and remove those it replaces."""
        old = self.index.put(entry)
        if old is not None:
            self._remove_bytes(old, keep_memory=entry.in_memory)
            if old.row is not None and entry.row is None and self.durable is not None:
                self.durable.remove([old.row])

    def remove(self, entry: Entry, reason: MissingReason | None = None) -> None:
        """Remove an object, for good."""
        if entry.row is not None and self.durable is not None:
            self.durable.remove([entry.row])
        self.index.remove(entry, reason)
        self._remove_bytes(entry)

    def remove_all(self, entries: list[Entry], reason: MissingReason) -> None:
        """Remove objects, with one commit for all of them; the caller holds no lock."""
        rows = []
        for entry in entries:
            with self.lock(entry.name):
                if self.index.remove(entry, reason):
                    self._remove_bytes(entry)
                    if entry.row is not None:
                        rows.append(entry.row)
        if self.durable is not None:
            self.durable.remove(rows)

    def _remove_bytes(self, entry: Entry, *, keep_memory: bool = False) -> None:
        if entry.in_memory and not keep_memory:
            self.memory.evict(entry.name)
        if entry.file and self.spill is not None:
            self.spill.remove(entry.file)
            self.disk.give(pages(entry.nbytes))


def _size(name: str, value: Size) -> int | None:
    if value is None:
        return None
    try:
        size = int(readable_to_bytes(value))
    except (TypeError, ValueError) as error:
        raise ConnectorConfigError(
            f"{name}={value!r} is not a size like 1000000 or '4 GB'."
        ) from error
    if size < 0:
        raise ConnectorConfigError(f"{name}={value!r} is below zero.")
    return size


def _free_space(directory: str | None) -> int:
    if directory is None:
        return 0
    path = Path(directory).absolute()
    while not path.is_dir():
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
