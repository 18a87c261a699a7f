"""An endpoint: what it stores itself, and what its peers store, behind one set of calls.

Lives on one event loop. Objects of peers are fetched into this endpoint's own memory, once,
whoever waits for them; the copy is shared and asked about again before it is handed out later.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec

from proxystore_core import __version__
from proxystore_core.exceptions import InvalidKeyError, MissingReason
from proxystore_endpoint.exceptions import EndpointTimeoutError, PeerUnreachableError
from proxystore_endpoint.peers.types import Fetched, PeerStatus, RemoteStat
from proxystore_endpoint.storage import Durability, Storage, Stored, StoredObject, check_key
from proxystore_endpoint.storage.types import ObjectStat, Reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxystore_endpoint.peers.peers import Peers

_T = TypeVar("_T")
_REMEMBERED = 50_000
_TRANSFER_S = 3600.0  # a transfer that does not get on fails long before


class Counters(msgspec.Struct):
    """What an endpoint did since it was started.

    Attributes:
        gets: Objects that were asked for.
        hits: Those that were here.
        copies: Those of peers of which a copy was here already.
        shared: Those that waited for a transfer which others had begun.
        fetched: Objects that came from peers.
        fetched_bytes: Their bytes.
        pushed: Objects that were put at peers.
        pushed_bytes: Their bytes.
        puts: Objects that were put through the REST API.
        rest_bytes_in: Bytes of objects that came through the REST API.
        rest_bytes_out: Bytes of objects that went through it.
        evicts: Objects that were removed.
        failed: Requests to peers that failed.
    """

    gets: int = 0
    hits: int = 0
    copies: int = 0
    shared: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    pushed: int = 0
    pushed_bytes: int = 0
    puts: int = 0
    rest_bytes_in: int = 0
    rest_bytes_out: int = 0
    evicts: int = 0
    failed: int = 0


class _Transfer:
    """A transfer, and how many wait for it."""

    def __init__(self, task: asyncio.Task[StoredObject | None]) -> None:
        self.task = task
        self.waiting = 0


class Endpoint:
    """An endpoint.

    Args:
        uuid: Its id.
        name: Its name, for people.
        storage: What it stores.
        peers: Its peers; `None` for an endpoint that has none.
        trust_copies: Whether a copy of a peer's object is handed out without asking the peer
            whether the object is still there.
    """

    def __init__(
        self,
        uuid: UUID,
        name: str,
        storage: Storage,
        peers: Peers | None = None,
        *,
        trust_copies: bool = False,
    ) -> None:
        self.uuid = uuid
        self.name = name
        self.peers = peers
        self.counters = Counters()
        self.started = time.time()
        self.last_used = time.monotonic()
        self.using = 0
        self._storage = storage
        self._trust_copies = trust_copies
        self._transfers: dict[tuple[str, str], _Transfer] = {}
        self._reasons: OrderedDict[tuple[str, str], MissingReason] = OrderedDict()
        self._versions: OrderedDict[tuple[str, str], str] = OrderedDict()

    @property
    def endpoint_id(self) -> str:
        """Its id, as text."""
        return str(self.uuid)

    @property
    def storage(self) -> Storage:
        """What it stores."""
        return self._storage

    async def get(
        self, key: str, endpoint_id: str | None = None, *, timeout: float | None = None
    ) -> StoredObject | None:
        """Return an object, brought here first if it is a peer's; `None` where there is none.

        Args:
            key: Key of the object.
            endpoint_id: Endpoint that it belongs to; by default this one.
            timeout: Seconds to wait for a peer.

        Raises:
            InvalidKeyError: The key or the id is none.
            EndpointTimeoutError: It took longer.
            PeerError: The peer cannot be reached, is lost, refuses or fails.
            StorageFullError: There is no room here for the object.
        """
        check_key(key)
        self.counters.gets += 1
        with self._in_use():
            peer = self._peer(endpoint_id)
            if peer is None:
                found = self._storage.open(key)
                self.counters.hits += found is not None
                return found
            async with _deadline(timeout):
                copy = await self._copy(peer, key, timeout)
                return copy if copy is not None else await self._fetch(peer, key)

    async def _copy(self, peer: UUID, key: str, timeout: float | None) -> StoredObject | None:
        """Return the copy that is here, unless it is out of date."""
        found = self._storage.open(key, origin=str(peer))
        if found is None:
            return None
        if not self._trust_copies:
            told = await self._ask(self._connected(peer).stat(peer, key, timeout=timeout))
            version = self._versions.get((str(peer), key), "")
            if isinstance(told, MissingReason) or not _same(found, version, told):
                self._storage.evict(key, origin=str(peer))
                return None
        self.counters.copies += 1
        return found

    async def _fetch(self, peer: UUID, key: str) -> StoredObject | None:
        """Wait for the one transfer of an object, which this call begins if it is the first."""
        which = (str(peer), key)
        transfer = self._transfers.get(which)
        if transfer is None:
            task = asyncio.create_task(self._transfer(peer, key), name=f"fetch {key}")
            transfer = self._transfers[which] = _Transfer(task)
            task.add_done_callback(lambda _task: self._transfers.pop(which, None))
        else:
            self.counters.shared += 1
        transfer.waiting += 1
        try:
            return await asyncio.shield(transfer.task)
        finally:
            transfer.waiting -= 1
            if not transfer.waiting and not transfer.task.done():
                transfer.task.cancel()
                self._transfers.pop(which, None)

    async def _transfer(self, peer: UUID, key: str) -> StoredObject | None:
        origin = str(peer)

        def sink(nbytes: int) -> Reservation:
            return self._storage.reserve(key, nbytes, origin=origin)

        got = await self._ask(self._connected(peer).get(peer, key, sink, timeout=_TRANSFER_S))
        if not isinstance(got, Fetched):
            _keep(self._reasons, (origin, key), got)
            return None
        got.reservation.publish(ttl=got.expires_in, etag=got.etag)
        _keep(self._versions, (origin, key), got.version)
        self.counters.fetched += 1
        self.counters.fetched_bytes += got.nbytes
        return self._storage.open(key, origin=origin)

    async def put(
        self,
        key: str,
        view: memoryview,
        endpoint_id: str,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object at a peer; raises as `get`.

        Args:
            key: Its key.
            view: Its bytes.
            endpoint_id: The peer.
            ttl: Seconds until it expires; `None` for never.
            durability: Where it has to lie.
            timeout: Seconds to wait.
        """
        check_key(key)
        peer = self._peer(endpoint_id)
        if peer is None:
            raise InvalidKeyError("An object of this endpoint is stored here, and not sent.")
        with self._in_use():
            async with _deadline(timeout):
                stored = await self._ask(
                    self._connected(peer).put(
                        peer,
                        key,
                        view,
                        ttl=ttl,
                        durability=durability or "memory",
                        timeout=timeout,
                    )
                )
        self._storage.evict(key, origin=str(peer))  # a copy would be the one that was replaced
        self.counters.pushed += 1
        self.counters.pushed_bytes += len(view)
        return stored

    async def exists(
        self, key: str, endpoint_id: str | None = None, *, timeout: float | None = None
    ) -> bool:
        """Tell whether there is an object; raises as `get`."""
        check_key(key)
        with self._in_use():
            peer = self._peer(endpoint_id)
            if peer is None:
                return self._storage.exists(key)
            async with _deadline(timeout):
                return await self._ask(self._connected(peer).exists(peer, key, timeout=timeout))

    async def evict(
        self, key: str, endpoint_id: str | None = None, *, timeout: float | None = None
    ) -> bool:
        """Remove an object and its copy here; tell whether there was one. Raises as `get`."""
        check_key(key)
        with self._in_use():
            peer = self._peer(endpoint_id)
            self.counters.evicts += 1
            if peer is None:
                return await asyncio.to_thread(self._storage.evict, key)
            self._storage.evict(key, origin=str(peer))
            async with _deadline(timeout):
                return await self._ask(self._connected(peer).evict(peer, key, timeout=timeout))

    def missing_reason(self, key: str, endpoint_id: str | None = None) -> MissingReason:
        """Say why `get` found no object, as far as it is known."""
        peer = self._peer(endpoint_id)
        if peer is None:
            return self._storage.missing_reason(key)
        return self._reasons.get((str(peer), key), MissingReason.UNKNOWN)

    def _peer(self, endpoint_id: str | None) -> UUID | None:
        if endpoint_id is None:
            return None
        try:
            peer = UUID(endpoint_id)
        except ValueError as error:
            raise InvalidKeyError(f"{endpoint_id[:100]!r} is no UUID of an endpoint.") from error
        return None if peer == self.uuid else peer

    def _connected(self, peer: UUID) -> Peers:
        if self.peers is None:
            raise PeerUnreachableError(
                f"The object belongs to endpoint {peer}, and this one has no peers: its "
                "configuration says peering.enabled = false.",
                peer=peer,
            )
        return self.peers

    async def _ask(self, request: Awaitable[_T]) -> _T:
        try:
            return await request
        except Exception:
            self.counters.failed += 1
            raise

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self.using += 1
        try:
            yield
        finally:
            self.using -= 1
            self.last_used = time.monotonic()

    def peer_status(self) -> list[PeerStatus]:
        """Say what is known of each peer."""
        return [] if self.peers is None else self.peers.status()

    def objects(self) -> list[ObjectStat]:
        """Say what is known of each object, newest first."""
        return self._storage.stats()

    def status(self) -> dict[str, Any]:
        """Return what there is to know about the endpoint, of JSON types."""
        return {
            "name": self.name,
            "uuid": str(self.uuid),
            "version": __version__,
            "since": self.started,
            "uptime": time.time() - self.started,
            "storage": self._storage.usage()._asdict(),
            "peers": [msgspec.to_builtins(peer) for peer in self.peer_status()],
            "transfers": len(self._transfers),
            "counters": msgspec.to_builtins(self.counters),
        }


def _same(copy: StoredObject, version: str, told: RemoteStat) -> bool:
    """Tell whether a copy is what the peer has now; if neither says, it is not."""
    if copy.nbytes != told.nbytes:
        return False
    if told.version and version == told.version:
        return True
    return bool(told.etag) and told.etag == copy.etag


def _keep(kept: OrderedDict[tuple[str, str], _T], key: tuple[str, str], value: _T) -> None:
    """Remember something, and forget the oldest when there is too much."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)


@asynccontextmanager
async def _deadline(timeout: float | None) -> AsyncIterator[None]:
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise EndpointTimeoutError(f"There was no answer within {timeout:g} s.") from error
