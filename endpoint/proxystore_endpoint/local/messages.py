"""Messages on the control socket: msgpack behind a length of 4 bytes, little-endian.

A client sends a request and waits for the reply to it; then comes the next one. Bytes of
objects lie in shared memory or in files, and not in here, but for small ones in a reply that
are nowhere else. Fields that one side does not know are ignored.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from proxystore_core import exceptions as core_exceptions
from proxystore_core.exceptions import ProxyStoreError
from proxystore_endpoint import exceptions
from proxystore_endpoint.exceptions import EndpointError, LocalProtocolError
from proxystore_endpoint.limits import KIB, MAX_LOCAL_MESSAGE

VERSION: Final = 1
LENGTH: Final = struct.Struct("<I")
MAX_REQUEST: Final = MAX_LOCAL_MESSAGE
MAX_REPLY: Final = 256 * KIB
KEYS_AT_ONCE: Final = 1000


class _Message(msgspec.Struct, frozen=True, array_like=False, tag_field="op", omit_defaults=True):
    """A message."""


class Hello(_Message, frozen=True, tag="hello"):
    """Ask what this endpoint is."""

    version: int = VERSION


class Commit(_Message, frozen=True, tag="commit"):
    """An object of this endpoint lies in memory, or in the file of a reservation.

    Attributes:
        key: Its key.
        nbytes: Its length in bytes.
        ttl: Seconds until it expires.
        durability: The least that is wanted.
        room: Number of the reservation whose file holds it; 0 where it lies in memory.
    """

    key: str
    nbytes: int
    ttl: float | None = None
    durability: str | None = None
    room: int = 0


class MakeRoom(_Message, frozen=True, tag="room"):
    """There was no room in memory for so many bytes: free some.

    Attributes:
        nbytes: Bytes that are wanted.
        attempt: How often it was too little.
    """

    nbytes: int
    attempt: int = 0


class Reserve(_Message, frozen=True, tag="reserve"):
    """Ask for a file for an object that fits into memory nowhere. It goes with the connection."""

    key: str
    nbytes: int
    durability: str | None = None


class Abandon(_Message, frozen=True, tag="abandon"):
    """Give up a reservation."""

    room: int


class Fetch(_Message, frozen=True, tag="fetch"):
    """Ask where an object can be mapped; one of a peer is brought here first."""

    key: str
    endpoint_id: str
    timeout: float | None = None


class Exists(_Message, frozen=True, tag="exists"):
    """Ask whether there is an object."""

    key: str
    endpoint_id: str
    timeout: float | None = None


class Evict(_Message, frozen=True, tag="evict"):
    """Remove an object."""

    key: str
    endpoint_id: str
    timeout: float | None = None


class Expire(_Message, frozen=True, tag="expire"):
    """Remove an object of this endpoint, and remember it as expired."""

    key: str


class Push(_Message, frozen=True, tag="push"):
    """Store an object at the endpoint that it belongs to.

    Attributes:
        key: Its key.
        endpoint_id: That endpoint.
        source: Key of this endpoint under which its bytes lie meanwhile; it is removed.
        ttl: Seconds until it expires.
        durability: The least that is wanted.
        timeout: Seconds to wait.
    """

    key: str
    endpoint_id: str
    source: str
    ttl: float | None = None
    durability: str | None = None
    timeout: float | None = None


class Stat(_Message, frozen=True, tag="stat"):
    """Ask what is known here of an object, or why there is none."""

    key: str
    endpoint_id: str


class Keys(_Message, frozen=True, tag="keys"):
    """Ask for the keys after one, in their order, `KEYS_AT_ONCE` at most."""

    after: str = ""


class Count(_Message, frozen=True, tag="count"):
    """Ask how many objects of this endpoint there are, and how large."""


class Status(_Message, frozen=True, tag="status"):
    """Ask for all there is to know."""


class Welcome(_Message, frozen=True, tag="welcome"):
    """What this endpoint is.

    Attributes:
        endpoint_id: Its UUID.
        version: Version of these messages.
        release: Release of the package.
        pid: Process id of the daemon.
        memory: What `SharedMemoryConnector.from_config` attaches to its memory with.
        object_limit: Most bytes of one object.
        durability: What a put gets that names none.
    """

    endpoint_id: str
    version: int
    release: str
    pid: int
    memory: dict[str, Any]
    object_limit: int | None = None
    durability: str = "memory"


class Committed(_Message, frozen=True, tag="committed"):
    """An object is stored."""

    nbytes: int
    durability: str
    etag: str = ""


class Granted(_Message, frozen=True, tag="granted"):
    """A file to be filled.

    Attributes:
        room: Number of the reservation.
        path: The file.
    """

    room: int
    path: str


class Found(_Message, frozen=True, tag="found"):
    """Where an object can be mapped.

    Attributes:
        nbytes: Its length in bytes.
        in_memory: Whether it lies in the shared memory.
        path: The file that it lies in, or `''`.
        data: Its bytes, where they are nowhere else.
        durability: Where it lies.
        etag: Its SHA-256, where it is known.
        expires_in: Seconds until it expires.
    """

    nbytes: int
    in_memory: bool = False
    path: str = ""
    data: bytes | None = None
    durability: str = "memory"
    etag: str = ""
    expires_in: float | None = None


class Missing(_Message, frozen=True, tag="missing"):
    """There is no such object.

    Attributes:
        reason: Value of a `MissingReason`.
    """

    reason: str


class Answer(_Message, frozen=True, tag="answer"):
    """Yes or no."""

    yes: bool


class KeyList(_Message, frozen=True, tag="keylist"):
    """Keys, and whether there are more after them."""

    keys: list[str]
    more: bool = False


class Counted(_Message, frozen=True, tag="counted"):
    """What this endpoint holds.

    Attributes:
        objects: Number of its own objects.
        nbytes: Their bytes.
        reserved: Bytes of memory kept for reuse.
        limit: Bytes of memory that it may take.
    """

    objects: int
    nbytes: int
    reserved: int
    limit: int


class Report(_Message, frozen=True, tag="report"):
    """All there is to know, of JSON types."""

    status: dict[str, Any]


class Failure(_Message, frozen=True, tag="failure"):
    """What was asked could not be done.

    Attributes:
        error: Name of the error's class.
        message: What it says.
        fields: Its attributes.
    """

    error: str
    message: str
    fields: dict[str, Any] = {}


Request = (
    Hello
    | Commit
    | MakeRoom
    | Reserve
    | Abandon
    | Fetch
    | Exists
    | Evict
    | Expire
    | Push
    | Stat
    | Keys
    | Count
    | Status
)
Reply = (
    Welcome | Committed | Granted | Found | Missing | Answer | KeyList | Counted | Report | Failure
)

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """Return the bytes of a message, its length before it."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_request(body: bytes | bytearray | memoryview) -> Request:
    """Read a request.

    Raises:
        LocalProtocolError: It is none.
    """
    try:
        return _requests.decode(body)
    except (ValueError, RecursionError) as error:
        raise LocalProtocolError(
            f"A message on the control socket is malformed: {error}"
        ) from error


def decode_reply(body: bytes | bytearray | memoryview) -> Reply:
    """Read a reply; raises as `decode_request`."""
    try:
        return _replies.decode(body)
    except (ValueError, RecursionError) as error:
        raise LocalProtocolError(
            f"A message on the control socket is malformed: {error}"
        ) from error


def to_failure(error: BaseException) -> Failure:
    """Return the message that tells a client of an error."""
    name = type(error).__name__
    fields: dict[str, Any] = {}
    if _known_error(name) is type(error):
        for field, value in vars(error).items():
            if isinstance(value, (str, int, float, type(None))):
                fields[field] = value
            elif isinstance(value, dict):
                fields[field] = {str(one): str(other) for one, other in value.items()}
            else:
                fields[field] = str(value)
    elif isinstance(error, (ValueError, TypeError)):
        name = "ValueError"
    else:
        name = "EndpointError"
    return Failure(name, str(error)[:4000] or type(error).__name__, fields)


def to_error(failure: Failure) -> Exception:
    """Return the error that a server told of."""
    kind = _known_error(failure.error)
    if kind is None:
        kinds = {"ValueError": ValueError}
        return kinds.get(failure.error, EndpointError)(failure.message)
    error = kind.__new__(kind, failure.message)
    error.args = (failure.message,)
    for field, value in failure.fields.items():
        if field.isidentifier() and not field.startswith("_"):
            setattr(error, field, value)
    return error


def _known_error(name: str) -> type[ProxyStoreError] | None:
    for module in (exceptions, core_exceptions):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, ProxyStoreError):
            return found
    return None
