"""The half of a connection that takes what comes in: bytes become frames, frames become events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import (
    ConnectionEndedError,
    ConnectionRefusedByPeerError,
    FlowError,
    FrameError,
    MessageError,
    MisuseError,
    ProtocolError,
    SequenceError,
)
from proxystore_endpoint.wire import frames
from proxystore_endpoint.wire.events import (
    AuthReceived,
    BodyReceived,
    Established,
    Event,
    GoingAway,
    HelloReceived,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.inbox import Frame
from proxystore_endpoint.wire.machine import GRACEFUL, Machine, because, ended_error
from proxystore_endpoint.wire.messages import (
    Auth,
    Cancel,
    End,
    GoAway,
    GoAwayReason,
    Hello,
    Ready,
    Request,
    Response,
    Status,
    decode,
)
from proxystore_endpoint.wire.states import State
from proxystore_endpoint.wire.streams import Stream

_REFUSALS: Final = frozenset({GoAwayReason.REFUSED, GoAwayReason.VERSION, GoAwayReason.BUSY})


class Incoming(Machine):
    """See `Connection`."""

    # Bytes that come in.

    def buffer(self) -> memoryview:
        """Where the next bytes from the other side go: never empty.

        Raises:
            MisuseError: Events are pending (`paused`).
            ConnectionEndedError: The connection is over.
        """
        if self._state is State.ENDED:
            raise ended_error(self)
        if self.paused:
            raise MisuseError("Handle the events, then call received(0, now) before buffer().")
        return self._inbox.buffer()

    def received(self, n: int, now: float) -> list[Event]:
        """Tell that `n` bytes are in the memory that `buffer` gave.

        It may stop after an event that must be handled first and set `paused`: then call it
        again with `n` = 0 once the events are handled.
        """
        inbox = self._inbox
        if n:
            inbox.add(n)
            self._now = self._heard = now
            if inbox.left and inbox.direct:
                return self._take_events() if self._events else []
        self.paused = False
        if self._state is not State.ENDED:
            try:
                self._parse(now)
            except ProtocolError as error:
                self._breach(error)
        return self._take_events()

    def eof(self, now: float) -> list[Event]:
        """Tell that the other side's bytes ended, or that the transport failed."""
        self._now = now
        if self._state is not State.ENDED:
            reason, detail = self._left or self._leaving or ("eof", "")
            text = "The other side closed the connection"
            if self._state is not State.OPEN:
                text += " during the handshake"
            self._end(ConnectionEndedError(f"{text}{because(reason, detail)}.", reason=reason))
        return self._take_events()

    # Frames that come in.

    def _parse(self, now: float) -> None:
        inbox = self._inbox
        while self._state is not State.ENDED:
            if inbox.left or self._body is not None:
                inbox.consume()
                if inbox.left:
                    return
                self._body_taken()
            frame = inbox.frame(self._max_body)
            if frame is None:
                return
            kind = frame.kind
            after = self._allowed.get(kind)
            if after is None:
                self._unexpected(frame)
                continue
            if (frame.stream != 0) is not (kind in frames.OF_STREAM):
                raise FrameError(f"A frame {frames.NAMES[kind]} has stream {frame.stream}.")
            if _HANDLERS[kind](self, frame, now) and not inbox.empty:
                self.paused = True
                return
            if after is not self._state and not self.ended:
                self._enter(after)
            self._settle()

    def _unexpected(self, frame: Frame) -> None:
        name = frames.NAMES.get(frame.kind)
        if name is not None:
            raise SequenceError(f"A frame {name} came while {self._state.value}.")
        if not frame.flags & frames.IGNORABLE:
            raise FrameError(f"A frame has the unknown type {frame.kind}.")

    def _on_hello(self, frame: Frame, now: float) -> bool:
        self._events.append(HelloReceived(decode(Hello, frame.body)))
        return False

    def _on_auth(self, frame: Frame, now: float) -> bool:
        auth = decode(Auth, frame.body)
        self.version = auth.version
        self._peer_max_streams = auth.max_streams
        self._events.append(AuthReceived(auth))
        return False

    def _on_ready(self, frame: Frame, now: float) -> bool:
        ready = decode(Ready, frame.body)
        self._peer_max_streams = ready.max_streams
        self._events.append(Established(ready))
        return False

    def _on_request(self, frame: Frame, now: float) -> bool:
        number = frame.stream
        if not self._streams.is_new(number):
            raise SequenceError(f"A REQUEST came on stream {number}, which it cannot open.")
        if self._left is not None:
            raise SequenceError("A REQUEST came after a GOAWAY.")
        if self._streams.theirs >= self.limits.max_streams:
            raise FlowError(f"More than {self.limits.max_streams} requests are under way.")
        self._check_reading()
        request = decode(Request, frame.body)
        stream = Stream(number, ours=False)
        stream.sending = True
        stream.expected = request.nbytes
        stream.receiving = request.nbytes > 0
        timeout = self.limits.max_request_timeout
        if request.deadline_ms:
            timeout = min(timeout, request.deadline_ms / 1000)
        stream.deadline = now + timeout
        self._streams.add(stream)
        if self._leaving is not None:
            self._answer(stream, Response(status=Status.REFUSED, detail="going away"))
            return False
        self._events.append(RequestReceived(number, request))
        return stream.receiving

    def _on_response(self, frame: Frame, now: float) -> bool:
        stream = self._streams.get(frame.stream)
        if stream is None or not stream.ours or stream.answered:
            raise SequenceError(f"A RESPONSE came on stream {frame.stream}, which awaits none.")
        response = decode(Response, frame.body)
        if 0 <= stream.wanted < response.nbytes:
            raise MessageError(
                f"{response.nbytes} bytes come where {stream.wanted} were asked for."
            )
        stream.answered = True
        stream.expected = response.nbytes
        stream.receiving = response.nbytes > 0
        fits = stream.sink is None or len(stream.sink) == response.nbytes
        if not stream.drained:
            if not fits and stream.receiving:
                text = f"{response.nbytes} bytes come where {len(stream.sink or b'')} have room."
                self._fail(stream, Status.ERROR, text)
                return False
            self._events.append(ResponseReceived(stream.number, response))
        if stream.sending:  # it wants no more of the body that we send
            self._stop_asking(stream, Status.CANCELLED)
        self._check_over(stream)
        return stream.receiving and stream.sink is None and not stream.drained

    def _on_data(self, frame: Frame, now: float) -> bool:
        stream = self._streams.get(frame.stream)
        length = frame.length
        if stream is None or not stream.receiving or not stream.expected:
            raise SequenceError(f"DATA came on stream {frame.stream}, which awaits none.")
        if length > stream.expected - stream.taken:
            raise FlowError(f"More than {stream.expected} bytes came on stream {frame.stream}.")
        if length > stream.room:
            raise FlowError(f"{length} bytes came with credit for {stream.room}.")
        stream.room -= length
        self._body = stream
        sink = stream.sink
        if sink is None or stream.drained:
            self._inbox.begin(length, None)
        else:
            self._inbox.begin(length, sink[stream.taken : stream.taken + length])
            self._grant(stream, length, now)
        return False

    def _grant(self, stream: Stream, length: int, now: float) -> None:
        if stream.taken + length - stream.round_start >= stream.window:
            # A window that is used up within two round trips is what holds the sender back (of
            # the first one nothing can be told: it comes in one go).
            elapsed = now - stream.round_at if stream.round_start else math.inf
            # The shortest counts: a ping behind a large body takes long, but not on the way.
            if self.rtt is not None and elapsed < 2 * min(self.rtt, self.least_rtt):
                stream.window = max(stream.window, min(2 * stream.window, self.limits.max_window))
            stream.round_start = stream.taken + length
            stream.round_at = now
        to_come = stream.expected - stream.taken - length
        if stream.room > stream.window // 2 or to_come <= stream.room:
            return
        more = min(stream.window - length, to_come) - stream.room  # this frame is on its way
        if more <= 0:
            return
        stream.room += more
        self._outbox.control(frames.CREDIT, stream.number, frames.CREDIT_BODY.pack(more))

    def _body_taken(self) -> None:
        stream, self._body = self._body, None
        if stream is None:
            return
        # What was thrown away counts too, so that both sides agree on what is to come.
        length = self._inbox.length
        stream.taken += length
        self.bytes_received += length
        if stream.taken < stream.expected or self._streams.get(stream.number) is not stream:
            return
        stream.receiving = False
        if not stream.drained and stream.sink is not None:
            self._events.append(BodyReceived(stream.number, stream.expected))
        stream.sink = None
        self._check_over(stream)
        self._settle()

    def _on_end(self, frame: Frame, now: float) -> bool:
        stream = self._streams.get(frame.stream)
        if stream is None or not stream.ours:
            raise SequenceError(f"An END came on stream {frame.stream}, which awaits none.")
        end = decode(End, frame.body)
        stream.receiving = False
        if stream.sending:
            self._stop_asking(stream, Status.CANCELLED)
        if not stream.drained:
            self._events.append(
                RequestFailed(stream.number, end.status, end.detail, self._progress(stream))
            )
        self._streams.remove(stream)
        return False

    def _on_cancel(self, frame: Frame, now: float) -> bool:
        stream = self._streams.get(frame.stream)
        if stream is None or stream.ours:
            if stream is None and self._streams.was_open(frame.stream):
                return False  # it crossed our answer
            raise SequenceError(f"A CANCEL came on stream {frame.stream}, which has no request.")
        cancel = decode(Cancel, frame.body)
        stream.receiving = False
        if stream.sending:
            self._events.append(
                RequestCancelled(stream.number, cancel.status, self._progress(stream))
            )
            self._stop_answering(stream, Status.CANCELLED)
        self._streams.remove(stream)
        return False

    def _on_credit(self, frame: Frame, now: float) -> bool:
        stream = self._streams.get(frame.stream)
        if frame.length != frames.CREDIT_BODY.size:
            raise FrameError(f"A frame CREDIT has {frame.length} bytes.")
        if stream is None:
            if self._streams.was_open(frame.stream):
                return False  # it crossed the end of the body
            raise SequenceError(f"CREDIT came on stream {frame.stream}, which was never open.")
        (more,) = frames.CREDIT_BODY.unpack(frame.body)
        if not more or stream.credit + more > fixed.MAX_WINDOW:
            raise FlowError(f"CREDIT of {more} bytes came on top of {stream.credit}.")
        self._outbox.credit(stream, more)
        return False

    def _on_ping(self, frame: Frame, now: float) -> bool:
        if frame.length != frames.PING_BODY.size:
            raise FrameError(f"A frame PING has {frame.length} bytes.")
        self._check_reading()
        self._outbox.control(frames.PONG, 0, bytes(frame.body))
        return False

    def _on_pong(self, frame: Frame, now: float) -> bool:
        ping, self._ping = self._ping, None
        if ping is None or frame.body != frames.PING_BODY.pack(ping[0]):
            raise SequenceError("A PONG came that answers no PING.")
        sample = max(now - ping[1], 0.0)
        self.rtt = sample if self.rtt is None else 0.8 * self.rtt + 0.2 * sample
        self.least_rtt = min(self.least_rtt, sample)
        return False

    def _on_goaway(self, frame: Frame, now: float) -> bool:
        goaway = decode(GoAway, frame.body)
        reason, detail = goaway.reason, goaway.detail
        self._left = (reason, detail)
        self._events.append(GoingAway(reason, detail))
        if self._state is State.OPEN and reason in GRACEFUL:
            return False
        text = f"The other side ended the connection{because(reason, detail)}."
        if reason in _REFUSALS:
            self._end(ConnectionRefusedByPeerError(text, reason=reason))
        else:
            self._end(ConnectionEndedError(text, reason=reason))
        return False


_HANDLERS: Final[dict[int, Callable[[Incoming, Frame, float], bool]]] = {
    frames.HELLO: Incoming._on_hello,
    frames.AUTH: Incoming._on_auth,
    frames.READY: Incoming._on_ready,
    frames.REQUEST: Incoming._on_request,
    frames.RESPONSE: Incoming._on_response,
    frames.DATA: Incoming._on_data,
    frames.END: Incoming._on_end,
    frames.CREDIT: Incoming._on_credit,
    frames.CANCEL: Incoming._on_cancel,
    frames.PING: Incoming._on_ping,
    frames.PONG: Incoming._on_pong,
    frames.GOAWAY: Incoming._on_goaway,
}
"""What to do with a frame; true means that its events must be handled before what follows."""
