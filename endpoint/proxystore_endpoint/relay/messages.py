"""What a relay and its clients say to each other: bytes to messages and back, without I/O.

Every message is one websocket message. One that begins with `{` is a control message, a JSON
object whose `type` names it; the others are binary and begin with a type byte and the number of a
circuit (`docs/relay.md` has the tables). Unknown types and unknown fields are ignored by the
receiver, so that either side may be newer.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from proxystore_endpoint.exceptions import RelayMessageError
from proxystore_endpoint.limits import KIB, MAX_CIRCUIT_MESSAGE, MAX_SIGNAL, NONCE_BYTES

VERSION: Final = 1
MAX_CONTROL: Final = MAX_SIGNAL + KIB
"""Largest control message, in bytes."""
OVERHEAD: Final = 64
"""A message of n bytes uses n + 64 of a circuit's credit: tiny ones cost memory too."""

DATA: Final = 1
CREDIT: Final = 2
_DATA: Final = struct.Struct("!BQ")
_CREDIT: Final = struct.Struct("!BQI")
DATA_HEADER: Final = _DATA.size
_BRACE: Final = ord("{")
_REGISTER_LABEL: Final = b"proxystore relay registration v1\0"
_SECRET_LABEL: Final = b"proxystore relay shared secret v1\0"

_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_Circuit = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Window = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_Text = Annotated[str, msgspec.Meta(max_length=256)]


class _Control(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """A control message."""


# From a client to the relay.


class Proof(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a client authenticates itself, beside the signature of its identity."""

    method: _Text = "none"
    mac: Annotated[bytes, msgspec.Meta(max_length=64)] = b""
    token: Annotated[str, msgspec.Meta(max_length=16 * 1024)] = ""


class Register(_Control, frozen=True, tag="register"):
    """The answer to a challenge. `replace=False`: only if nobody else has this id."""

    uuid: UUID
    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    signature: Annotated[bytes, msgspec.Meta(max_length=64)]
    audience: _Text
    version: _Id = VERSION
    replace: bool = True
    agent: _Text = ""
    auth: Proof = Proof()


class Ping(_Control, frozen=True, tag="ping"):
    """A sign of life; the relay answers with a `Pong` of the same number."""

    id: _Id


class Signal(_Control, frozen=True, tag="signal"):
    """A JSON object for another client; answered with a `Result`."""

    id: _Id
    to: UUID
    body: msgspec.Raw


class Open(_Control, frozen=True, tag="open"):
    """Ask for a circuit; answered with `Opened` or a `Result` that says why not."""

    id: _Id
    to: UUID
    window: _Window


class Accept(_Control, frozen=True, tag="accept"):
    """Take an incoming circuit; `window`: bytes that may come before the first credit."""

    circuit: _Circuit
    window: _Window


class Close(_Control, frozen=True, tag="close"):
    """End a circuit, or refuse an incoming one. What was sent before it still arrives."""

    circuit: _Circuit
    reason: _Text = ""


# From the relay to a client.


class Challenge(_Control, frozen=True, tag="challenge"):
    """The first message of a connection: what the client signs, and how it authenticates."""

    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    auth: _Text = "none"
    version: _Id = VERSION
    agent: _Text = ""


class Welcome(_Control, frozen=True, tag="welcome"):
    """The client is registered. `address`: where the relay sees it come from."""

    uuid: UUID
    address: _Text = ""
    payload_limit: _Id = MAX_CIRCUIT_MESSAGE


class Goodbye(_Control, frozen=True, tag="goodbye"):
    """The relay ends the connection."""

    reason: _Text
    detail: _Text = ""


class Pong(_Control, frozen=True, tag="pong"):
    """The answer to a `Ping`."""

    id: _Id


class Result(_Control, frozen=True, tag="result"):
    """What became of a `Signal` or an `Open`; an empty `error` means it was handed on."""

    id: _Id
    error: _Text = ""


class Signalled(_Control, frozen=True, tag="signalled"):
    """A signal from another client, whose id the relay vouches for."""

    source: UUID
    body: msgspec.Raw


class Incoming(_Control, frozen=True, tag="incoming"):
    """Another client asks for a circuit; the answer is `Accept` or `Close`."""

    circuit: _Circuit
    source: UUID
    window: _Window


class Opened(_Control, frozen=True, tag="opened"):
    """The circuit that was asked for is there."""

    id: _Id
    circuit: _Circuit
    window: _Window


class Closed(_Control, frozen=True, tag="closed"):
    """A circuit ended; nothing more comes on it."""

    circuit: _Circuit
    reason: _Text = ""


class Data(NamedTuple):
    """A message on a circuit.

    Attributes:
        circuit: The circuit's number, the same at both ends.
        frame: The whole websocket message, header included: a relay passes it on as it is.
    """

    circuit: int
    frame: bytes

    @property
    def payload(self) -> memoryview:
        """What the other end of the circuit sent."""
        return memoryview(self.frame)[DATA_HEADER:]

    @property
    def cost(self) -> int:
        """The credit that the message uses, in bytes."""
        return len(self.frame) - DATA_HEADER + OVERHEAD


class Credit(NamedTuple):
    """Leave to send `amount` more bytes on a circuit."""

    circuit: int
    amount: int


class Unknown(NamedTuple):
    """A message of a type that this version does not know, and ignores."""

    type: str


FromClient = Register | Ping | Signal | Open | Accept | Close
FromRelay = Challenge | Welcome | Goodbye | Pong | Result | Signalled | Incoming | Opened | Closed


class _Head(msgspec.Struct):
    type: str


_ENCODER: Final = msgspec.json.Encoder()
_HEAD: Final = msgspec.json.Decoder(_Head)
_DECODERS: Final[dict[bool, msgspec.json.Decoder[Any]]] = {
    True: msgspec.json.Decoder(FromClient),
    False: msgspec.json.Decoder(FromRelay),
}
_TYPES: Final = {
    True: frozenset({"register", "ping", "signal", "open", "accept", "close"}),
    False: frozenset(
        {
            "challenge",
            "welcome",
            "goodbye",
            "pong",
            "result",
            "signalled",
            "incoming",
            "opened",
            "closed",
        }
    ),
}


def cost(nbytes: int) -> int:
    """The credit that a payload of `nbytes` bytes uses."""
    return nbytes + OVERHEAD


def encode(message: FromClient | FromRelay) -> bytes:
    """A control message as JSON, to be sent as a text message."""
    return _ENCODER.encode(message)


def encode_data(circuit: int, payload: bytes | memoryview) -> bytes:
    """A message on a circuit. Joined here: what comes below copies each fragment anyway."""
    return b"".join((_DATA.pack(DATA, circuit), payload))


def encode_credit(circuit: int, amount: int) -> bytes:
    """Leave to send `amount` more bytes; at most 2^32 - 1."""
    return _CREDIT.pack(CREDIT, circuit, amount)


def encode_body(body: dict[str, Any]) -> msgspec.Raw:
    """The body of a signal.

    Raises:
        RelayMessageError: If it is no JSON object, or over `MAX_SIGNAL`.
    """
    try:
        raw = _ENCODER.encode(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RelayMessageError(f"A signal must be a JSON object: {error}") from error
    if not isinstance(body, dict) or len(raw) > MAX_SIGNAL:
        raise RelayMessageError(
            f"A signal is a JSON object of at most {MAX_SIGNAL} bytes; this one has {len(raw)}."
        )
    return msgspec.Raw(raw)


def decode_body(body: msgspec.Raw) -> dict[str, Any]:
    """The JSON object in a signal.

    Raises:
        RelayMessageError: If it is none.
    """
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RelayMessageError(f"The body of a signal is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RelayMessageError("The body of a signal is no JSON object.")
    return value


def decode_from_client(frame: bytes) -> FromClient | Data | Credit | Unknown:
    """What a client sent.

    Raises:
        RelayMessageError: If the bytes are no message of this protocol.
    """
    return _decode(frame, client=True)  # type: ignore[no-any-return]  # by the decoder's type


def decode_from_relay(frame: bytes) -> FromRelay | Data | Credit | Unknown:
    """What a relay sent.

    Raises:
        RelayMessageError: If the bytes are no message of this protocol.
    """
    return _decode(frame, client=False)  # type: ignore[no-any-return]  # by the decoder's type


def _decode(frame: bytes, *, client: bool) -> Any:
    if not frame:
        raise RelayMessageError("An empty message.")
    kind = frame[0]
    if kind == DATA:
        if len(frame) < DATA_HEADER:
            raise RelayMessageError("A circuit's message is shorter than its header.")
        return Data(_DATA.unpack_from(frame)[1], frame)
    if kind == CREDIT:
        if len(frame) != _CREDIT.size:
            raise RelayMessageError(f"A credit of {len(frame)} bytes instead of {_CREDIT.size}.")
        _, circuit, amount = _CREDIT.unpack(frame)
        return Credit(circuit, amount)
    if kind != _BRACE:
        return Unknown(f"0x{kind:02x}")
    if len(frame) > MAX_CONTROL:
        raise RelayMessageError(
            f"A control message of {len(frame)} bytes; {MAX_CONTROL} are allowed."
        )
    try:
        return _DECODERS[client].decode(frame)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        return _unknown(frame, client=client, error=error)


def _unknown(frame: bytes, *, client: bool, error: Exception) -> Unknown:
    try:
        kind = _HEAD.decode(frame).type
    except (ValueError, RecursionError, msgspec.MsgspecError) as nested:
        raise RelayMessageError(f"A malformed control message: {nested}") from nested
    if kind in _TYPES[client]:
        raise RelayMessageError(f"A malformed {kind!r} message: {error}") from error
    return Unknown(kind[:64])


def registration(nonce: bytes, uuid: UUID, public_key: bytes, audience: str) -> bytes:
    """What a client signs: it is bound to one connection, one identity and one relay.

    Args:
        nonce: The relay's challenge.
        uuid: The client's id.
        public_key: Its public key, 32 bytes.
        audience: The relay's host and port as the client dialled them; a relay that knows its
            names refuses another one, so that nobody can pass a signature on.
    """
    return b"".join((_REGISTER_LABEL, nonce, uuid.bytes, public_key, audience.encode()))


def secret_claim(nonce: bytes, uuid: UUID, audience: str) -> bytes:
    """What the key of a shared secret is applied to (HMAC-SHA256)."""
    return b"".join((_SECRET_LABEL, nonce, uuid.bytes, audience.encode()))
