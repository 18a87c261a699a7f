"""All peers of one endpoint."""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.peers.asking import Asking
from proxystore_endpoint.peers.links import Links
from proxystore_endpoint.peers.transfer import Transfer
from proxystore_endpoint.peers.types import (
    Fetched,
    PeerStatus,
    RemoteStat,
)
from proxystore_endpoint.storage.types import Durability, Reservation, Stored
from proxystore_endpoint.transports.lanes import Lane
from proxystore_endpoint.transports.tcp import own_addresses
from proxystore_endpoint.wire.messages import GoAwayReason

_log = logging.getLogger(__name__)

_TIDY: Final = 1.0
_FAREWELL: Final = 2.0  # seconds that lanes have to say goodbye


class Peers(Links):
    """The peers of an endpoint: connections both ways, requests to them, and answers.

    Lives on one event loop; bulk data flows in threads of its own. Nothing that a
    peer does, and no failure in here, raises anything but to the caller that waits for it.

    Args:
        identity: Who we are.
        grants: Who may do what here, and where peers are that we have tickets of.
        provider: The objects that are served.
        directory: Where further peers are.
        relay: Client of the relay; it may be set later, before `start`. It calls `on_signal`
            and `on_circuit`.
        limits: What a connection allows.
        settings: How peers are connected to.
        ice_servers: STUN and TURN servers for WebRTC.
        webrtc: Whether to try WebRTC (over a relay's signalling).
        agent: Name and version of the software, told to peers.
        advertise: Addresses (`host:port`) to tell peers instead of those that are found.
    """

    # Life.

    async def start(self, host: str | None = None, port: int = 0) -> None:
        """Begin, and listen on a TCP address unless `host` is None.

        Raises:
            OSError: The address cannot be bound.
        """
        self._loop = asyncio.get_running_loop()
        if host is not None:
            _, bound = self._greeter.listen(host, port)
            if not self._advertise:
                self._addresses = await asyncio.to_thread(own_addresses, host, bound)
        self._greeter.start()
        self._tasks.start(self._tidy(), "peers-tidy")

    @property
    def addresses(self) -> builtins.list[str]:
        """TCP addresses (`host:port`) where peers reach this endpoint; told to them."""
        return list(self._addresses)

    async def close(self) -> None:
        """Say goodbye to all peers; what waits fails with `PeerLostError`."""
        self._closed = True
        await self._tasks.close()
        await asyncio.to_thread(self._greeter.close)
        lanes = tuple(self._lanes)
        for lane in lanes:
            lane.close(GoAwayReason.SHUTDOWN, "the endpoint stops")
        await asyncio.to_thread(_join, lanes)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY)
            now = time.monotonic()
            for peer in tuple(self._peers.values()):
                peer.tidy(now)

    # Requests.

    def _deadline(self, timeout: float | None, default: float) -> float:
        return time.monotonic() + (default if timeout is None else timeout)

    def _asking(self, peer: UUID, timeout: float | None) -> Asking:
        deadline = self._deadline(timeout, self._settings.request_timeout)
        return Asking(self._peer(peer), self._settings, deadline)

    async def get(
        self,
        peer: UUID,
        key: str,
        sink: Callable[[int], Reservation],
        *,
        timeout: float | None = None,
    ) -> Fetched | MissingReason:
        """Fetch an object of a peer into memory that `sink` gives for its size.

        `sink` is called in another thread, once; what it raises is raised here. When
        this raises, its reservation is abandoned.

        Raises:
            PeerUnreachableError: No path works.
            PeerLostError: The peer was lost, and did not come back in time.
            PeerRefusedError: It does not let us.
            PeerTimeoutError: It did not answer in time.
            PeerResponseError: It could not.
        """
        deadline = self._deadline(timeout, self._limits.max_request_timeout)
        return await Transfer(self._peer(peer), key, sink, self._settings, deadline).run()

    async def exists(self, peer: UUID, key: str, *, timeout: float | None = None) -> bool:
        """Ask a peer whether it has an object; raises as `get`."""
        return await self._asking(peer, timeout).exists(key)

    async def evict(self, peer: UUID, key: str, *, timeout: float | None = None) -> bool:
        """Have a peer remove an object; tell whether there was one. Raises as `get`."""
        return await self._asking(peer, timeout).evict(key)

    async def stat(
        self, peer: UUID, key: str, *, timeout: float | None = None
    ) -> RemoteStat | MissingReason:
        """Ask a peer about an object; raises as `get`."""
        return await self._asking(peer, timeout).stat(key)

    async def list(self, peer: UUID, *, timeout: float | None = None) -> builtins.list[str]:
        """Ask a peer for the keys of its objects; raises as `get`."""
        return await self._asking(peer, timeout).keys()

    async def put(
        self,
        peer: UUID,
        key: str,
        view: memoryview,
        *,
        ttl: float | None = None,
        durability: Durability = "memory",
        timeout: float | None = None,
    ) -> Stored:
        """Store an object at a peer; when it is cut, all of it is sent again. Raises as `get`.

        Raises:
            ObjectTooLargeError: It is over the peer's limit.
            StorageFullError: The peer has no room.
        """
        deadline = self._deadline(timeout, self._limits.max_request_timeout)
        asking = Asking(self._peer(peer), self._settings, deadline)
        return await asking.put(key, view, ttl=ttl, durability=durability)

    async def connect(self, peer: UUID, *, timeout: float | None = None) -> str:
        """Make sure that there is a path to a peer; return its kind. Raises as `get`."""
        deadline = self._deadline(timeout, self._settings.request_timeout)
        return (await self._peer(peer).lane(deadline)).kind

    def status(self) -> builtins.list[PeerStatus]:
        """Say what is known of each peer. May be called from any thread."""
        return [peer.status() for peer in tuple(self._peers.values())]


def _join(lanes: tuple[Lane, ...]) -> None:
    deadline = time.monotonic() + _FAREWELL
    for lane in lanes:
        lane.join(max(0.0, deadline - time.monotonic()))
    for lane in lanes:
        lane.kill()
    for lane in lanes:
        lane.join(_FAREWELL)
