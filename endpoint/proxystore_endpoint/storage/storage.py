"""The storage of an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.storage.types import (
    Durability,
    ObjectStat,
    Reservation,
    StorageUsage,
    Stored,
    StoredObject,
)

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike


class Storage:
    """The objects of one endpoint, and copies of others'.

    Its memory is a `SharedMemoryConnector` that it owns; local clients attach to it
    by `memory_config()` and write and map objects themselves.

    Args:
        endpoint_id: UUID of the endpoint.
        memory_dir: Directory of the shared memory; by default one for this endpoint
            where such directories are.
        memory_quota: Bytes of memory for objects, copies and what is kept for reuse, as
            a number or as text like `'4 GB'`; by default half of what there is.
        copies_quota: Bytes of memory that copies of other endpoints' objects may take,
            within `memory_quota`; by default half of that. They go first when room is needed.
        object_limit: Most bytes of one object; `None` for no limit but the quotas.
        in_flight_limit: Most bytes that may be reserved and not yet published; by
            default the memory quota.
        disk_quota: Bytes on disk, spilled and durable; by default half of the free space.
        spill_dir: Directory for what does not fit into memory; `None` for no spilling.
        persist_dir: Directory for durable objects; `None` for none.
        durability: What a put gets that names none; by default `durable` where there is
            a `persist_dir`, else `memory`.
        clock: Seconds that never jump.
        wall: Seconds since the epoch, for expiry across restarts.

    Raises:
        ConnectorConfigError: A limit or a directory is unusable.
        StorageDamagedError: The database of durable objects cannot be used at all.
    """

    def __init__(
        self,
        endpoint_id: str,
        *,
        memory_dir: str | None = None,
        memory_quota: int | str | None = None,
        copies_quota: int | str | None = None,
        object_limit: int | str | None = None,
        in_flight_limit: int | str | None = None,
        disk_quota: int | str | None = None,
        spill_dir: str | None = None,
        persist_dir: str | None = None,
        durability: Durability | None = None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        raise RuntimeError("This is the interface only, so far.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def memory_config(self) -> dict[str, Any]:
        """Return what `SharedMemoryConnector.from_config` attaches to the memory with."""
        ...

    def put(
        self,
        key: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Store the concatenation of the parts under a key, in place of what is there."""
        ...

    def reserve(self, key: str, nbytes: int, *, origin: str = "") -> Reservation:
        """Make room for an object.

        Args:
            key: Its key.
            nbytes: Its length in bytes.
            origin: UUID of the endpoint that it is a copy from; `''` for an own object.

        Raises:
            ObjectTooLargeError: It is over the limit for one object.
            StorageFullError: There is no room, neither in memory nor on disk.
        """
        ...

    def commit(
        self,
        key: str,
        nbytes: int,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Take over an object that a local client wrote into the memory by itself."""
        ...

    def make_room(self, nbytes: int) -> bool:
        """Free memory for a local client that found none; tell whether there is room now."""
        ...

    def open(self, key: str, *, origin: str = "") -> StoredObject | None:
        """Open an object to be read; `None` where there is none."""
        ...

    def digest(self, key: str, *, origin: str = "") -> str | None:
        """Return the SHA-256 of an object in hex, computed now if need be."""
        ...

    def exists(self, key: str, *, origin: str = "") -> bool:
        """Tell whether there is an object."""
        ...

    def stat(self, key: str, *, origin: str = "") -> ObjectStat | None:
        """Return what is known of an object; `None` where there is none."""
        ...

    def missing_reason(self, key: str) -> MissingReason:
        """Say why there is no object of this endpoint under a key."""
        ...

    def evict(self, key: str, *, origin: str = "") -> bool:
        """Remove an object, for good before this returns; tell whether there was one."""
        ...

    def expire(self, key: str) -> bool:
        """Remove an object as `evict` does, and remember it as expired."""
        ...

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of this endpoint's own objects."""
        ...

    def stats(self) -> list[ObjectStat]:
        """Return what is known of all objects, copies of others' too, newest first."""
        ...

    def usage(self) -> StorageUsage:
        """Count what there is."""
        ...

    def tick(self, now: float | None = None) -> float | None:
        """Remove what expired and what dead clients left.

        Returns:
            Seconds until the next call is due.
        """
        ...

    def close(self) -> None:
        """Let go: what is durable stays, all else goes."""
        ...
