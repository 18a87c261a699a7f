"""The states of a connection, and what may happen in each."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final

from proxystore_endpoint.wire.frames import (
    AUTH,
    CANCEL,
    CREDIT,
    DATA,
    END,
    GOAWAY,
    HELLO,
    PING,
    PONG,
    READY,
    REQUEST,
    RESPONSE,
)


class Role(Enum):
    """Which side of a connection this is."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where a connection is."""

    GREET = "the server has yet to say hello"
    AWAIT_AUTH = "the server waits for the proof"
    CHECK = "the server checks the proof"
    AWAIT_HELLO = "the client waits for the hello"
    PROVE = "the client has yet to send its proof"
    AWAIT_READY = "the client waits to be let in"
    OPEN = "requests go both ways"
    ENDED = "it is over"


FIRST: Final = MappingProxyType({Role.SERVER: State.GREET, Role.CLIENT: State.AWAIT_HELLO})
"""State at the start."""

_OPEN: Final = (REQUEST, RESPONSE, DATA, END, CREDIT, CANCEL, PING, PONG, GOAWAY)

RECEIVED: Final = MappingProxyType(
    {
        State.GREET: {GOAWAY: State.GREET},
        State.AWAIT_AUTH: {AUTH: State.CHECK, GOAWAY: State.AWAIT_AUTH},
        State.CHECK: {GOAWAY: State.CHECK},
        State.AWAIT_HELLO: {HELLO: State.PROVE, GOAWAY: State.AWAIT_HELLO},
        State.PROVE: {GOAWAY: State.PROVE},
        State.AWAIT_READY: {READY: State.OPEN, GOAWAY: State.AWAIT_READY},
        State.OPEN: dict.fromkeys(_OPEN, State.OPEN),
        State.ENDED: {},
    }
)
"""State after a frame came in; a frame that is not here is a breach of the protocol."""

SENT: Final = MappingProxyType(
    {
        State.GREET: {HELLO: State.AWAIT_AUTH},
        State.AWAIT_AUTH: {},
        State.CHECK: {READY: State.OPEN},
        State.AWAIT_HELLO: {},
        State.PROVE: {AUTH: State.AWAIT_READY},
        State.AWAIT_READY: {},
        State.OPEN: {},
        State.ENDED: {},
    }
)
"""State after a frame of the handshake went out; another may not be sent."""
