"""A lane: one secure byte stream to a peer, with requests and answers on it."""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from uuid import UUID

from proxystore_endpoint.exceptions import ConnectionEndedError, WireError
from proxystore_endpoint.transports.driver import Driver
from proxystore_endpoint.transports.roles import LARGE, Call, LaneHandler
from proxystore_endpoint.wire.connection import Connection
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
from proxystore_endpoint.wire.messages import GoAwayReason, Response, Status

_log = logging.getLogger(__name__)


class Lane(Driver):
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
        super().__init__(sock, connection)
        self.peer: Final = peer
        self.kind: Final = kind
        self.outbound: Final = outbound
        self.agent: Final = agent
        self.remote: Final = remote
        self.going_away = False
        self.used = time.monotonic()
        self.pending = 0  # requests of ours, given and not yet over
        self._large: dict[int, bool] = {}  # streams with large bodies; True: we send it
        self._handler = handler
        self._calls: dict[int, Call] = {}
        self._finished: deque[tuple[Call, str, str, int]] = deque()
        self._waiting: deque[Call] = deque()
        self._gate = threading.Lock()
        self._over = False
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

    # What the driver calls.

    def _begin_waiting(self) -> None:
        while self._waiting and self.connection.can_request:
            self._begin(self._waiting.popleft())

    def _answers_sent(self) -> None:
        self._handler.answers_sent(self)

    def _settle(self) -> None:
        with self._gate:
            self._over = True
        self._run_commands()
        for call in (*self._calls.values(), *self._waiting):
            self._finish(call, LOST, str(self.connection.error or "the connection is over"))
        self._calls.clear()
        self._waiting.clear()

    def _ended(self, error: WireError | None) -> None:
        self._handler.lane_ended(self, error)

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
