"""The storage of an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from proxystore_core.exceptions import (
    MissingReason,
)
from proxystore_endpoint.storage.areas import Areas, Settings
from proxystore_endpoint.storage.clock import Clock
from proxystore_endpoint.storage.index import Name
from proxystore_endpoint.storage.names import check_key, memory_name
from proxystore_endpoint.storage.reading import Reading
from proxystore_endpoint.storage.types import (
    Durability,
    StorageUsage,
)
from proxystore_endpoint.storage.writing import Writing

if TYPE_CHECKING:
    from proxystore_endpoint.storage.areas import Size

_SWEEP = 30.0  # seconds between two looks for what dead clients left
_TICK = 1.0  # most seconds by which an object may expire late


class Storage(Writing, Reading):
    """The objects of one endpoint, and copies of others'.

    Its memory is a `SharedMemoryConnector` that it owns; local clients attach to it
    by `memory_config()` and write and map objects themselves.

    Args:
        endpoint_id: UUID of the endpoint.
        memory_dir: Directory of the shared memory; by default a new one where such
            directories are.
        memory_quota: Bytes of memory for objects, copies and what is kept for reuse, as
            a number or as text like `'4 GB'`; by default half of what there is.
        copies_quota: Bytes of memory that copies of other endpoints' objects may take,
            within `memory_quota`; by default half of that. They go first when room is needed.
        object_limit: Most bytes of one object; `None` for no limit but the quotas.
        in_flight_limit: Most bytes that may be reserved and not yet published; by
            default the memory quota, 256 MB at least. A single object may be larger.
        disk_quota: Bytes on disk, spilled and durable; by default half of the free space.
        spill_dir: Directory for what does not fit into memory; `None` for no spilling.
        persist_dir: Directory for durable objects; `None` for none.
        durability: What a put gets that names none; by default `durable` where there is
            a `persist_dir`, else `memory`.
        clock: The time.

    Raises:
        ConnectorConfigError: A limit or a directory is unusable.
        EndpointStorageError: A directory cannot be used, or another process uses it.
        DatabaseCorruptError: The database of durable objects is damaged beyond help.
    """

    def __init__(
        self,
        endpoint_id: str,
        *,
        memory_dir: str | None = None,
        memory_quota: Size = None,
        copies_quota: Size = None,
        object_limit: Size = None,
        in_flight_limit: Size = None,
        disk_quota: Size = None,
        spill_dir: str | None = None,
        persist_dir: str | None = None,
        durability: Durability | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.endpoint_id = endpoint_id
        clock = clock or Clock()
        settings = Settings(
            memory_dir,
            memory_quota,
            copies_quota,
            object_limit,
            in_flight_limit,
            disk_quota,
            spill_dir,
            persist_dir,
            durability,
        )
        super().__init__(Areas(endpoint_id, settings, clock), clock)
        self._warm = 0
        self._swept = self._clock.now()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def object_limit(self) -> int | None:
        """Most bytes of one object."""
        return self._areas.object_limit

    @property
    def default_durability(self) -> Durability:
        """What a put gets that names none."""
        return self._areas.default_durability

    def memory_config(self) -> dict[str, Any]:
        """Return what `SharedMemoryConnector.from_config` attaches to the memory with."""
        return self._memory.config()

    def busy(self, key: str) -> bool:
        """Tell whether another thread changes an object, so that one who does too has to wait."""
        return self._areas.lock.busy(Name("", key))

    def problems(self) -> list[str]:
        """Say what was found to be damaged or lost when the durable objects were opened."""
        return [] if self._areas.durable is None else list(self._areas.durable.problems)

    # Removing.

    def evict(self, key: str, *, origin: str = "") -> bool:
        """Remove an object, for good before this returns; tell whether there was one.

        Raises:
            EndpointStorageError: The disk failed; a durable object may be there still.
        """
        return self._remove(Name(origin, check_key(key)), MissingReason.EVICTED)

    def expire(self, key: str) -> bool:
        """Remove an object as `evict` does, and remember it as expired."""
        return self._remove(Name("", check_key(key)), MissingReason.EXPIRED)

    def _remove(self, name: Name, reason: MissingReason) -> bool:
        with self._areas.lock(name):
            entry = self._index.peek(name)
            if entry is None:
                return False
            expired = entry.expires is not None and entry.expires <= self._clock.now()
            self._areas.remove(entry, MissingReason.EXPIRED if expired else reason)
            return not expired

    # Counting, and the time.

    def usage(self) -> StorageUsage:
        """Count what there is."""
        index, areas = self._index, self._areas
        return StorageUsage(
            objects=index.objects,
            nbytes=index.nbytes,
            copies=index.copies,
            copies_nbytes=index.copies_nbytes,
            memory=index.memory,
            memory_limit=self._memory.limit,
            warm=self._warm,
            disk=areas.disk.used,
            disk_limit=areas.disk.limit,
            durable=0 if areas.durable is None else areas.durable.nbytes,
            in_flight=areas.in_flight.used,
            in_flight_limit=areas.in_flight.limit,
            damaged=index.damaged,
        )

    def tick(self, now: float | None = None) -> float:
        """Remove what expired and what dead clients left; call it in a thread.

        Args:
            now: The time; by default the clock's.

        Returns:
            Seconds until the next call is due.
        """
        now = self._clock.now() if now is None else now
        self._areas.remove_all(self._index.due(now), MissingReason.EXPIRED)
        if now - self._swept >= _SWEEP:
            self._swept = now
            self.sweep()
        due = self._index.next_due()
        return _TICK if due is None else min(_TICK, max(0.0, due - now))

    def sweep(self) -> int:
        """Remove what clients wrote and never told of, if it was there at the last sweep too."""
        known = {
            memory_name(entry.name.origin or self.endpoint_id, entry.name.key)
            for entry in self._index.all()
            if entry.in_memory
        }
        removed = self._memory.sweep(known)
        self._warm = self._memory.warm()
        if self._areas.durable is not None:
            self._areas.durable.shrink()
        return removed

    def close(self) -> None:
        """Let go: what is durable stays, all else goes."""
        self._areas.close()
