"""A lane: one secure byte stream to a peer, and the thread that drives it.

The thread is the only one that reads, writes and turns the connection's events into
calls; it waits in `poll` and holds the lane's lock whenever it does anything else. (One
TLS session must never be used by two threads at once: OpenSSL forbids it, and newer
Pythons lock it, so that a blocked read would stop all writes.)
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from proxystore_endpoint.exceptions import ConnectionEndedError, WireError
from proxystore_endpoint.transports.waker import Waker
from proxystore_endpoint.wire.connection import BytesLike, Connection
from proxystore_endpoint.wire.events import (
    LOST,
    BodyReceived,
    Ended,
    Event,
    GoingAway,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from proxystore_endpoint.wire.messages import GoAwayReason, Request, Response, Status

_log = logging.getLogger(__name__)

_BATCH: Final = 512 * 1024  # sent before the lane looks at what came in
_RECORD: Final = 16 * 1024  # a TLS record: each costs a system call, so small parts share one
_FAREWELL: Final = 1.0  # seconds that a last message may take


class Call(Protocol):
    """A request of ours on a lane. All methods are called in the lane's thread, none may wait."""

    @property
    def request(self) -> Request:
        """What is asked."""
        ...

    @property
    def body(self) -> BytesLike | None:
        """put: the object."""
        ...

    @property
    def deadline(self) -> float:
        """When it fails, on the monotonic clock."""
        ...

    def answered(self, response: Response) -> memoryview | None:
        """Take the answer; give memory for its body, or None to give the request up."""
        ...

    def completed(self) -> None:
        """The answer and its body are complete."""
        ...

    def failed(self, status: str, detail: str, received: int) -> None:
        """There will be no (whole) answer; `received` bytes of its body came.

        `status` is a `Status`, or `lost` when the lane is gone.
        """
        ...


LARGE: Final = 256 * 1024
"""Bodies from this size on keep a lane busy."""


class LaneHandler(Protocol):
    """What answers on a lane. All methods are called in the lane's thread."""

    def request_received(self, lane: Lane, stream: int, request: Request) -> None:
        """Answer a request, with `lane.connection`."""
        ...

    def body_received(self, lane: Lane, stream: int) -> None:
        """The body of a request is in its sink."""
        ...

    def request_cancelled(self, lane: Lane, stream: int) -> None:
        """Nobody waits for the answer any more."""
        ...

    def answers_sent(self, lane: Lane) -> None:
        """All that the connection handed out was sent. Called only while `lane.holding`."""
        ...

    def lane_ended(self, lane: Lane, error: WireError | None) -> None:
        """The lane is over; its requests were failed and cancelled before."""
        ...


class Lane:
    """One secure byte stream to a peer.

    Args:
        sock: The stream, with both sides' proofs done.
        connection: Its state, ready for requests.
        peer: Who is at the other end.
        kind: Kind of its path.
        outbound: Whether this side connected.
        handler: Who answers.
        agent: What the other side calls its software.
        remote: Address of the other side, for people.
        thread: The thread that will call `run`; by default one that `start` starts.
    """

    def __init__(
        self,
        sock: ssl.SSLSocket,
        connection: Connection,
        *,
        peer: UUID,
        kind: str,
        outbound: bool,
        handler: LaneHandler,
        agent: str = "",
        remote: str = "",
        thread: threading.Thread | None = None,
    ) -> None:
        self.connection: Final = connection
        self.peer: Final = peer
        self.kind: Final = kind
        self.outbound: Final = outbound
        self.agent: Final = agent
        self.remote: Final = remote
        self.going_away = False
        self.used = time.monotonic()
        self.holding = False  # whether the handler waits for `answers_sent`
        self.pending = 0  # requests of ours, given and not yet over
        self._large: dict[int, bool] = {}  # streams with large bodies; True: we send it
        self._sock = sock
        self._handler = handler
        self._calls: dict[int, Call] = {}
        self._finished: deque[tuple[Call, str, str, int]] = deque()
        self._waiting: deque[Call] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._parts: deque[BytesLike] = deque()
        self._lock = threading.Lock()
        self._gate = threading.Lock()
        self._over = False
        self._want_write = False
        self._wake_at = 0.0
        self._waker = Waker()
        self._thread = thread or threading.Thread(target=self.run, name=f"lane-{kind}", daemon=True)

    def __repr__(self) -> str:
        way = "to" if self.outbound else "from"
        return f"<{self.kind} lane {way} {self.peer} at {self.remote or '?'}>"

    @property
    def over(self) -> bool:
        """Whether the lane takes no more requests."""
        return self._over or self.going_away

    @property
    def rtt(self) -> float | None:
        """Shortest round trip in seconds that was seen."""
        least = self.connection.least_rtt
        return None if least == math.inf else least

    @property
    def busy(self) -> bool:
        """Whether anything is under way, either way."""
        return self.pending > 0 or self.connection.incoming > 0

    @property
    def bulk(self) -> bool:
        """Whether a large body is under way, either way."""
        for stream, ours in tuple(self._large.items()):
            if ours and not self.connection.unsent(stream):
                self._large.pop(stream, None)
        return bool(self._large)

    def answers_large(self, stream: int) -> None:
        """Note that the answer on a stream is large."""
        self._large[stream] = True

    def start(self) -> None:
        """Start the thread that drives the lane; or call `run` in one that is there."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread."""
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)

    # From any thread.

    def submit(self, call: Call) -> None:
        """Make a request. What becomes of it, the call is told."""
        if not self._over and self._lock.acquire(blocking=False):
            # The thread waits for something to do: what it would do first is done here.
            try:
                if not self._over and not self._commands:
                    self.pending += 1
                    self._begin(call)
                    if not self._flush_here() or self.connection.next_deadline() < self._wake_at:
                        self._waker.wake()
                    return
            finally:
                self._lock.release()
                if self._finished:
                    self._waker.wake()
        if not self.post(lambda: self._accept(call)):
            call.failed(LOST, "the connection is over", 0)

    def _flush_here(self) -> bool:
        try:
            while self._flush():
                pass
        except OSError:
            return False  # the lane's thread will find the same
        return not self._parts

    def cancel(self, call: Call) -> None:
        """Give a request up. It is told so by `failed` in the lane's thread."""
        self.post(lambda: self._cancel(call))

    def post(self, command: Callable[[], None]) -> bool:
        """Have the lane's thread call something; tell whether it will."""
        with self._gate:
            if self._over:
                return False
            self._commands.append(command)
        self._waker.wake()
        return True

    def goaway(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> None:
        """Take no more requests, and close when those under way are over."""
        self.going_away = True
        self.post(lambda: self.connection.goaway(reason, detail))

    def close(self, reason: str = GoAwayReason.SHUTDOWN, detail: str = "") -> None:
        """Close at once; all requests under way fail."""
        self.going_away = True
        self.post(lambda: self._handle(self.connection.close(reason, detail)))

    def kill(self) -> None:
        """Cut the stream; what is under way fails."""
        with contextlib.suppress(OSError):  # it may be closed already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    # In the lane's thread.

    def run(self) -> None:
        """Drive the lane until it is over."""
        error: WireError | None = None
        self._lock.acquire()
        try:
            self._sock.setblocking(False)
            self._drive()
        except (OSError, WireError) as problem:
            _log.debug("%r ended: %s", self, problem)
        except Exception:  # noqa: BLE001  # a fault of ours must end one lane, not the process
            _log.exception("%r ended by a fault", self)
        finally:
            error = self._end()
            self._lock.release()
            self._tell()
            self._handler.lane_ended(self, error)

    def _drive(self) -> None:
        connection = self._connection_poll()
        while True:
            now = time.monotonic()
            self._run_commands()
            while self._waiting and connection.can_request:
                self._begin(self._waiting.popleft())
            if now >= connection.next_deadline():
                self._handle(connection.tick(now))
            more = not connection.ended and self._read(now)
            more = self._flush_safely() or more
            if connection.ended:
                self._handle(connection.tick(time.monotonic()))  # a goaway that is done
                self._say_farewell()
                return
            if not more and not self._commands:
                self._wait(connection.next_deadline())
            elif self._finished:
                self._tell()

    def _connection_poll(self) -> Connection:
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)
        self._poll.register(self._waker.fileno(), select.POLLIN)
        self._polled = select.POLLIN
        return self.connection

    def _wait(self, deadline: float) -> None:
        flags = select.POLLIN | (select.POLLOUT if self._want_write else 0)
        if flags != self._polled:
            self._poll.modify(self._sock.fileno(), flags)
            self._polled = flags
        self._wake_at = deadline
        pause = max(0.0, min(deadline - time.monotonic(), 60.0))
        self._lock.release()
        try:
            self._tell()
            found = self._poll.poll(pause * 1000 + 1)
        finally:
            self._lock.acquire()
        if any(descriptor == self._waker.fileno() for descriptor, _ in found):
            self._waker.clear()

    def _run_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _read(self, now: float) -> bool:
        """Read once; tell whether there may be more."""
        connection, sock = self.connection, self._sock
        view, count, more = connection.buffer(), 0, True
        size = len(view) if connection.bulk else 0
        try:
            while True:
                read = sock.recv_into(view[count:] if count else view)
                if not read:
                    raise ConnectionResetError("the other side closed the connection")
                count += read
                if count >= size:
                    # What TLS holds back must be asked for; what the socket holds, poll tells.
                    more = size > 0 or count == len(view) or sock.pending() > 0
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            more = False
        except OSError:
            if count:  # what came before the cut counts
                self._received(count, now)
            self._handle(connection.eof(now))
            return False
        if count:
            self._received(count, now)
        return more

    def _received(self, count: int, now: float) -> None:
        connection = self.connection
        self._handle(connection.received(count, now))
        while connection.paused and not connection.ended:
            self._handle(connection.received(0, now))

    def _flush_safely(self) -> bool:
        """Send what there is; tell whether there may be more that can be sent now."""
        try:
            return self._flush()
        except OSError:
            self._want_write = False
            self._parts.clear()
            if not self.connection.ended:
                while self._read(time.monotonic()):  # why, the other side may have said
                    pass
                if not self.connection.ended:
                    self._handle(self.connection.eof(time.monotonic()))
            return False

    def _flush(self) -> bool:
        parts, sock = self._parts, self._sock
        if not parts:
            if self.holding:
                self._handler.answers_sent(self)
            parts.extend(_joined(self.connection.to_send(_BATCH)))
            if not parts:
                return False
        self._want_write = False
        while parts:
            part = parts[0]
            try:
                sent = sock.send(part)
            except ssl.SSLWantWriteError:
                self._want_write = True
                return False
            except ssl.SSLWantReadError:
                return False
            if sent == len(part):
                parts.popleft()
            else:
                parts[0] = memoryview(part)[sent:]
        return True

    def _say_farewell(self) -> None:
        deadline = time.monotonic() + _FAREWELL
        while time.monotonic() < deadline and (self._flush_safely() or self._want_write):
            if self._want_write:
                self._wait(min(deadline, time.monotonic() + 0.05))
        with contextlib.suppress(OSError):  # the other side may have closed first
            socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def _end(self) -> WireError | None:
        connection = self.connection
        if not connection.ended:
            self._handle(connection.eof(time.monotonic()))
        with self._gate:
            self._over = True
        self._run_commands()
        for call in (*self._calls.values(), *self._waiting):
            self._finish(call, LOST, str(connection.error or "the connection is over"))
        self._calls.clear()
        self._waiting.clear()
        self._parts.clear()
        self._sock.close()
        self._waker.close()
        return connection.error

    # Events.

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived):
                self._answered(event)
            elif isinstance(event, BodyReceived):
                self._large.pop(event.stream, None)
                if call := self._calls.pop(event.stream, None):
                    self._finish(call)
                else:
                    self._guard(event.stream, self._handler.body_received, event.stream)
            elif isinstance(event, RequestReceived):
                self.used = time.monotonic()
                self._guard(
                    event.stream, self._handler.request_received, event.stream, event.request
                )
            elif isinstance(event, RequestFailed):
                self._large.pop(event.stream, None)
                if call := self._calls.pop(event.stream, None):
                    self._finish(call, event.status, event.detail, event.received)
            elif isinstance(event, RequestCancelled):
                self._large.pop(event.stream, None)
                self._handler.request_cancelled(self, event.stream)
            elif isinstance(event, (GoingAway, Ended)):
                self.going_away = True

    def _answered(self, event: ResponseReceived) -> None:
        call = self._calls.get(event.stream)
        if call is None:
            return
        try:
            sink = call.answered(event.response)
        except Exception as error:  # noqa: BLE001  # a caller's memory may be anything
            _log.debug("%r: no memory for an answer", self, exc_info=True)
            self._give_up(event.stream, str(error))
            return
        if event.response.nbytes == 0:
            del self._calls[event.stream]
            self._finish(call)
        elif sink is None:
            self._give_up(event.stream, "")
        else:
            self.connection.set_sink(event.stream, sink)
            if event.response.nbytes >= LARGE:
                self._large[event.stream] = False

    def _give_up(self, stream: int, detail: str) -> None:
        call = self._calls.pop(stream)
        self._large.pop(stream, None)
        received = self.connection.cancel(stream)
        self._finish(call, Status.CANCELLED, detail, received)

    def _guard(self, stream: int, method: Callable[..., None], *args: object) -> None:
        try:
            method(self, *args)
        except WireError as error:
            _log.debug("%r: stream %d: %s", self, stream, error)
        except Exception:  # noqa: BLE001  # one request's fault must not end the lane
            _log.exception("%r: a request could not be answered", self)
            with contextlib.suppress(WireError):  # it may have been answered already
                self.connection.respond(stream, Response(status=Status.ERROR, detail="fault"))

    # Calls.

    def _accept(self, call: Call) -> None:
        self.pending += 1
        self._begin(call)

    def _begin(self, call: Call) -> None:
        now = time.monotonic()
        self.used = now
        if self.connection.ready and not self.connection.can_request:
            self._waiting.append(call)
            return
        if self.connection.ended or call.deadline <= now:
            status = LOST if self.connection.ended else Status.TIMEOUT
            self._finish(call, status, "before it was sent")
            return
        try:
            stream = self.connection.request(
                call.request, now=now, timeout=call.deadline - now, body=call.body
            )
        except ConnectionEndedError as error:
            self._finish(call, LOST, str(error))
        except WireError as error:
            self._finish(call, Status.BAD_REQUEST, str(error))
        else:
            self._calls[stream] = call

    def _finish(
        self, call: Call, status: str = Status.OK, detail: str = "", received: int = 0
    ) -> None:
        self.pending -= 1
        self.used = time.monotonic()
        self._finished.append((call, status, detail, received))

    def _tell(self) -> None:
        """Tell what became of calls: last, so that who hears it finds the lane free."""
        while self._finished:
            call, status, detail, received = self._finished.popleft()
            if status == Status.OK:
                call.completed()
            else:
                call.failed(status, detail, received)

    def _cancel(self, call: Call) -> None:
        for stream, found in self._calls.items():
            if found is call:
                self._give_up(stream, "")
                return
        if call in self._waiting:
            self._waiting.remove(call)
            self._finish(call, Status.CANCELLED)

    def progress(self, call: Call) -> int:
        """Bytes of the answer's body that are in its sink; in the lane's thread only."""
        for stream, found in self._calls.items():
            if found is call:
                return self.connection.progress(stream)
        return 0


def _joined(parts: list[BytesLike]) -> list[BytesLike]:
    """Put small parts, and the head of a large one behind them, into one record."""
    joined: list[BytesLike] = []
    small: list[BytesLike] = []
    room = _RECORD
    for part in parts:
        if small and len(part) > room:
            view = memoryview(part)
            small.append(view[:room])
            part, room = view[room:], 0
        if room and len(part) <= room:
            small.append(part)
            room -= len(part)
            continue
        if small:
            joined.append(small[0] if len(small) == 1 else b"".join(small))
            small, room = [], _RECORD
        if len(part) < _RECORD:
            small.append(part)
            room = _RECORD - len(part)
        else:
            joined.append(part)
    if small:
        joined.append(small[0] if len(small) == 1 else b"".join(small))
    return joined
