"""What storage hands out, and what peers and servers may ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from proxystore_core.exceptions import MissingReason

Durability = Literal["memory", "spill", "durable"]
"""Where an object lies: in memory, on disk for as long as the endpoint runs, or on disk for good.

What is `durable` was written and synced before the put was acknowledged, and is
there again after a crash or a loss of power.
"""


class Stored(NamedTuple):
    """The acknowledgement of a put.

    Attributes:
        nbytes: Length of the object in bytes.
        durability: Where it lies now.
        etag: SHA-256 of its bytes in hex, or `''` where it was not computed.
    """

    nbytes: int
    durability: Durability
    etag: str = ""


class ObjectStat(NamedTuple):
    """What is known of an object without reading it.

    Attributes:
        key: Its key.
        nbytes: Its length in bytes.
        durability: Where it lies.
        etag: SHA-256 of its bytes in hex, or `''` where it was not computed yet.
        expires_in: Seconds until it expires, or `None` for never.
        age: Seconds since it was stored here.
        origin: Endpoint that it is a copy from; `''` for an object of this endpoint.
        version: Differs once the object was replaced; says nothing else.
    """

    key: str
    nbytes: int
    durability: Durability
    etag: str = ""
    expires_in: float | None = None
    age: float = 0.0
    origin: str = ""
    version: str = ""


class StoredObject:
    """An object that was opened to be read: its bytes stay whole while this one lives.

    Attributes:
        view: The bytes, read-only, mapped and not read where they are many.
        stat: What is known of it.
        in_memory: Whether it was found in the shared memory, where clients find it too.
        path: The file that it lies in, if it does in one of its own.
    """

    __slots__ = ("in_memory", "path", "stat", "view")

    def __init__(
        self, view: memoryview, stat: ObjectStat, *, in_memory: bool = False, path: str = ""
    ) -> None:
        self.view = view
        self.stat = stat
        self.in_memory = in_memory
        self.path = path

    @property
    def nbytes(self) -> int:
        """Length of the object in bytes."""
        return self.stat.nbytes

    @property
    def etag(self) -> str:
        """SHA-256 of the bytes in hex, or `''` where it was not computed yet."""
        return self.stat.etag

    @property
    def expires_in(self) -> float | None:
        """Seconds until it expires, counted when it was opened; `None` for never."""
        return self.stat.expires_in


@runtime_checkable
class Reservation(Protocol):
    """Room for one object, to be filled in place and then published, or abandoned.

    Both may be called from another thread than the one that fills; the first of
    the two counts. One that is let go of without either is abandoned.
    """

    @property
    def buffer(self) -> memoryview:
        """The writable memory that becomes the object, exactly as long as that.

        Nothing may be written to it, or to a view of it, after `publish`.
        """
        ...

    def publish(
        self, *, ttl: float | None = None, durability: Durability | None = None, etag: str = ""
    ) -> Stored:
        """Make what was filled in the object of the key, in place of what is there.

        Args:
            ttl: Seconds until it expires; `None` for never.
            durability: The least that the caller wants; `None` for the storage's default.
                With `durable` this call waits for the disk: keep it off event loops.
            etag: SHA-256 of the bytes in hex, if the caller has it already.

        Raises:
            StorageFullError: The disk has no room for a durable object.
            DurabilityUnavailableError: `durable` was asked of an endpoint without a disk store.
        """
        ...

    def abandon(self) -> None:
        """Give the room back; nothing was ever there. Does nothing after `publish`."""
        ...


class Provider(Protocol):
    """What the serving side of a peer connection asks for: the objects of this endpoint.

    All methods may be called from any thread. They take microseconds, apart from
    `publish` and `evict` of durable objects, which wait for the disk.
    All raise `InvalidKeyError` for what is no key.
    """

    def open(self, key: str) -> StoredObject | None:
        """Open an object to be read; `None` where there is none.

        Raises:
            CorruptObjectError: The stored bytes are damaged.
        """
        ...

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        ...

    def stat(self, key: str) -> ObjectStat | None:
        """Return what is known of an object; `None` where there is none."""
        ...

    def missing_reason(self, key: str) -> MissingReason:
        """Say why there is no object, as far as it is known."""
        ...

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of this endpoint's own objects."""
        ...

    def evict(self, key: str) -> bool:
        """Remove an object; tell whether there was one."""
        ...

    def reserve(self, key: str, nbytes: int) -> Reservation:
        """Make room for an object of `nbytes` bytes.

        Raises:
            ObjectTooLargeError: It is over the limit for one object.
            StorageFullError: There is no room, neither in memory nor on disk.
        """
        ...


class StorageUsage(NamedTuple):
    """What the storage holds, in bytes and numbers of objects.

    Attributes:
        objects: Objects of this endpoint.
        nbytes: Their bytes, wherever they lie.
        copies: Copies of other endpoints' objects.
        copies_nbytes: Their bytes.
        memory: Bytes of memory that objects, copies and transfers take now.
        memory_limit: Bytes of memory that they may take.
        warm: Bytes of memory kept for reuse, within the limit.
        disk: Bytes on disk, spilled and durable.
        disk_limit: Bytes that may be on disk.
        durable: Bytes of it that are durable.
        in_flight: Bytes reserved and not yet published.
        in_flight_limit: Bytes that may be so.
        damaged: Objects whose bytes on disk are damaged, found so far.
    """

    objects: int
    nbytes: int
    copies: int
    copies_nbytes: int
    memory: int
    memory_limit: int
    warm: int
    disk: int
    disk_limit: int
    durable: int
    in_flight: int
    in_flight_limit: int
    damaged: int
