"""Bodies of the peer protocol's frames, as structures.

Bodies are MessagePack maps from field name to value (msgspec). A field that is
not known is ignored and one with a default may be left out, so both sides can
be of different age. What a frame of another type carries (DATA, CREDIT, PING,
PONG) has no structure: see docs/wire.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import MessageError, MessageTooLargeError

VERSION: Final = 1
"""Highest version of the protocol that this side speaks."""
MIN_VERSION: Final = 1
"""Lowest version of the protocol that this side speaks."""


class Op(StrEnum):
    """What a request asks for."""

    GET = "get"
    EXISTS = "exists"
    EVICT = "evict"
    STAT = "stat"
    LIST = "list"
    PUT = "put"


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    MISSING = "missing"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    FULL = "full"
    TIMEOUT = "timeout"
    BAD_REQUEST = "bad_request"
    CANCELLED = "cancelled"
    ERROR = "error"


class GoAwayReason(StrEnum):
    """Why a side ends a connection."""

    SHUTDOWN = "shutdown"
    REFUSED = "refused"
    VERSION = "version"
    PROTOCOL = "protocol"
    BUSY = "busy"
    IDLE = "idle"
    REPLACED = "replaced"
    TIMEOUT = "timeout"
    ERROR = "error"


_Text = Annotated[str, Meta(max_length=limits.MAX_TEXT)]
_Word = Annotated[str, Meta(max_length=32)]
_Key = Annotated[str, Meta(max_length=limits.MAX_KEY)]
_Size = Annotated[int, Meta(ge=0, le=limits.MAX_OBJECT)]
_Version = Annotated[int, Meta(ge=0, le=0xFFFF)]
_Ms = Annotated[int, Meta(ge=0, le=1 << 53)]
_Streams = Annotated[int, Meta(ge=1, le=1 << 20)]
_Nonce = Annotated[bytes, Meta(min_length=limits.NONCE_BYTES, max_length=limits.NONCE_BYTES)]
_PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
_Memberships = Annotated[
    list[Annotated[bytes, Meta(max_length=1024)]], Meta(max_length=limits.MAX_MEMBERSHIPS)
]


class Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every structured body shares."""


class Hello(Body, frozen=True, omit_defaults=True, kw_only=True):
    """First frame of the accepting side.

    Attributes:
        version: Highest version that it speaks.
        min_version: Lowest version that it speaks.
        nonce: 32 fresh random bytes.
        agent: Name and version of its software, for people.
    """

    version: _Version
    min_version: _Version
    nonce: _Nonce
    agent: _Text = ""


class Auth(Body, frozen=True, omit_defaults=True, kw_only=True):
    """First frame of the connecting side: who it is, and the proof.

    Attributes:
        version: The version that the connection speaks from here on.
        public_key: Its Ed25519 key, 32 bytes.
        signature: Over label, both sides' keys and the nonce: see `secure.auth_message`.
        memberships: Encoded `grants.Membership`s that may give it rights.
        ticket: One-time secret of a ticket, when it comes on an invitation.
        link: Random id that all lanes of one link share, so that the accepting side can
            put them together.
        lane: Number of this lane in its link.
        max_streams: Requests that it lets the other side have under way at once.
        agent: Name and version of its software, for people.
    """

    version: _Version
    public_key: _PublicKey
    signature: _Signature
    memberships: _Memberships = []
    ticket: Annotated[bytes, Meta(max_length=64)] = b""
    link: Annotated[bytes, Meta(max_length=16)] = b""
    lane: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    max_streams: _Streams = 256
    agent: _Text = ""


class Ready(Body, frozen=True, omit_defaults=True, kw_only=True):
    """The accepting side lets the other in.

    Attributes:
        rights: What the connecting side may do: some of read, write, list.
        memberships: The accepting side's own memberships, as in `Auth`.
        max_streams: Requests that it lets the other side have under way at once.
        addresses: TCP addresses (`host:port`) where the accepting side can also be reached.
    """

    rights: Annotated[list[_Word], Meta(max_length=16)] = []
    memberships: _Memberships = []
    max_streams: _Streams = 256
    addresses: Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=16)] = []


class Request(Body, frozen=True, omit_defaults=True, kw_only=True):
    """One request. Which fields matter depends on `op`.

    Attributes:
        op: An `Op`. Another is answered with `Status.BAD_REQUEST`.
        key: Key of the object.
        offset: get: first byte wanted.
        length: get: bytes wanted from there, or -1 for all.
        nbytes: put: size of the object, all of which follows as the body.
        ttl_ms: put: milliseconds that the object lives, or 0 for no end.
        durability: put: `memory`, `spill` or `durable`.
        cursor: list: where to go on, from the last answer.
        limit: list: keys wanted at most.
        deadline_ms: Milliseconds after which nobody waits any more.
    """

    op: _Word
    key: _Key = ""
    offset: _Size = 0
    length: Annotated[int, Meta(ge=-1, le=limits.MAX_OBJECT)] = -1
    nbytes: _Size = 0
    ttl_ms: _Ms = 0
    durability: _Word = "memory"
    cursor: _Key = ""
    limit: Annotated[int, Meta(ge=0, le=limits.MAX_LIST)] = limits.MAX_LIST
    deadline_ms: _Ms = 0


class Response(Body, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to one request.

    Attributes:
        status: A `Status`.
        nbytes: Bytes of the body that follows, 0 for none.
        size: Size of the whole object.
        etag: SHA-256 of the object in hex, or "" where it is not known.
        version: get and stat: text that differs once the object was replaced, whether its
            digest is known or not; "" from a side that does not say.
        expires_ms: Milliseconds that the object has left, or 0 for no end.
        durability: put and stat: what is true of the stored object.
        reason: missing: value of a `MissingReason`.
        detail: For people: what went wrong.
        found: exists and evict: whether there was such an object.
        keys: list: keys.
        cursor: list: where to go on, or "" at the end.
    """

    status: _Word = Status.OK
    nbytes: _Size = 0
    size: _Size = 0
    etag: Annotated[str, Meta(max_length=64)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""
    expires_ms: _Ms = 0
    durability: _Word = ""
    reason: _Word = ""
    detail: _Text = ""
    found: bool = False
    keys: Annotated[list[_Key], Meta(max_length=limits.MAX_LIST)] = []
    cursor: _Key = ""


class End(Body, frozen=True, omit_defaults=True, kw_only=True):
    """A side sends no more on a stream, before its body is complete.

    Attributes:
        status: Why.
        detail: For people.
    """

    status: _Word = Status.OK
    detail: _Text = ""


class Cancel(Body, frozen=True, omit_defaults=True, kw_only=True):
    """The asking side wants no answer any more, and sends no more.

    Attributes:
        status: Why: `cancelled` or `timeout`.
    """

    status: _Word = Status.CANCELLED


class GoAway(Body, frozen=True, omit_defaults=True, kw_only=True):
    """A side ends the connection.

    Attributes:
        reason: A `GoAwayReason`.
        detail: For people.
    """

    reason: _Word = GoAwayReason.SHUTDOWN
    detail: _Text = ""


B = TypeVar("B", bound=Body)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[type[Body], msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (Hello, Auth, Ready, Request, Response, End, Cancel, GoAway)
}


def encode(body: Body, limit: int = limits.MAX_BODY) -> bytes:
    """Encode a body.

    Raises:
        MessageTooLargeError: It is over the limit.
    """
    raw = _ENCODER.encode(body)
    if len(raw) > limit:
        raise MessageTooLargeError(
            f"{type(body).__name__} of {len(raw)} bytes is over the limit of {limit} bytes; "
            "shorten its texts or lists.",
            nbytes=len(raw),
            limit=limit,
        )
    return raw


def decode(kind: type[B], raw: bytes | bytearray | memoryview) -> B:
    """Decode a body.

    Raises:
        MessageError: It is no such body.
    """
    try:
        body: B = _DECODERS[kind].decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(f"The body of a {kind.__name__} cannot be read: {error}") from None
    return body
