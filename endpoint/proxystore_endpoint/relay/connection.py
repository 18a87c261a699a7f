"""A connection at the relay, watched: when it was heard, and whether it takes what is sent."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Protocol

from websockets.asyncio.server import ServerConnection

from proxystore_endpoint.limits import KIB

if TYPE_CHECKING:
    from proxystore_endpoint.relay.auth import Principal
    from proxystore_endpoint.relay.port import Port

_EARLY: Final = 64 * KIB
"""What a connection may send before it is registered: headers and one message."""
_UNSENT: Final = 128 * KIB
"""What the kernel takes beyond what it has sent: more would hide that a client takes nothing."""


class Keeper(Protocol):
    """Whoever keeps the connections: the server."""

    def came(self, connection: Watched) -> None:
        """A connection was made."""

    def went(self, connection: Watched) -> None:
        """A connection is over."""

    def cut(self, connection: Watched, reason: str) -> None:
        """End a connection at once."""


class Watched(ServerConnection):
    """A websocket of a client.

    Attributes:
        keeper: The server; set in a subclass that each server makes for itself.
        born: When the connection was made.
        heard: When the last byte came.
        throttled: Whether the relay itself does not read now: silence is no sign then.
        port: The client, once it is registered.
        principal: Who the client belongs to.
    """

    keeper: Keeper

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch."""
        self.born = self.heard = self._moved = self.loop.time()
        self._waiting = 0
        self._early = 0
        self.throttled = False
        self.port: Port | None = None
        self.principal: Principal | None = None
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self.keeper.came(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; few from a stranger."""
        self.heard = self.loop.time()
        if self.port is None:
            self._early += len(data)
            if self._early > _EARLY:
                self.keeper.cut(self, "early")
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to watch."""
        self.keeper.went(self)
        super().connection_lost(exc)

    def look(self, now: float, silence: float) -> str:
        """Say what is wrong with the connection: `silent`, `stalled` or nothing."""
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or waiting < self._waiting:
            self._moved = now
        self._waiting = waiting
        if now - self.heard > silence and not self.throttled:
            return "silent"
        if now - self._moved > silence:
            return "stalled"
        return ""


def address_of(connection: ServerConnection, *, port: bool = False) -> str:
    """The address that a client comes from, with its port or without."""
    peer = connection.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return ""
    host = str(peer[0])
    if not port:
        return host
    return f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"
