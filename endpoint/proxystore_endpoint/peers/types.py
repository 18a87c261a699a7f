"""What `Peers` takes and gives."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from proxystore_endpoint.pipes import Pipe
from proxystore_endpoint.storage.types import Durability, Reservation


class Fetched(NamedTuple):
    """An object that came from a peer: in its place, and not yet published.

    Attributes:
        reservation: Where it is; publish or abandon it.
        nbytes: Its length in bytes.
        etag: SHA-256 of its bytes in hex as the peer says, or `''` where it does not know.
        expires_in: Seconds that it has left, or `None` for no end.
        version: Differs once the peer's object was replaced; `''` where it does not say.
    """

    reservation: Reservation
    nbytes: int
    etag: str = ""
    expires_in: float | None = None
    version: str = ""


class RemoteStat(NamedTuple):
    """What a peer says of one of its objects.

    Attributes:
        nbytes: Its length in bytes.
        durability: Where it lies there.
        etag: SHA-256 of its bytes in hex, or `''`.
        expires_in: Seconds that it has left, or `None` for no end.
        version: Differs once the peer's object was replaced; `''` where it does not say.
    """

    nbytes: int
    durability: Durability
    etag: str = ""
    expires_in: float | None = None
    version: str = ""


class LaneStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One lane to a peer.

    Attributes:
        kind: Kind of its path: `tcp`, `webrtc` or `relay`.
        outbound: Whether this side connected.
        remote: Address of the other side, for people.
        requests: Requests under way, both ways.
        rtt: Round trip in seconds, where it was measured.
    """

    kind: str
    outbound: bool
    remote: str
    requests: int
    rtt: float | None


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a peer now.

    Attributes:
        uuid: Its id.
        path: Kind of the path that new requests take, or `''` when there is none.
        paths: What was tried last, and how it went: `connected`, `trying` or why not.
        lanes: Lanes that are open.
        rtt: Round trip in seconds of the lane that new requests take.
        bytes_received: Bytes of objects that came from it.
        bytes_sent: Bytes of objects that went to it.
        rate_in: Bytes a second that come from it now.
        rate_out: Bytes a second that go to it now.
        resumed: Transfers that went on over another lane after one was lost.
        agent: Name and version of its software.
        version: Version of the protocol.
    """

    uuid: UUID
    path: str
    paths: dict[str, str]
    lanes: list[LaneStatus]
    rtt: float | None
    bytes_received: int
    bytes_sent: int
    rate_in: float
    rate_out: float
    resumed: int
    agent: str
    version: int


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How peers are connected to, and how long is waited. Times are seconds.

    Attributes:
        connect_timeout: Until a path must be there.
        head_start: What direct TCP gets before the other paths are tried, too.
        stall_timeout: Until a transfer that does not get on fails, whatever was tried.
        lost_grace: While a peer that was lost during a transfer is sought, though no path works.
        upgrade_after: Pauses before better paths are tried again; the last one repeats.
        idle_lane: Until a lane that nobody uses is closed, when there is another.
        idle_link: Until the last lane to a peer is closed that nobody uses.
        max_lanes: Lanes to one peer that this side opens at most.
        max_peer_lanes: Lanes that one peer may open here at most.
        max_handshakes: Connections that may be in their handshake at once; more push
            out the oldest.
        request_timeout: Of a request where the caller names none.
        parallel_rtt: Round trip from which one object may come over several lanes.
        window: Bytes of one object that a lane may have on the way: what a cut costs at most.
            More lanes, not a larger window, fill a long way.
    """

    connect_timeout: float = 10.0
    head_start: float = 0.2
    stall_timeout: float = 12.6
    lost_grace: float = 1.0
    upgrade_after: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0)
    idle_lane: float = 60.0
    idle_link: float = 900.0
    max_lanes: int = 8
    max_peer_lanes: int = 32
    max_handshakes: int = 1024
    request_timeout: float = 60.0
    parallel_rtt: float = 0.004
    window: int = 2 << 20


class RelaySight(Protocol):
    """What a relay's client knows of its registration."""

    @property
    def observed(self) -> str:
        """The address, `host:port`, that the relay sees us come from; `''` if it does not say."""
        ...


class Relay(Protocol):
    """What peers need of a relay's client."""

    @property
    def connected(self) -> bool:
        """Whether the relay is there now."""
        ...

    @property
    def status(self) -> RelaySight:
        """How it stands with the relay."""
        ...

    async def signal(self, to: UUID, message: dict[str, object]) -> None:
        """Carry a message to another endpoint."""
        ...

    async def open_circuit(self, to: UUID, timeout: float) -> Pipe:
        """Open a pipe to another endpoint."""
        ...
