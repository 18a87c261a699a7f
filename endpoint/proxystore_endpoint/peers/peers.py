"""All peers of one endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.limits import DEFAULT, Limits
from proxystore_endpoint.peers.addresses import AddressBook
from proxystore_endpoint.peers.types import (
    Fetched,
    PeerSettings,
    PeerStatus,
    Relay,
    RemoteStat,
)
from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.storage.types import Durability, Provider, Reservation, Stored

if TYPE_CHECKING:
    from proxystore_endpoint.grants import Grants
    from proxystore_endpoint.identity import Identity


class Peers:
    """The peers of an endpoint: connections both ways, requests to them, and answers.

    Lives on one event loop; bulk data flows in threads of its own. Nothing that a
    peer does, and no failure in here, raises anything but to the caller that waits for it.

    Args:
        identity: Who we are.
        grants: Who may do what here.
        provider: The objects that are served.
        directory: Where peers are.
        limits: What a connection allows.
        settings: How peers are connected to.
        ice_servers: STUN and TURN servers for WebRTC, as URLs.
        webrtc: Whether to try WebRTC (over a relay's signalling).
        agent: Name and version of the software, told to peers.
    """

    relay: Relay | None
    """Client of the relay, set before `start`; it calls `on_signal` and `on_circuit`."""

    def __init__(
        self,
        identity: Identity,
        grants: Grants,
        provider: Provider,
        directory: AddressBook,
        relay: Relay | None = None,
        *,
        limits: Limits = DEFAULT,
        settings: PeerSettings | None = None,
        ice_servers: tuple[str, ...] = (),
        webrtc: bool = True,
        agent: str = "",
    ) -> None:
        raise NotImplementedError

    async def start(self, host: str | None = None, port: int = 0) -> None:
        """Begin, and listen on a TCP address unless `host` is None.

        Raises:
            OSError: The address cannot be bound.
        """

    @property
    def addresses(self) -> list[str]:
        """TCP addresses (`host:port`) where peers reach this endpoint; told to them."""
        raise NotImplementedError

    async def close(self) -> None:
        """Say goodbye to all peers; what waits fails with `PeerLostError`."""

    async def on_signal(self, source: UUID, message: dict[str, object]) -> None:
        """Take a signalling message; the relay vouches for its source."""

    async def on_circuit(self, source: UUID, pipe: Pipe) -> None:
        """Take a circuit that another endpoint opened through the relay."""

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
        raise NotImplementedError

    async def exists(self, peer: UUID, key: str, *, timeout: float | None = None) -> bool:
        """Ask a peer whether it has an object; raises as `get`."""
        raise NotImplementedError

    async def evict(self, peer: UUID, key: str, *, timeout: float | None = None) -> bool:
        """Have a peer remove an object; tell whether there was one. Raises as `get`."""
        raise NotImplementedError

    async def stat(
        self, peer: UUID, key: str, *, timeout: float | None = None
    ) -> RemoteStat | MissingReason:
        """Ask a peer about an object; raises as `get`."""
        raise NotImplementedError

    async def list(self, peer: UUID, *, timeout: float | None = None) -> list[str]:
        """Ask a peer for the keys of its objects; raises as `get`."""
        raise NotImplementedError

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
        """Store an object at a peer; raises as `get`, and also

        Raises:
            ObjectTooLargeError: It is over the peer's limit.
            StorageFullError: The peer has no room.
        """
        raise NotImplementedError

    async def connect(self, peer: UUID, *, timeout: float | None = None) -> str:
        """Make sure that there is a path to a peer; return its kind. Raises as `get`."""
        raise NotImplementedError

    def status(self) -> list[PeerStatus]:
        """Say what is known of each peer. May be called from any thread."""
        raise NotImplementedError
