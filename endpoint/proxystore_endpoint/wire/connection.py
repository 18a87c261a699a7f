"""One connection of the peer protocol as a state machine without I/O."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from proxystore_endpoint.exceptions import WireError
from proxystore_endpoint.limits import DEFAULT, Limits
from proxystore_endpoint.wire.events import Event
from proxystore_endpoint.wire.messages import (
    Auth,
    GoAwayReason,
    Hello,
    Ready,
    Request,
    Response,
    Status,
)

BytesLike: TypeAlias = bytes | bytearray | memoryview


class Role(Enum):
    """Which side of a connection this is."""

    CLIENT = "client"
    SERVER = "server"


class Connection:
    """One secure byte stream's worth of the peer protocol.

    It does no I/O and has no clock: bytes go in through `buffer` and `received`, come out of
    `to_send`, and the time (of `time.monotonic`, in seconds) is passed in. Not thread-safe: hold
    one lock for all calls. The memory that `buffer` gave may be filled without the lock.

    Reading, with any byte stream::

        view = connection.buffer()
        n = recv_into(view)                     # or several times, see `bulk`
        events = connection.received(n, now)    # n = 0 is the end: connection.eof(now)
        while handle(events) and connection.paused:
            events = connection.received(0, now)
        for part in connection.to_send():
            sendall(part)

    After the handshake (server `send_hello`, client `send_auth`, server `send_ready`) both sides
    may ask and answer. Lengths of bodies are announced, a body goes straight into its sink, and
    a stream is over when the answer and its body are complete.

    Nothing that the other side sends makes a method raise: a breach of the rules gives an
    `Ended` event with a `ProtocolError` and leaves a GOAWAY to be sent.

    Args:
        role: `Role.CLIENT` for the side that connected.
        limits: What we allow and how long we wait.
        now: The time.
    """

    def __init__(self, role: Role, *, limits: Limits = DEFAULT, now: float) -> None:
        raise NotImplementedError

    # What a user may look at.

    role: Role
    """Which side this is."""
    limits: Limits
    """What we allow."""
    rtt: float | None
    """Round trip in seconds, smoothed, once a ping was answered."""
    version: int
    """Version that the connection speaks, 0 before it is agreed on."""
    error: WireError | None
    """Why the connection ended."""
    paused: bool
    """Whether `received(0, now)` has more to say before `buffer` may be called."""
    bytes_received: int
    """Bytes of bodies received."""
    bytes_sent: int
    """Bytes of bodies handed out to be sent."""

    @property
    def ready(self) -> bool:
        """Whether requests may be made."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        raise NotImplementedError

    @property
    def bulk(self) -> bool:
        """Whether `buffer` is the rest of a DATA frame's body, and all of it is sure to come.

        Then it may be filled by several reads before one call of `received`, which saves calls.
        """
        raise NotImplementedError

    @property
    def outgoing(self) -> int:
        """How many requests of ours are under way."""
        raise NotImplementedError

    @property
    def incoming(self) -> int:
        """How many requests of the other side are under way."""
        raise NotImplementedError

    # The handshake.

    def send_hello(self, hello: Hello) -> None:
        """Server: say hello. The first thing to send."""
        raise NotImplementedError

    def send_auth(self, auth: Auth) -> None:
        """Client: prove who we are, after `HelloReceived`."""
        raise NotImplementedError

    def send_ready(self, ready: Ready) -> None:
        """Server: let the other side in, after `AuthReceived`; else call `goaway`."""
        raise NotImplementedError

    # Asking.

    def request(
        self,
        request: Request,
        *,
        now: float,
        timeout: float | None = None,
        body: BytesLike | None = None,
        sink: memoryview | None = None,
    ) -> int:
        """Ask the other side for something.

        Args:
            request: What. Its `deadline_ms` is set here from `timeout`.
            now: The time.
            timeout: Seconds until it fails with `RequestFailed(status='timeout')`.
            body: put: the object, or its first part; more follow with `data`.
            sink: get: where the body goes, when its size is known; else see `set_sink`.

        Returns:
            Number of the stream.

        Raises:
            ConnectionEndedError: The connection is over or going away.
            MisuseError: It is not ready yet, or has `max_streams` requests under way.
            MessageTooLargeError: The request is too large.
        """
        raise NotImplementedError

    def cancel(self, stream: int, status: str = Status.CANCELLED) -> int:
        """Give up a request of ours. Its sink is not written any more. No event follows.

        Returns:
            Bytes of the answer's body that are in the sink.
        """
        raise NotImplementedError

    # Bodies.

    def set_sink(self, stream: int, sink: memoryview) -> None:
        """Say where the body of a stream goes: writable bytes, exactly as many as announced.

        Without a sink when the body comes, its bytes are thrown away.

        Raises:
            StreamClosedError: The stream is over.
            MisuseError: The sink has another size, is read-only, or came too late.
        """
        raise NotImplementedError

    def data(self, stream: int, view: BytesLike) -> None:
        """Give the next part of a body, of any size; it must not change until it is sent.

        It is cut into frames and sent as credit allows, without a copy.

        Raises:
            StreamClosedError: The stream is over, or the other side wants no more.
            MisuseError: It is more than was announced.
        """
        raise NotImplementedError

    def sendable(self, stream: int) -> int:
        """Credit that is left on a stream beside what is queued (0 when it is over)."""
        raise NotImplementedError

    def unsent(self, stream: int) -> int:
        """Bytes given to `data` that `to_send` has not handed out yet (0 when it is over)."""
        raise NotImplementedError

    def progress(self, stream: int) -> int:
        """Bytes of a stream's body that are in its sink, from its start and without a gap.

        Bytes in memory of `buffer` count when `received` was told.

        Raises:
            StreamClosedError: The stream is over; see `RequestFailed.received`.
        """
        raise NotImplementedError

    # Answering.

    def respond(self, stream: int, response: Response, body: BytesLike | None = None) -> None:
        """Answer a request. A body of `response.nbytes` follows: `body`, then calls of `data`.

        Answered before a put's body is complete, the rest of it is thrown away.

        Raises:
            StreamClosedError: It was cancelled, its deadline passed, or the connection ended.
            MisuseError: It is answered already, or `body` is longer than announced.
            MessageTooLargeError: The response is too large.
        """
        raise NotImplementedError

    def abort(self, stream: int, status: str = Status.ERROR, detail: str = "") -> None:
        """Break off an answer whose body cannot be completed."""
        raise NotImplementedError

    # Bytes.

    def buffer(self) -> memoryview:
        """Where the next bytes from the other side go: never empty.

        Raises:
            MisuseError: Events are pending (`paused`).
            ConnectionEndedError: The connection is over.
        """
        raise NotImplementedError

    def received(self, n: int, now: float) -> list[Event]:
        """Tell that `n` bytes are in the memory that `buffer` gave.

        It may stop after an event that must be handled first and set `paused`: then call it
        again with `n` = 0 once the events are handled.
        """
        raise NotImplementedError

    def eof(self, now: float) -> list[Event]:
        """Tell that the other side's bytes ended, or that the transport failed."""
        raise NotImplementedError

    def to_send(self, max_bytes: int | None = None) -> list[BytesLike]:
        """Take what is to be sent now, in order: control frames joined, bodies as they are.

        Bodies take turns frame by frame. It is empty when nothing is to be sent or all wait
        for credit.

        Args:
            max_bytes: Stop soon after so many bytes; there may be more (call again).
        """
        raise NotImplementedError

    # Time.

    def next_deadline(self) -> float:
        """When `tick` must be called at the latest (infinity when the connection is over)."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Event]:
        """Do what is due: pings, a dead peer, passed deadlines."""
        raise NotImplementedError

    # The end.

    def goaway(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> None:
        """Take no more requests and make none.

        Requests under way are finished; when there are none (left), or before the connection
        is ready, it ends: `ended` turns true, and an `Ended` event comes with the next `tick` or
        `received`.
        """
        raise NotImplementedError

    def close(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> list[Event]:
        """End the connection at once: what is under way fails, a GOAWAY is left to be sent."""
        raise NotImplementedError
