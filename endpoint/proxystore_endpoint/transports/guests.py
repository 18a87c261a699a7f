"""Connections in their handshake, and who decides about them."""

from __future__ import annotations

import selectors
import ssl
from collections import deque
from typing import Protocol
from uuid import UUID

from proxystore_endpoint.grants import Admission
from proxystore_endpoint.wire.connection import BytesLike, Connection
from proxystore_endpoint.wire.messages import Auth, Hello, Ready


class Guest:
    """A connection in its handshake.

    Attributes:
        kind: Kind of its path.
        remote: Address of the other side, for people.
        expected: Who the relay says it is, where there is one.
        admission: What the doorkeeper noted when it let the peer in.
    """

    def __init__(
        self, sock: ssl.SSLSocket, deadline: float, *, kind: str, remote: str, expected: UUID | None
    ) -> None:
        self.kind = kind
        self.remote = remote
        self.expected = expected
        self.admission: Admission | None = None
        self.sock = sock
        self.deadline = deadline
        self.connection: Connection | None = None
        self.hello: Hello | None = None
        self.parts: deque[BytesLike] = deque()
        self.asked = 0.0
        self.leaving = False
        self.admitted: tuple[UUID, Auth] | None = None
        self.events = selectors.EVENT_READ


class Doorkeeper(Protocol):
    """Who decides about new connections; called in the greeter's thread."""

    def admit(self, peer: UUID, auth: Auth, guest: Guest) -> Ready:
        """Let a peer in that has proved its id, or raise. `guest.admission` is yours to set.

        Raises:
            EndpointError: It is refused; the error's text is told to it.
        """
        ...

    def welcome(
        self, peer: UUID, auth: Auth, sock: ssl.SSLSocket, connection: Connection, guest: Guest
    ) -> None:
        """Take over a connection that is ready."""
        ...
