"""What a connection is and does by itself: its state, its time, its end, and what follows."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from proxystore_endpoint import limits as fixed
from proxystore_endpoint.exceptions import (
    ConnectionEndedError,
    FlowError,
    HeartbeatError,
    ProtocolError,
    VersionError,
    WireError,
)
from proxystore_endpoint.limits import DEFAULT, Limits
from proxystore_endpoint.wire import frames
from proxystore_endpoint.wire.events import (
    LOST,
    Ended,
    Event,
    RequestCancelled,
    RequestFailed,
)
from proxystore_endpoint.wire.inbox import Inbox
from proxystore_endpoint.wire.messages import (
    Cancel,
    End,
    GoAway,
    GoAwayReason,
    Response,
    Status,
    encode,
)
from proxystore_endpoint.wire.outbox import BytesLike, Outbox
from proxystore_endpoint.wire.states import FIRST, RECEIVED, Role, State
from proxystore_endpoint.wire.streams import Stream, Streams

GRACEFUL: Final = frozenset({GoAwayReason.SHUTDOWN, GoAwayReason.IDLE, GoAwayReason.REPLACED})
"""Reasons for which requests under way are still finished."""


class Machine:
    """See `Connection`."""

    def __init__(self, role: Role, *, limits: Limits = DEFAULT, now: float) -> None:
        self.role: Final = role
        """Which side this is."""
        self.limits: Final = limits
        """What we allow."""
        self.rtt: float | None = None
        """Round trip in seconds, smoothed, once a ping was answered."""
        self.least_rtt = math.inf
        """Shortest round trip in seconds that was seen; whoever timed the handshake may set it."""
        self.version = 0
        """Version that the connection speaks, 0 before it is agreed on."""
        self.error: WireError | None = None
        """Why the connection ended."""
        self.paused = False
        """Whether `received(0, now)` has more to say before `buffer` may be called."""
        self.bytes_received = 0
        """Bytes of bodies received, in whole frames."""
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
    def bytes_sent(self) -> int:
        """Bytes of bodies handed out to be sent."""
        return self._outbox.sent

    @property
    def outgoing(self) -> int:
        """How many requests of ours are under way."""
        return self._streams.ours

    @property
    def incoming(self) -> int:
        """How many requests of the other side are under way."""
        return self._streams.theirs

    # Bytes that go out.

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
        if self._state is not State.OPEN or reason not in GRACEFUL:
            self._end(
                ConnectionEndedError(
                    f"This side ended the connection{because(reason, detail)}.", reason=reason
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
                    f"This side closed the connection{because(reason, detail)}.", reason=reason
                )
            )
        return self._take_events()

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
        stream.sink = None
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
        if stream.sink is None:
            return 0
        return stream.taken + (self._inbox.filled if self._body is stream else 0)

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
            text = f"The other side ended the connection{because(*self._left)}."
            self._end(ConnectionEndedError(text, reason=self._left[0]))
        elif self._leaving is not None:
            text = f"This side ended the connection{because(*self._leaving)}."
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
        self._outbox.clear_control()
        version = isinstance(error, VersionError)
        reason = GoAwayReason.VERSION if version else GoAwayReason.PROTOCOL
        self._goodbye(reason, str(error))
        self._end(error)

    def _end(self, error: WireError) -> None:
        self.error = error
        detail = str(error)
        self._outbox.clear_bodies()
        for stream in self._streams:
            if not stream.drained:
                received = self._progress(stream)
                self._events.append(
                    RequestFailed(stream.number, LOST, detail, received)
                    if stream.ours
                    else RequestCancelled(stream.number, LOST, received)
                )
            stream.drop()
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


def because(reason: str, detail: str) -> str:
    """The reason of an end, for the text of an error."""
    return f" ({reason}: {detail})" if detail else f" ({reason})"
