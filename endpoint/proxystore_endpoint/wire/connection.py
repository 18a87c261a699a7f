"""One connection of the peer protocol as a state machine without I/O."""

from __future__ import annotations

import math

import msgspec

from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import MessageTooLargeError, MisuseError, StreamClosedError
from proxystore_endpoint.wire import frames
from proxystore_endpoint.wire.incoming import Incoming
from proxystore_endpoint.wire.machine import ended_error
from proxystore_endpoint.wire.messages import Auth, Body, Hello, Ready, Request, Response, Status
from proxystore_endpoint.wire.messages import encode as encode_body
from proxystore_endpoint.wire.outbox import BytesLike
from proxystore_endpoint.wire.states import SENT, Role, State
from proxystore_endpoint.wire.streams import Stream

__all__ = ["BytesLike", "Connection", "Role"]


class Connection(Incoming):
    """One secure byte stream's worth of the peer protocol.

    It does no I/O and has no clock: bytes go in through `buffer` and `received`, come out of
    `to_send`, and the time (of `time.monotonic`, in seconds) is passed in. Not thread-safe: hold
    one lock for all calls. The memory that `buffer` gave may be filled without the lock.

    Reading, with any byte stream::

        view = connection.buffer()
        n = recv_into(view)                     # or several times, see `bulk`
        handle(connection.received(n, now))     # n = 0 is the end: connection.eof(now)
        while connection.paused:
            handle(connection.received(0, now))
        for part in connection.to_send():
            sendall(part)

    After the handshake (server `send_hello`, client `send_auth`, server `send_ready`) both sides
    may ask and answer. Lengths of bodies are announced, a body goes straight into its sink, and
    a stream is over when the answer and its body are complete.

    Nothing that the other side sends makes a method raise: a breach of the rules gives an
    `Ended` event with a `ProtocolError` and leaves a GOAWAY to be sent. An event may be overtaken
    by a later one of the same list: what one does about its stream can then raise
    `StreamClosedError` or `ConnectionEndedError`.

    Args:
        role: `Role.CLIENT` for the side that connected.
        limits: What we allow and how long we wait.
        now: The time.
    """

    # The handshake.

    def send_hello(self, hello: Hello) -> None:
        """Server: say hello. The first thing to send.

        Raises:
            MisuseError: It is not the time for it.
        """
        self._shake(frames.HELLO, hello)

    def send_auth(self, auth: Auth) -> None:
        """Client: prove who we are, after `HelloReceived`. `max_streams` is set here.

        Raises:
            MisuseError: It is not the time for it.
        """
        auth = msgspec.structs.replace(auth, max_streams=self.limits.max_streams)
        self._shake(frames.AUTH, auth)
        self.version = auth.version

    def send_ready(self, ready: Ready) -> None:
        """Server: let the other side in, after `AuthReceived`; else call `goaway`.

        `max_streams` is set here.

        Raises:
            MisuseError: It is not the time for it.
        """
        self._shake(
            frames.READY, msgspec.structs.replace(ready, max_streams=self.limits.max_streams)
        )

    def _shake(self, kind: int, body: Body) -> None:
        if self._state is State.ENDED:
            raise ended_error(self)
        after = SENT[self._state].get(kind)
        if after is None:
            raise MisuseError(
                f"A frame {frames.NAMES[kind]} cannot be sent while {self._state.value}."
            )
        self._outbox.control(kind, 0, encode_body(body, fixed.MAX_HANDSHAKE_BODY))
        self._enter(after)

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
            timeout: Seconds until it fails with `RequestFailed(status='timeout')`; None stands
                for `limits.request_timeout`, and infinity for none.
            body: put: the object, or its first part; more follow with `data`.
            sink: get: where the body goes, when its size is known; else see `set_sink`.

        Returns:
            Number of the stream.

        Raises:
            ConnectionEndedError: The connection is over or going away.
            MisuseError: It is not ready yet, or has as many requests under way as the other
                side allows (`can_request`).
            MessageTooLargeError: The request is too large.
        """
        if not self.can_request:
            self._refuse_request()
        if len(request.key) > fixed.MAX_KEY:
            raise MessageTooLargeError(
                f"A key of {len(request.key)} characters is over the limit of {fixed.MAX_KEY}.",
                nbytes=len(request.key),
                limit=fixed.MAX_KEY,
            )
        part = _part(body, request.nbytes)
        number = self._streams.next()
        stream = Stream(number, ours=True)
        timeout = self.limits.request_timeout if timeout is None else timeout
        if timeout != math.inf:
            stream.deadline = now + timeout
            request = msgspec.structs.replace(
                request, deadline_ms=max(1, min(int(timeout * 1000), 1 << 53))
            )
        raw = encode_body(request)
        stream.receiving = True
        stream.unsent = request.nbytes
        stream.sending = request.nbytes > 0
        stream.wanted = request.length
        if sink is not None:
            stream.sink = _writable(sink)
        self._outbox.control(frames.REQUEST, number, raw)
        self._streams.add(stream)
        if part:
            self.data(number, part)
        return number

    @property
    def can_request(self) -> bool:
        """Whether `request` may be called now."""
        return self.ready and self._streams.ours < self._peer_max_streams

    def _refuse_request(self) -> None:
        if self._state is State.ENDED or self._leaving is not None or self._left is not None:
            raise ended_error(self)
        if self._state is not State.OPEN:
            raise MisuseError(f"No request can be made while {self._state.value}.")
        raise MisuseError(
            f"{self._peer_max_streams} requests are under way, which is all that the other side "
            "allows: wait for one."
        )

    def cancel(self, stream: int, status: str = Status.CANCELLED) -> int:
        """Give up a request of ours. No event of it follows.

        See `filling` for when its sink is free.

        Returns:
            Bytes of the answer's body that are in the sink, 0 if the stream is over.
        """
        asked = self._streams.get(stream)
        if asked is None or not asked.ours or asked.drained:
            return 0
        received = self._progress(asked)
        self._drain(asked, status)
        return received

    # Bodies.

    def set_sink(self, stream: int, sink: memoryview) -> None:
        """Say where the body of a stream goes: writable bytes, exactly as many as announced.

        Without a sink when the body comes, its bytes are thrown away.

        Raises:
            StreamClosedError: The stream is over.
            MisuseError: The sink has another size, is read-only, or came too late.
        """
        known = self._open(stream)
        sink = _writable(sink)
        if known.taken or self._body is known:
            raise MisuseError(f"Bytes of stream {stream} came before its sink.")
        if (known.answered or not known.ours) and len(sink) != known.expected:
            raise MisuseError(
                f"The sink of stream {stream} has {len(sink)} bytes where {known.expected} come."
            )
        known.sink = sink

    def data(self, stream: int, view: BytesLike) -> None:
        """Give the next part of a body, of any size; it must not change until it is sent.

        It is cut into frames and sent as credit allows, without a copy.

        Raises:
            StreamClosedError: The stream is over, or the other side wants no more.
            MisuseError: It is more than was announced.
        """
        known = self._open(stream)
        part = memoryview(view).cast("B")
        if not known.sending:
            raise StreamClosedError(f"Nothing more is wanted on stream {stream}.", stream=stream)
        if len(part) > known.unsent:
            raise MisuseError(
                f"{len(part)} bytes were given for stream {stream} where {known.unsent} are left."
            )
        if part:
            known.unsent -= len(part)
            self._outbox.put(known, part)

    def sendable(self, stream: int) -> int:
        """Credit that is left on a stream beside what is queued (0 when it is over)."""
        known = self._streams.get(stream)
        if known is None or not known.sending:
            return 0
        return max(0, known.credit - known.queued)

    def unsent(self, stream: int) -> int:
        """Bytes given to `data` that `to_send` has not handed out yet (0 when it is over)."""
        known = self._streams.get(stream)
        return 0 if known is None else known.queued

    def progress(self, stream: int) -> int:
        """Bytes of a stream's body that are in its sink, from its start and without a gap.

        Raises:
            StreamClosedError: The stream is over; see `RequestFailed.received`.
        """
        return self._progress(self._open(stream))

    # Answering.

    def respond(self, stream: int, response: Response, body: BytesLike | None = None) -> None:
        """Answer a request. A body of `response.nbytes` follows: `body`, then calls of `data`.

        Answered before a put's body is complete, the rest of it is thrown away.

        Raises:
            StreamClosedError: It was cancelled, its deadline passed, or the connection ended.
            MisuseError: It is answered already, or `body` is longer than announced.
            MessageTooLargeError: The response is too large.
        """
        known = self._open(stream)
        if known.ours or known.answered:
            raise MisuseError(f"Stream {stream} awaits no response.")
        part = _part(body, response.nbytes)
        known.unsent = response.nbytes
        self._answer(known, response)
        if part:
            self.data(stream, part)
        self._settle()

    def abort(self, stream: int, status: str = Status.ERROR, detail: str = "") -> None:
        """Break off an answer whose body cannot be completed; nothing happens if it is over."""
        known = self._streams.get(stream)
        if known is None or known.ours or not known.sending:
            return
        if known.answered:
            self._stop_answering(known, status, detail)
            known.drained = True
            self._forget(known)
            self._check_over(known)
        else:
            self._answer(known, Response(status=status, detail=detail[: fixed.MAX_TEXT]))
        self._settle()

    def _open(self, number: int) -> Stream:
        stream = self._streams.get(number)
        if stream is None or stream.drained:
            raise StreamClosedError(f"Stream {number} is over.", stream=number)
        return stream


def _part(body: BytesLike | None, limit: int) -> memoryview | None:
    if body is None:
        return None
    part = memoryview(body).cast("B")
    if len(part) > limit:
        raise MisuseError(f"A body of {len(part)} bytes was given where {limit} were announced.")
    return part


def _writable(sink: memoryview) -> memoryview:
    sink = memoryview(sink).cast("B")
    if sink.readonly:
        raise MisuseError("A sink must be writable memory.")
    return sink
