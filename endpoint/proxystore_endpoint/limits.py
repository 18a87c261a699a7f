"""Every number that bounds what another side can make us do, and the times we wait.

Sizes are bytes and times seconds, unless a name says otherwise.
"""

from __future__ import annotations

from typing import Final

import msgspec

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Peer protocol: fixed by its version, docs/wire.md states them.
MAX_BODY: Final = 64 * KIB
"""Body of any frame that is not DATA."""
MAX_DATA: Final = 1 * MIB
"""Body of one DATA frame."""
MAX_HANDSHAKE_BODY: Final = 32 * KIB
"""Body of any frame before a connection is ready."""
MAX_KEY: Final = 256
"""Characters of a key."""
MAX_TEXT: Final = 1024
"""Characters of a text for people: a detail, an agent's name."""
INITIAL_WINDOW: Final = 2 * MIB
"""Body bytes that may be sent on a stream before any credit is granted."""
MAX_WINDOW: Final = 1 << 31
"""Credit that a stream can hold at most."""
MAX_OBJECT: Final = 1 << 46
"""Bytes of one object that a message may announce."""
MAX_LIST: Final = 1000
"""Keys in one answer to a listing."""
MAX_MEMBERSHIPS: Final = 16
"""Memberships that one side may show."""

# Identity, grants, tickets.
NONCE_BYTES: Final = 32
"""Bytes of the nonce in a HELLO."""
SECRET_BYTES: Final = 16
"""Bytes of a ticket's one-time secret."""
MAX_MEMBERSHIP_AGE: Final = 30 * 86400
"""Longest life of a membership."""
CLOCK_SKEW: Final = 300
"""How far two sites' clocks may differ where an expiry is checked."""
MAX_TICKET: Final = 2 * KIB
"""Characters of a ticket."""
MAX_TICKET_AGE: Final = 30 * 86400
"""Longest life of a ticket."""

# Relay, signalling and the control socket.
MAX_SIGNAL: Final = 64 * KIB
"""One signalling message."""
MAX_CIRCUIT_MESSAGE: Final = 256 * KIB
"""Payload of one message of a circuit."""
MAX_LOCAL_MESSAGE: Final = 64 * KIB
"""One message on the control socket."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of a connection allows, and how long it waits.

    Attributes:
        data_frame: Body bytes of the DATA frames that we send, at most `MAX_DATA`.
        max_window: Credit that we let a stream's window grow to.
        max_streams: Streams that the other side may have open at once.
        max_queued: Bytes of control frames that may wait to be sent; a peer that asks for more
            and does not read is cut off.
        handshake_timeout: Seconds until a connection must be ready.
        ping_interval: Seconds of silence after which we ping.
        dead_after: Seconds of silence after which the other side counts as dead.
        request_timeout: Deadline of a request where the caller names none.
        max_request_timeout: Longest deadline that we honour as the answering side.
    """

    data_frame: int = 256 * KIB
    max_window: int = 64 * MIB
    max_streams: int = 256
    max_queued: int = 4 * MIB
    handshake_timeout: float = 10.0
    ping_interval: float = 5.0
    dead_after: float = 12.0
    request_timeout: float = 60.0
    max_request_timeout: float = 3600.0


DEFAULT: Final = Limits()
