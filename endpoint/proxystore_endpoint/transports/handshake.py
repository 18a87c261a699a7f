"""The connecting side's handshake, on a blocking socket, with a deadline."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from uuid import UUID

import msgspec

from proxystore_endpoint.exceptions import (
    AuthenticationError,
    ConnectionEndedError,
    ConnectionRefusedByPeerError,
    PathError,
    PeerRefusedError,
    WireError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.secure import check_server, client_context, make_auth
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import Ended, Established, Event, GoingAway, HelloReceived
from proxystore_endpoint.wire.messages import Hello, Ready


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What the connecting side shows.

    Attributes:
        identity: Who we are.
        memberships: Encoded memberships.
        ticket: Secret of a ticket.
        agent: Name and version of our software.
    """

    identity: Identity
    memberships: tuple[bytes, ...] = ()
    ticket: bytes = b""
    agent: str = ""


class Handshaken(msgspec.Struct, frozen=True):
    """A connection that is ready.

    Attributes:
        sock: Its stream.
        connection: Its state.
        hello: What the other side said first.
        ready: What it said when it let us in.
        rtt: Seconds that its answer to our proof took.
    """

    sock: ssl.SSLSocket
    connection: Connection
    hello: Hello
    ready: Ready
    rtt: float


def connect(
    raw: socket.socket,
    peer: UUID,
    credentials: Credentials,
    *,
    kind: str,
    limits: Limits,
    deadline: float,
    link: bytes = b"",
    lane: int = 0,
) -> Handshaken:
    """Make a connected stream secure, and be let in. Closes the stream when that fails.

    Args:
        raw: The stream.
        peer: Who must be at the other end.
        credentials: What we show.
        kind: Kind of the path, for errors.
        limits: What the connection allows.
        deadline: When to give up, on the monotonic clock.
        link: Id that all lanes of a link share.
        lane: Number of the lane.

    Raises:
        PeerRefusedError: The peer does not let us in.
        PathError: It is not the peer, or not reachable in time.
    """
    sock = raw
    try:
        raw.settimeout(_remaining(deadline))
        sock = client_context().wrap_socket(raw, do_handshake_on_connect=False)
        sock.do_handshake()
        key = check_server(sock, peer)
        shaking = _Shaking(sock, Connection(Role.CLIENT, limits=limits, now=time.monotonic()))
        while shaking.ready is None:
            sock.settimeout(_remaining(deadline))
            for event in shaking.read():
                if isinstance(event, HelloReceived):
                    shaking.hello = event.hello
                    auth = make_auth(
                        credentials.identity,
                        key,
                        event.hello,
                        memberships=credentials.memberships,
                        ticket=credentials.ticket,
                        link=link,
                        lane=lane,
                        agent=credentials.agent,
                    )
                    shaking.connection.send_auth(auth)
                    shaking.asked = time.monotonic()
                elif isinstance(event, Established):
                    shaking.ready = event.ready
                    shaking.rtt = shaking.connection.least_rtt = time.monotonic() - shaking.asked
                elif isinstance(event, GoingAway):
                    shaking.reason = event.detail or event.reason
                elif isinstance(event, Ended):
                    raise _why(event.error, shaking.reason, peer, kind)
            for part in shaking.connection.to_send():
                sock.sendall(part)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            raise PathError(f"{kind}: no answer in time", kind=kind) from error
        if isinstance(error, (OSError, AuthenticationError, WireError)) and not isinstance(
            error, (PathError, PeerRefusedError)
        ):
            raise PathError(f"{kind}: {_text(error)}", kind=kind) from error
        raise
    return Handshaken(sock, shaking.connection, shaking.hello, shaking.ready, shaking.rtt)


class _Shaking:
    def __init__(self, sock: ssl.SSLSocket, connection: Connection) -> None:
        self.sock = sock
        self.connection = connection
        self.hello = Hello(version=0, min_version=0, nonce=bytes(32))
        self.ready: Ready | None = None
        self.reason = ""
        self.asked = self.rtt = 0.0

    def read(self) -> Iterable[Event]:
        count = self.sock.recv_into(self.connection.buffer())
        now = time.monotonic()
        if not count:
            yield from self.connection.eof(now)
            return
        yield from self.connection.received(count, now)
        while self.connection.paused and not self.connection.ended:
            yield from self.connection.received(0, now)


def _why(error: WireError, reason: str, peer: UUID, kind: str) -> Exception:
    if isinstance(error, ConnectionRefusedByPeerError):
        return PeerRefusedError(f"Endpoint {peer} does not let us in: {reason or error}", peer=peer)
    if isinstance(error, ConnectionEndedError) and reason:
        return PathError(f"{kind}: the peer closed the connection: {reason}", kind=kind)
    return PathError(f"{kind}: {error}", kind=kind)


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _text(error: BaseException) -> str:
    if isinstance(error, (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)):
        return "the other side closed the connection during the handshake"
    return str(error) or type(error).__name__
