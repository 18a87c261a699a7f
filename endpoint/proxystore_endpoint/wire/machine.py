"""The half of a connection that reacts: to bytes, to time, and to its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import (
    ConnectionEndedError,
    ConnectionRefusedByPeerError,
    FlowError,
    FrameError,
    HeartbeatError,
    MessageError,
    MisuseError,
    ProtocolError,
    SequenceError,
    VersionError,
    WireError,
)
from proxystore_endpoint.limits import DEFAULT, Limits
from proxystore_endpoint.wire import frames
from proxystore_endpoint.wire.events import (
    LOST,
    AuthReceived,
    BodyReceived,
    Ended,
    Established,
    Event,
    GoingAway,
    HelloReceived,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.inbox import Frame, Inbox
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
    encode,
)
from proxystore_endpoint.wire.outbox import BytesLike, Outbox
from proxystore_endpoint.wire.states import FIRST, RECEIVED, Role, State
from proxystore_endpoint.wire.streams import Stream, Streams

_GRACEFUL: Final = frozenset({GoAwayReason.SHUTDOWN, GoAwayReason.IDLE, GoAwayReason.REPLACED})
_REFUSALS: Final = frozenset({GoAwayReason.REFUSED, GoAwayReason.VERSION, GoAwayReason.BUSY})


class Machine:
    """See `Connection`."""

    def __init__(self, role: Role, *, limits: Limits = DEFAULT, now: float) -> None:
        self.role: Final = role
        """Which side this is."""
        self.limits: Final = limits
        """What we allow."""
        self.rtt: float | None = None
        """Round trip in seconds, smoothed, once a ping was answered."""
        self.version = 0
        """Version that the connection speaks, 0 before it is agreed on."""
        self.error: WireError | None = None
        """Why the connection ended."""
        self.paused = False
        """Whether `received(0, now)` has more to say before `buffer` may be called."""
        self.bytes_received = 0
        """Bytes of bodies received, in whole frames."""
        self.bytes_sent = 0
        """Bytes of bodies handed out to be sent."""
        self._state = FIRST[role]
        self._allowed = RECEIVED[self._state]
        self._max_body = fixed.MAX_HANDSHAKE_BODY
        self._inbox = Inbox()
        self._outbox = Outbox(min(limits.data_frame, fixed.MAX_DATA))
        self._streams = Streams(odd=role is Role.CLIENT)
        self._body: Stream | None = None  # whose DATA comes in
        self._events: list[Event] = []
        self._peer_max_streams = 0
        self._leaving: tuple[str, str] | None = None  # reason and detail of our GOAWAY
        self._left: tuple[str, str] | None = None  # the same of theirs
        self._now = now
        self._heard = now
        self._handshake_by = now + limits.handshake_timeout
        self._next_ping = math.inf
        self._ping: tuple[int, float] | None = None  # number and time of the ping under way
        self._pings = 0

    # What a user may look at.

    @property
    def ready(self) -> bool:
        """Whether requests may be made."""
        return self._state is State.OPEN and self._leaving is None and self._left is None

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        return self._state is State.ENDED

    @property
    def bulk(self) -> bool:
        """Whether `buffer` is the rest of a DATA frame's body, and all of it is sure to come.

        Then it may be filled by several reads before one call of `received`, which saves calls.
        Tell it at least every second, so that the other side does not seem dead.
        """
        return self._inbox.direct

    @property
    def filling(self) -> int | None:
        """The stream whose sink `buffer` gave out and `received` was not told of yet.

        Whoever reads may still write there, even when the stream has failed or was cancelled:
        do not let go of the sink's memory before.
        """
        body = self._body
        return body.number if body is not None and self._inbox.filling else None

    @property
    def outgoing(self) -> int:
        """How many requests of ours are under way."""
        return self._streams.ours

    @property
    def incoming(self) -> int:
        """How many requests of the other side are under way."""
        return self._streams.theirs

    # Bytes.

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
            self._end(ConnectionEndedError(f"{text}{_because(reason, detail)}.", reason=reason))
        return self._take_events()

    def to_send(self, max_bytes: int | None = None) -> list[BytesLike]:
        """Take what is to be sent now, in order: control frames joined, bodies as they are.

        Bodies take turns frame by frame. It is empty when nothing is to be sent or all wait
        for credit.

        Args:
            max_bytes: Stop soon after so many bytes; there may be more (call again). What is
                taken at once holds up what comes later, so take about what one write takes.
        """
        return self._outbox.take(max_bytes, self._sent)

    @property
    def to_send_empty(self) -> bool:
        """Whether `to_send` would give nothing now."""
        return self._outbox.empty

    # Time.

    def next_deadline(self) -> float:
        """When `tick` must be called at the latest (infinity when the connection is over)."""
        if self._events:
            return self._now
        if self._state is State.ENDED:
            return math.inf
        if self._state is not State.OPEN:
            return self._handshake_by
        due = min(self._next_ping, self._heard + self.limits.dead_after)
        return min(due, self._streams.next_deadline())

    def tick(self, now: float) -> list[Event]:
        """Do what is due: pings, a dead peer, passed deadlines."""
        if now - self.next_deadline() > self.limits.dead_after / 4:
            # This side slept, so the other may have been heard: it gets another chance.
            self._heard = max(self._heard, now - self.limits.dead_after / 2)
        self._now = now
        if self._state is State.OPEN:
            for stream in self._streams.expired(now):
                self._expire(stream)
            if now - self._heard >= self.limits.dead_after:
                silence = f"Nothing was heard of the other side for {now - self._heard:.0f} s."
                self._goodbye(GoAwayReason.TIMEOUT, silence)
                self._end(HeartbeatError(silence, reason=GoAwayReason.TIMEOUT))
            elif now >= self._next_ping:
                self._send_ping(now)
            self._settle()
        elif self._state is not State.ENDED and now >= self._handshake_by:
            text = f"The handshake took over {self.limits.handshake_timeout:g} s."
            self._goodbye(GoAwayReason.TIMEOUT, text)
            self._end(HeartbeatError(text, reason=GoAwayReason.TIMEOUT))
        return self._take_events()

    # The end.

    def goaway(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> None:
        """Take no more requests and make none.

        Requests under way are finished; when there are none (left), or before the connection
        is ready, it ends: `ended` turns true, and an `Ended` event comes with the next `tick` or
        `received`.
        """
        if self._state is State.ENDED or self._leaving is not None:
            return
        self._leaving = (reason, detail)
        self._goodbye(reason, detail)
        if self._state is not State.OPEN or reason not in _GRACEFUL:
            self._end(
                ConnectionEndedError(
                    f"This side ended the connection{_because(reason, detail)}.", reason=reason
                )
            )
        self._settle()

    def close(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> list[Event]:
        """End the connection at once: what is under way fails, a GOAWAY is left to be sent."""
        if self._state is not State.ENDED:
            if self._leaving is None:
                self._goodbye(reason, detail)
            self._end(
                ConnectionEndedError(
                    f"This side closed the connection{_because(reason, detail)}.", reason=reason
                )
            )
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
        stream.granted_at = now
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
        stream.granted_at = now
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
        to_come = stream.expected - stream.taken - length
        if stream.room > stream.window // 2 or to_come <= stream.room:
            return
        # A window that is used up within two round trips is what holds the sender back.
        if self.rtt is not None and now - stream.granted_at < 2 * self.rtt:
            stream.window = min(2 * stream.window, max(self.limits.max_window, stream.window))
        stream.granted_at = now
        more = min(stream.window, to_come) - stream.room
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
            self._events.append(RequestFailed(stream.number, end.status, end.detail, stream.taken))
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
            self._events.append(RequestCancelled(stream.number, cancel.status, stream.taken))
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
        return False

    def _on_goaway(self, frame: Frame, now: float) -> bool:
        goaway = decode(GoAway, frame.body)
        reason, detail = goaway.reason, goaway.detail
        self._left = (reason, detail)
        self._events.append(GoingAway(reason, detail))
        if self._state is State.OPEN and reason in _GRACEFUL:
            return False
        text = f"The other side ended the connection{_because(reason, detail)}."
        if reason in _REFUSALS:
            self._end(ConnectionRefusedByPeerError(text, reason=reason))
        else:
            self._end(ConnectionEndedError(text, reason=reason))
        return False

    # What follows.

    def _enter(self, state: State) -> None:
        self._state = state
        self._allowed = RECEIVED[state]
        if state is State.OPEN:
            self._max_body = fixed.MAX_BODY
            self._next_ping = self._now  # at once: the round trip is of use

    def _check_reading(self) -> None:
        if self._outbox.waiting > self.limits.max_queued:
            raise FlowError("The other side asks and does not read the answers.")

    def _answer(self, stream: Stream, response: Response) -> None:
        if len(response.detail) > fixed.MAX_TEXT:
            detail = response.detail[: fixed.MAX_TEXT]
            response = msgspec.structs.replace(response, detail=detail)
        body = encode(response)
        stream.answered = True
        self._outbox.control(frames.RESPONSE, stream.number, body)
        if not response.nbytes:
            stream.sending = False
            stream.drained = True  # whatever still comes of a body is not wanted
            self._forget(stream)
            self._check_over(stream)

    def _forget(self, stream: Stream) -> None:
        if self._body is stream:
            self._inbox.forget()

    def _stop_asking(self, stream: Stream, status: str) -> None:
        self._outbox.drop(stream)
        self._outbox.control(frames.CANCEL, stream.number, encode(Cancel(status=status)))

    def _stop_answering(self, stream: Stream, status: str, detail: str = "") -> None:
        self._outbox.drop(stream)
        end = End(status=status, detail=detail[: fixed.MAX_TEXT])
        self._outbox.control(frames.END, stream.number, encode(end))

    def _fail(self, stream: Stream, status: str, detail: str) -> None:
        self._events.append(RequestFailed(stream.number, status, detail, self._progress(stream)))
        self._drain(stream, status)

    def _drain(self, stream: Stream, status: str) -> None:
        """Give up a request of ours: it stays until the other side says that it stopped."""
        self._stop_asking(stream, status)
        stream.drained = True
        stream.deadline = math.inf
        self._forget(stream)
        self._check_over(stream)

    def _expire(self, stream: Stream) -> None:
        if stream.drained:
            return
        if stream.ours:
            self._fail(stream, Status.TIMEOUT, "The deadline passed.")
            return
        received = self._progress(stream)
        if stream.answered:
            self._stop_answering(stream, Status.TIMEOUT, "The deadline passed.")
            stream.drained = True
            self._forget(stream)
            self._check_over(stream)
        else:
            text = "The deadline passed."
            self._answer(stream, Response(status=Status.TIMEOUT, detail=text))
        self._events.append(RequestCancelled(stream.number, Status.TIMEOUT, received))

    def _progress(self, stream: Stream) -> int:
        if stream.drained or self._body is not stream:
            return stream.taken
        return stream.taken + self._inbox.filled

    def _check_over(self, stream: Stream) -> None:
        if not stream.receiving and not stream.sending:
            self._streams.remove(stream)

    def _sent(self, stream: Stream) -> None:
        stream.sending = False
        self._check_over(stream)
        self._settle()

    def _settle(self) -> None:
        """End a connection that a GOAWAY stopped, once nothing is under way."""
        if self._left is None and self._leaving is None:
            return
        if self._state is not State.OPEN or len(self._streams):
            return
        if self._left is not None:
            text = f"The other side ended the connection{_because(*self._left)}."
            self._end(ConnectionEndedError(text, reason=self._left[0]))
        elif self._leaving is not None:
            text = f"This side ended the connection{_because(*self._leaving)}."
            self._end(ConnectionEndedError(text, reason=self._leaving[0]))

    def _send_ping(self, now: float) -> None:
        self._next_ping = now + self.limits.ping_interval
        if self._ping is None:
            self._pings += 1
            self._ping = (self._pings, now)
            self._outbox.control(frames.PING, 0, frames.PING_BODY.pack(self._pings))

    def _goodbye(self, reason: str, detail: str) -> None:
        goaway = GoAway(reason=reason[:32], detail=detail[: fixed.MAX_TEXT])
        self._outbox.control(frames.GOAWAY, 0, encode(goaway))

    def _breach(self, error: ProtocolError) -> None:
        self._outbox.clear()
        version = isinstance(error, VersionError)
        reason = GoAwayReason.VERSION if version else GoAwayReason.PROTOCOL
        self._goodbye(reason, str(error))
        self._end(error)

    def _end(self, error: WireError) -> None:
        self.error = error
        detail = str(error)
        for stream in self._streams:
            if not stream.drained:
                received = self._progress(stream)
                self._events.append(
                    RequestFailed(stream.number, LOST, detail, received)
                    if stream.ours
                    else RequestCancelled(stream.number, LOST, received)
                )
            self._outbox.drop(stream)
            self._forget(stream)
            self._streams.remove(stream)
        self._enter(State.ENDED)
        self.paused = False
        self._events.append(Ended(error))

    def _take_events(self) -> list[Event]:
        events = self._events
        if events:
            self._events = []
            return events
        return []


def ended_error(machine: Machine) -> ConnectionEndedError:
    """What to raise when an ended connection is used."""
    reason = getattr(machine.error, "reason", GoAwayReason.PROTOCOL)
    return ConnectionEndedError(f"The connection is over: {machine.error}", reason=reason)


def _because(reason: str, detail: str) -> str:
    return f" ({reason}: {detail})" if detail else f" ({reason})"


_HANDLERS: Final[dict[int, Callable[[Machine, Frame, float], bool]]] = {
    frames.HELLO: Machine._on_hello,
    frames.AUTH: Machine._on_auth,
    frames.READY: Machine._on_ready,
    frames.REQUEST: Machine._on_request,
    frames.RESPONSE: Machine._on_response,
    frames.DATA: Machine._on_data,
    frames.END: Machine._on_end,
    frames.CREDIT: Machine._on_credit,
    frames.CANCEL: Machine._on_cancel,
    frames.PING: Machine._on_ping,
    frames.PONG: Machine._on_pong,
    frames.GOAWAY: Machine._on_goaway,
}
"""What to do with a frame; true means that its events must be handled before what follows."""
