"""How objects are read from a storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from proxystore_core.exceptions import CorruptObjectError, MissingReason
from proxystore_endpoint.storage.areas import Areas
from proxystore_endpoint.storage.clock import Clock
from proxystore_endpoint.storage.index import Entry, Name
from proxystore_endpoint.storage.names import check_key
from proxystore_endpoint.storage.types import ObjectStat, StoredObject


class Reading:
    """The reading side of a `Storage`.

    Args:
        areas: Where the objects are.
        clock: The time.
    """

    def __init__(self, areas: Areas, clock: Clock) -> None:
        self._areas = areas
        self._index = areas.index
        self._memory = areas.memory
        self._clock = clock

    def open(self, key: str, *, origin: str = "") -> StoredObject | None:
        """Open an object to be read; `None` where there is none.

        The first time in a run, a large durable object is read and checked; everything
        else takes microseconds.

        Raises:
            CorruptObjectError: The stored bytes are damaged.
        """
        found = self._find(Name(origin, check_key(key)))
        return None if found is None else found[1]

    def _find(self, name: Name) -> tuple[Entry, StoredObject] | None:
        while (entry := self._index.get(name, self._clock.now())) is not None:
            try:
                found = self._bytes_of(entry)
            except CorruptObjectError:
                if self._index.peek(name) is entry:
                    self._index.set_damaged(entry)
                    raise
                continue  # it was replaced or removed meanwhile
            if found is not None:
                return entry, found
            with self._areas.lock(name):
                if self._index.peek(name) is entry and not self._here(entry):
                    self._areas.remove(entry, MissingReason.UNKNOWN)
        return None

    def _bytes_of(self, entry: Entry) -> StoredObject | None:
        name, areas = entry.name, self._areas
        stat = entry.stat(self._clock.now())
        if entry.in_memory and (view := self._memory.view(name)) is not None:
            return StoredObject(view, stat._replace(nbytes=len(view)), in_memory=True)
        if entry.file and areas.spill is not None:
            view = areas.spill.view(entry.file, entry.nbytes)
            return StoredObject(view, stat, path=areas.spill.path(entry.file))
        if entry.row is not None and areas.durable is not None:
            view = areas.durable.view(entry.row)
            if entry.row.file:
                return StoredObject(view, stat, path=areas.durable.files.path(entry.row.file))
            return StoredObject(view, stat, in_memory=self._promote(entry, view))
        return None

    def _here(self, entry: Entry) -> bool:
        """Tell whether the bytes of an object are anywhere; the caller has its lock."""
        return bool(entry.file) or entry.row is not None or self._memory.exists(entry.name)

    def _promote(self, entry: Entry, view: memoryview) -> bool:
        """Bring a small durable object into memory again, if there is room as it is."""
        with self._areas.lock(entry.name):
            if self._index.peek(entry.name) is not entry:
                return False
            if not entry.in_memory or not self._memory.exists(entry.name):
                put = self._memory.put_beside(entry.name, view)
                self._index.set_in_memory(entry, in_memory=put)
            return entry.in_memory

    def digest(self, key: str, *, origin: str = "") -> str | None:
        """Return the SHA-256 of an object in hex, computed now if need be (1 GB/s).

        Raises:
            CorruptObjectError: The stored bytes are damaged.
        """
        opened = self._find(Name(origin, check_key(key)))
        if opened is None:
            return None
        entry, found = opened
        etag = found.etag or hashlib.sha256(found.view).hexdigest()
        if not entry.etag and self._index.peek(entry.name) is entry:
            entry.etag = etag
        return etag

    def exists(self, key: str, *, origin: str = "") -> bool:
        """Tell whether there is an object."""
        return self._index.get(Name(origin, check_key(key)), self._clock.now()) is not None

    def stat(self, key: str, *, origin: str = "") -> ObjectStat | None:
        """Return what is known of an object; `None` where there is none."""
        now = self._clock.now()
        entry = self._index.get(Name(origin, check_key(key)), now)
        return None if entry is None else entry.stat(now)

    def missing_reason(self, key: str) -> MissingReason:
        """Say why there is no object of this endpoint under a key."""
        return self._index.reason(check_key(key), self._clock.now())

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of this endpoint's own objects."""
        now = self._clock.now()
        for entry in self._index.all():
            if not entry.name.origin and (entry.expires is None or entry.expires > now):
                yield entry.name.key

    def stats(self) -> list[ObjectStat]:
        """Return what is known of all objects, copies of others' too, newest first."""
        now = self._clock.now()
        return [entry.stat(now) for entry in reversed(self._index.all())]
