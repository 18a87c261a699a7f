"""How objects come into a storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from proxystore_core.exceptions import ObjectTooLargeError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.exceptions import ObjectLostError
from proxystore_endpoint.storage.areas import Areas
from proxystore_endpoint.storage.clock import Clock, Deadline
from proxystore_endpoint.storage.files import digest_of
from proxystore_endpoint.storage.index import Entry, Name
from proxystore_endpoint.storage.names import check_key
from proxystore_endpoint.storage.rooms import InMemory, OnDisk, Room
from proxystore_endpoint.storage.rows import Row
from proxystore_endpoint.storage.types import Durability, Stored
from proxystore_endpoint.storage.views import byte_views

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike


class Writing:
    """The writing side of a `Storage`.

    Args:
        areas: Where the objects go.
        clock: The time.
    """

    def __init__(self, areas: Areas, clock: Clock) -> None:
        self._areas = areas
        self._index = areas.index
        self._memory = areas.memory
        self._clock = clock

    def put(
        self,
        key: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Store the concatenation of the parts under a key, in place of what is there.

        Args:
            key: The key.
            parts: Buffers.
            ttl: Seconds until the object expires; `None` for never.
            durability: The least that is wanted; `None` for the default.

        Raises:
            ObjectTooLargeError: It is over the limit for one object.
            StorageFullError: There is no room, neither in memory nor on disk.
            DurabilityUnavailableError: It cannot be stored so here.
        """
        name = Name("", check_key(key))
        views, nbytes = byte_views(parts)
        self._check_size(nbytes)
        level = self._level(durability)
        deadline = self._deadline(ttl)
        with self._areas.lock(name):
            row, file, in_memory = None, "", False
            if level == "durable" and self._areas.durable is not None:
                row = self._areas.durable.add(
                    key, views, nbytes, deadline=deadline, replaces=self._row(name)
                )
            if level != "spill":
                in_memory = self._memory.put(name, views, nbytes)
            if row is None and not in_memory:
                file = self._areas.write_spill(views, nbytes)
            entry = self._entry(name, nbytes, deadline)
            entry.in_memory, entry.file, entry.row = in_memory, file, row
            return self._settle(entry)

    def reserve(self, key: str, nbytes: int, *, origin: str = "") -> Room:
        """Make room for an object, to be filled and then published.

        Args:
            key: Its key.
            nbytes: Its length in bytes.
            origin: UUID of the endpoint that it is a copy from; `''` for an own object.

        Raises:
            ObjectTooLargeError: It is over the limit for one object.
            StorageFullError: There is no room, neither in memory nor on disk.
        """
        name = Name(origin, check_key(key))
        self._check_size(nbytes)
        if origin:
            self._areas.trim_copies(nbytes)

        def place() -> InMemory | OnDisk:
            room = self._memory.reserve(name, nbytes)
            if room is not None:
                return InMemory(room)
            return self._areas.open_file(nbytes, durable=False)

        return self._room(name, nbytes, place)

    def reserve_file(self, key: str, nbytes: int, durability: Durability | None = None) -> Room:
        """Make room for an object in a file, for a client that found no room in memory.

        Raises:
            ObjectTooLargeError: It is over the limit for one object.
            StorageFullError: There is no room on disk.
        """
        name, durable = Name("", check_key(key)), self._level(durability) == "durable"
        self._check_size(nbytes)
        return self._room(name, nbytes, lambda: self._areas.open_file(nbytes, durable=durable))

    def _room(self, name: Name, nbytes: int, place: Callable[[], InMemory | OnDisk]) -> Room:
        in_flight = self._areas.in_flight
        in_flight.take(nbytes, whole=True)
        try:
            found = place()
        except BaseException:
            in_flight.give(nbytes)
            raise

        def publish(
            place: InMemory | OnDisk,
            *,
            ttl: float | None,
            durability: Durability | None,
            etag: str,
        ) -> Stored:
            return self._publish(name, nbytes, place, ttl, durability, etag)

        return Room(found, nbytes, publish, lambda: in_flight.give(nbytes))

    def _publish(
        self,
        name: Name,
        nbytes: int,
        place: InMemory | OnDisk,
        ttl: float | None,
        durability: Durability | None,
        etag: str,
    ) -> Stored:
        try:
            level: Durability = "memory" if name.origin else self._level(durability)
            deadline = self._deadline(ttl)
            entry = self._entry(name, nbytes, deadline, etag)
            with self._areas.lock(name):
                self._finish(entry, place, level, deadline)
                return self._settle(entry)
        except BaseException:
            place.undo()
            raise

    def _finish(
        self,
        entry: Entry,
        place: InMemory | OnDisk,
        level: Durability,
        deadline: Deadline | None,
    ) -> None:
        durable, name = self._areas.durable, entry.name
        if isinstance(place, OnDisk) and place.durable and durable is not None:
            etag = bytes.fromhex(entry.etag) if entry.etag else digest_of([place.buffer])
            place.release()
            entry.row = durable.adopt(
                name.key, place.name, entry.nbytes, etag, deadline=deadline,
                replaces=self._row(name),
            )  # fmt: skip
            return
        if level == "durable" and durable is not None:
            entry.row = durable.add(
                name.key, [place.buffer], entry.nbytes, deadline=deadline,
                replaces=self._row(name),
            )  # fmt: skip
        if isinstance(place, InMemory):
            place.room.publish()
            entry.in_memory = True
        elif entry.row is None:
            place.release()
            self._areas.finish_spill(place)
            entry.file = place.name
        else:
            place.undo()

    def commit(
        self,
        key: str,
        nbytes: int,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Take over an object that a local client wrote into the memory by itself.

        Raises:
            ObjectLostError: It is not there.
            ObjectTooLargeError: It is over the limit for one object; it is removed.
            StorageFullError: The disk has no room for a durable object; it is removed.
            DurabilityUnavailableError: It cannot be stored so here; it is removed.
        """
        name = Name("", check_key(key))
        with self._areas.lock(name):
            try:
                self._check_size(nbytes)
                level, deadline = self._level(durability), self._deadline(ttl)
                entry = self._entry(name, nbytes, deadline)
                entry.in_memory = True
                if level == "durable" and self._areas.durable is not None:
                    view = self._memory.view(name)
                    if view is None:
                        raise _lost(key)
                    entry.row = self._areas.durable.add(
                        key, [view], len(view), deadline=deadline, replaces=self._row(name)
                    )
                elif not self._memory.exists(name):
                    raise _lost(key)
            except BaseException:
                self._memory.evict(name)
                if (old := self._index.peek(name)) is not None:  # it was replaced in memory
                    self._index.set_in_memory(old, in_memory=False)
                raise
            return self._settle(entry)

    def make_room(self, nbytes: int, attempt: int = 0) -> bool:
        """Free memory for a local client that found none; tell whether any was freed.

        Args:
            nbytes: Bytes that it wants.
            attempt: How often it asked before.
        """
        return self._memory.make_room(nbytes, attempt)

    def _entry(self, name: Name, nbytes: int, deadline: Deadline | None, etag: str = "") -> Entry:
        expires = None if deadline is None else deadline.now
        return Entry(name, nbytes, stored=self._clock.now(), expires=expires, etag=etag)

    def _settle(self, entry: Entry) -> Stored:
        if entry.row is not None:
            entry.etag = entry.row.etag.hex()
        self._areas.replace(entry)
        return Stored(entry.nbytes, entry.durability, entry.etag)

    def _row(self, name: Name) -> Row | None:
        old = self._index.peek(name)
        return None if old is None else old.row

    def _level(self, durability: Durability | None) -> Durability:
        if durability is None:
            return self._areas.default_durability
        if durability not in ("memory", "spill", "durable"):
            raise ValueError(f"durability is memory, spill or durable, not {durability!r}.")
        self._areas.check_durability(durability)
        return durability

    def _deadline(self, ttl: float | None) -> Deadline | None:
        if ttl is None:
            return None
        if not ttl > 0:
            raise ValueError(f"A ttl is a number of seconds above 0, not {ttl!r}.")
        return Deadline.after(ttl, self._clock)

    def _check_size(self, nbytes: int) -> None:
        if nbytes < 0:
            raise ValueError(f"An object has 0 bytes or more, not {nbytes}.")
        limit = self._areas.object_limit
        if limit is not None and nbytes > limit:
            raise ObjectTooLargeError(
                f"An object of {bytes_to_readable(nbytes)} is over this endpoint's limit of "
                f"{bytes_to_readable(limit)} for one object (max_object_size).",
                nbytes=nbytes,
                limit=limit,
            )


def _lost(key: str) -> ObjectLostError:
    return ObjectLostError(f"The object {key!r} is not in memory: put it again.", key=key)
