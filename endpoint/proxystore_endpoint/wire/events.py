"""What a `Connection` tells its user."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from proxystore_endpoint.exceptions import WireError
from proxystore_endpoint.wire.messages import Auth, Hello, Ready, Request, Response

LOST: Final = "lost"
"""Status of what failed because its connection ended."""


class HelloReceived(msgspec.Struct, frozen=True):
    """The accepting side said hello: prove who you are with `Connection.send_auth`.

    Attributes:
        hello: What it said.
    """

    hello: Hello


class AuthReceived(msgspec.Struct, frozen=True):
    """The connecting side says who it is: check it, then `send_ready` or `goaway`.

    Attributes:
        auth: What it said; nothing of it is checked yet.
    """

    auth: Auth


class Established(msgspec.Struct, frozen=True):
    """The accepting side let us in; requests may go both ways.

    Attributes:
        ready: What it said.
    """

    ready: Ready


class RequestReceived(msgspec.Struct, frozen=True):
    """The other side asks for something: `respond`.

    When `request.nbytes` is not 0, a body of that size follows: give it memory with
    `set_sink`, or refuse it with a response, before the next call of `received`.

    Attributes:
        stream: Number of the stream.
        request: What is asked.
    """

    stream: int
    request: Request


class ResponseReceived(msgspec.Struct, frozen=True):
    """A request of ours is answered.

    When `response.nbytes` is not 0, a body of that size follows: give it memory with
    `set_sink`, or `cancel` it, before the next call of `received`. Otherwise the stream is over.

    Attributes:
        stream: Number of the stream.
        response: The answer.
    """

    stream: int
    response: Response


class BodyReceived(msgspec.Struct, frozen=True):
    """The whole body of a stream is in its sink. If it answers us, the stream is over.

    Attributes:
        stream: Number of the stream.
        nbytes: Size of the body.
    """

    stream: int
    nbytes: int


class RequestFailed(msgspec.Struct, frozen=True):
    """A request of ours will not be answered, or its body will not be completed.

    `Connection.progress` no longer knows the stream; what arrived is said here.

    Attributes:
        stream: Number of the stream.
        status: A `Status`: `timeout` when the deadline passed, what the other side said when it
            broke off, or `LOST` when the connection ended.
        detail: For people.
        received: Bytes of the body that are in the sink, from its start and without a gap.
    """

    stream: int
    status: str
    detail: str
    received: int


class RequestCancelled(msgspec.Struct, frozen=True):
    """Nobody waits for our answer any more; stop working on it. The stream is over.

    Attributes:
        stream: Number of the stream.
        status: A `Status`: `cancelled` or `timeout`, or `LOST` when the connection ended.
        received: Bytes of the request's body that are in the sink.
    """

    stream: int
    status: str
    received: int


class GoingAway(msgspec.Struct, frozen=True):
    """The other side takes no more requests; those it took on are still answered.

    Attributes:
        reason: A `GoAwayReason`.
        detail: For people.
    """

    reason: str
    detail: str


class Ended(msgspec.Struct, frozen=True):
    """The connection is over; the last event. Send what `to_send` still has, then close.

    All requests under way were reported as failed or cancelled before.

    Attributes:
        error: Why: a `ProtocolError` (the other side broke the rules) or a `ConnectionEndedError`.
    """

    error: WireError


Event: TypeAlias = (
    HelloReceived
    | AuthReceived
    | Established
    | RequestReceived
    | ResponseReceived
    | BodyReceived
    | RequestFailed
    | RequestCancelled
    | GoingAway
    | Ended
)
