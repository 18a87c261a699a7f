"""Frames: a header of 12 bytes and a body. All integers are big-endian.

| bytes | field |
|---|---|
| 0 | type |
| 1 | flags |
| 2 to 3 | 0 when sent, ignored when received |
| 4 to 7 | stream, 0 for the connection itself |
| 8 to 11 | length of the body |
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = HEADER.size

# Plain integers: an enumeration would cost as much as the rest of a frame.
HELLO: Final = 1
AUTH: Final = 2
READY: Final = 3
REQUEST: Final = 4
RESPONSE: Final = 5
DATA: Final = 6
END: Final = 7
CREDIT: Final = 8
CANCEL: Final = 9
PING: Final = 10
PONG: Final = 11
GOAWAY: Final = 12

NAMES: Final = {
    HELLO: "HELLO",
    AUTH: "AUTH",
    READY: "READY",
    REQUEST: "REQUEST",
    RESPONSE: "RESPONSE",
    DATA: "DATA",
    END: "END",
    CREDIT: "CREDIT",
    CANCEL: "CANCEL",
    PING: "PING",
    PONG: "PONG",
    GOAWAY: "GOAWAY",
}
OF_STREAM: Final = frozenset({REQUEST, RESPONSE, DATA, END, CREDIT, CANCEL})
"""Types that belong to a stream; the others have stream 0."""

IGNORABLE: Final = 0x80
"""Flag: whoever does not know the type skips the frame."""

CREDIT_BODY: Final = struct.Struct(">I")
PING_BODY: Final = struct.Struct(">Q")


def pack(kind: int, stream: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Put a frame together."""
    return HEADER.pack(kind, flags, 0, stream, len(body)) + body
