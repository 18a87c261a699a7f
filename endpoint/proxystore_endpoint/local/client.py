"""A client of an endpoint on the same node: it shares the endpoint's memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from proxystore_core.connectors.protocols import Usage
from proxystore_core.connectors.shared_memory import SharedMemoryKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    MissingReason,
    ObjectTooLargeError,
    StorageFullError,
)
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.exceptions import (
    EndpointError,
    LocalProtocolError,
    ObjectLostError,
)
from proxystore_endpoint.local import messages as m
from proxystore_endpoint.local.channel import Channel, unreachable
from proxystore_endpoint.storage.names import check_key, memory_name, new_key
from proxystore_endpoint.storage.types import Durability, Stored
from proxystore_endpoint.storage.views import byte_views, write_views

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

TIMEOUT_S = 15.0
"""Silence after which a daemon counts as gone."""
PEER_TIMEOUT_S = 60.0
"""How long a daemon may take with a peer, where the caller does not say."""
_TRIES = 4
_SLOW_DISK = 10e6  # bytes a second


class LocalClient:
    """A client of one endpoint. Thread-safe; a forked child may use it too.

    Large objects go through shared memory: putting one costs a copy, getting one a mapping.

    Args:
        path: Path of the endpoint's control socket.
        timeout: Seconds of silence after which the daemon counts as gone.

    Attributes:
        address: Path of the socket.
        endpoint_id: UUID of the endpoint, as text.

    Raises:
        EndpointUnreachableError: Nobody listens, or nobody answers.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = TIMEOUT_S) -> None:
        self.address = os.fspath(path)
        self._channel = Channel(self.address, timeout)
        self.endpoint_id = self._channel.welcome.endpoint_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what was got stays valid."""
        self._channel.close()

    @property
    def welcome(self) -> m.Welcome:
        """What the endpoint said of itself."""
        return self._channel.welcome

    # Putting.

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
            ttl: Seconds until the object expires.
            durability: The least that is wanted; `None` for the endpoint's default.

        Raises:
            EndpointUnreachableError: The daemon is not there.
            ObjectTooLargeError: It is over the endpoint's limit for one object.
            StorageFullError: There is no room, neither in memory nor on disk.
            DurabilityUnavailableError: It cannot be stored so there.
        """
        views, nbytes = byte_views(parts)
        key, limit = check_key(key), self._channel.welcome.object_limit
        if limit is not None and nbytes > limit:
            raise ObjectTooLargeError(
                f"An object of {bytes_to_readable(nbytes)} is over the endpoint's limit of "
                f"{bytes_to_readable(limit)} for one object (max_object_size).",
                nbytes=nbytes,
                limit=limit,
            )
        for _ in range(_TRIES - 1):
            try:
                return self._put(key, views, nbytes, ttl, durability)
            except (ConnectorClosedError, ObjectLostError):  # the daemon was restarted
                self._renew()
        return self._put(key, views, nbytes, ttl, durability)

    def _put(
        self,
        key: str,
        views: list[memoryview],
        nbytes: int,
        ttl: float | None,
        durability: Durability | None,
    ) -> Stored:
        if durability == "spill" or not self._write(key, views, nbytes):
            return self._put_file(key, views, nbytes, ttl, durability)
        commit = m.Commit(key, nbytes, ttl, durability)
        return _stored(self._channel.ask(commit, m.Committed, patience=_to_disk(nbytes)))

    def _write(self, key: str, views: list[memoryview], nbytes: int) -> bool:
        """Write an object into the memory; tell whether there was room."""
        name = SharedMemoryKey(memory_name(self.endpoint_id, key))
        for attempt in range(2 * _TRIES):
            try:
                self._channel.memory.set_parts(name, views)
                return True
            except StorageFullError:
                if not self._channel.ask(m.MakeRoom(nbytes, attempt), m.Answer).yes:
                    break
        return False

    def _put_file(
        self,
        key: str,
        views: list[memoryview],
        nbytes: int,
        ttl: float | None,
        durability: Durability | None,
    ) -> Stored:
        """Write an object into a file that the daemon set aside for it."""
        try:
            with self._channel.connection(fresh=True) as connection:
                room = connection.ask(m.Reserve(key, nbytes, durability), m.Granted)
                try:
                    fd = os.open(room.path, os.O_WRONLY | os.O_CLOEXEC)
                    try:
                        write_views(fd, views)
                    finally:
                        os.close(fd)
                except BaseException:
                    connection.ask(m.Abandon(room.room), m.Answer)
                    raise
                commit = m.Commit(key, nbytes, ttl, durability, room.room)
                return _stored(connection.ask(commit, m.Committed, patience=_to_disk(nbytes)))
        except OSError as error:
            if isinstance(error, (EndpointError, StorageFullError)):
                raise
            raise unreachable(self._channel.path, self._channel.timeout, error) from error

    def push(
        self,
        key: str,
        endpoint_id: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object at the endpoint that its key belongs to, through this one.

        Raises:
            PeerError: That endpoint cannot be reached, refuses or fails; and as `put`.
        """
        if endpoint_id == self.endpoint_id:
            return self.put(key, parts, ttl=ttl, durability=durability)
        source, wait = new_key(), PEER_TIMEOUT_S if timeout is None else timeout
        self.put(source, parts, ttl=wait + 600.0, durability="memory")
        request = m.Push(check_key(key), endpoint_id, source, ttl, durability, wait)
        return _stored(self._channel.ask(request, m.Committed, patience=wait))

    # Getting.

    def get(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> BytesLike | None:
        """Return the bytes of an object, read-only, or `None` where there are none.

        Args:
            key: Its key.
            endpoint_id: Endpoint that it belongs to.
            timeout: Seconds to wait for a peer.

        Raises:
            EndpointUnreachableError: The daemon is not there.
            PeerError: The endpoint that has the object cannot be reached, refuses or fails.
            CorruptObjectError: The stored bytes are damaged.
        """
        name = SharedMemoryKey(memory_name(endpoint_id, check_key(key)))
        if endpoint_id == self.endpoint_id:
            found = self._look(name, writable=False)
            if found is not None:
                return found
        return self._fetch(name, key, endpoint_id, timeout, writable=False)

    def get_view(
        self, key: str, endpoint_id: str, *, timeout: float | None = None
    ) -> memoryview | None:
        """Return the bytes of an object as writable, private memory; raises as `get`."""
        name = SharedMemoryKey(memory_name(endpoint_id, check_key(key)))
        found = self._look(name, writable=True) if endpoint_id == self.endpoint_id else None
        if found is None:
            found = self._fetch(name, key, endpoint_id, timeout, writable=True)
        return None if found is None else memoryview(found)

    def _look(self, name: SharedMemoryKey, *, writable: bool) -> BytesLike | None:
        """Return what lies in the memory; nothing does where the daemon is gone."""
        memory = self._channel.memory
        return memory.get_view(name) if writable else memory.get(name)

    def _fetch(
        self,
        name: SharedMemoryKey,
        key: str,
        endpoint_id: str,
        timeout: float | None,
        *,
        writable: bool,
    ) -> BytesLike | None:
        wait = PEER_TIMEOUT_S if timeout is None else timeout
        for _ in range(_TRIES):
            reply = self._channel.exchange(m.Fetch(key, endpoint_id, wait), patience=wait)
            if isinstance(reply, m.Missing):
                return None
            if not isinstance(reply, m.Found):
                raise LocalProtocolError(f"The endpoint answered {type(reply).__name__} to Fetch.")
            if reply.data is not None:
                return memoryview(bytearray(reply.data)) if writable else reply.data
            found = (
                _map(reply.path, reply.nbytes, writable=writable)
                if reply.path
                else self._look(name, writable=writable)
            )
            if found is not None:
                return found
            # It was evicted, or dropped for others, between the reply and the look: ask again.
        return None

    def exists(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Tell whether there is an object; raises as `get`."""
        wait = PEER_TIMEOUT_S if timeout is None else timeout
        request = m.Exists(check_key(key), endpoint_id, wait)
        return self._channel.ask(request, m.Answer, patience=wait).yes

    def missing_reason(self, key: str, endpoint_id: str) -> MissingReason:
        """Say why there is no object, as far as the endpoint here knows; raises as `get`."""
        reply = self._channel.exchange(m.Stat(check_key(key), endpoint_id))
        if not isinstance(reply, m.Missing):
            return MissingReason.UNKNOWN
        return MissingReason(reply.reason)

    # Removing, listing, counting.

    def evict(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Remove an object, for good; tell whether there was one. Raises as `get`."""
        wait = PEER_TIMEOUT_S if timeout is None else timeout
        request = m.Evict(check_key(key), endpoint_id, wait)
        return self._channel.ask(request, m.Answer, patience=wait).yes

    def expire(self, key: str) -> bool:
        """Remove an object of this endpoint, and remember it as expired; raises as `get`."""
        return self._channel.ask(m.Expire(check_key(key)), m.Answer).yes

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of this endpoint's own objects; raises as `get`."""
        after, more = "", True
        while more:
            reply = self._channel.ask(m.Keys(after), m.KeyList)
            yield from reply.keys
            more = reply.more and bool(reply.keys)
            after = reply.keys[-1] if reply.keys else ""

    def usage(self) -> Usage:
        """Count this endpoint's own objects; `reserved` is memory kept for reuse."""
        told = self._channel.ask(m.Count(), m.Counted)
        return Usage(told.objects, told.nbytes, told.reserved, told.limit)

    def status(self) -> dict[str, Any]:
        """Return all there is to know of the endpoint; raises as `get`."""
        return self._channel.ask(m.Status(), m.Report).status

    def _renew(self) -> None:
        with self._channel.connection(fresh=True):
            pass


def _to_disk(nbytes: int) -> float:
    """Return the seconds that a daemon may take to write so many bytes to a slow disk."""
    return nbytes / _SLOW_DISK


def _stored(done: m.Committed) -> Stored:
    durability: Any = done.durability
    return Stored(done.nbytes, durability, done.etag)


def _map(path: str, nbytes: int, *, writable: bool) -> memoryview | None:
    """Map a file; `None` where it is gone."""
    if nbytes == 0:
        return memoryview(bytearray() if writable else b"")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size < nbytes:
            return None
        access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
        return memoryview(mmap.mmap(fd, nbytes, access=access))
    finally:
        os.close(fd)
