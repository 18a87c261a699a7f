"""What drives a lane: one thread between a TLS socket and the state of a connection."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from proxystore_endpoint.exceptions import WireError
from proxystore_endpoint.transports.waker import Waker
from proxystore_endpoint.wire.connection import BytesLike, Connection
from proxystore_endpoint.wire.events import Event

_log = logging.getLogger(__name__)

_BATCH: Final = 512 * 1024  # sent before the lane looks at what came in
_RECORD: Final = 16 * 1024  # a TLS record: each costs a system call, so small parts share one
_FAREWELL: Final = 1.0  # seconds that a last message may take


class Driver:
    """Reads, writes and waits for a lane, which handles what comes of it.

    The thread is the only one that waits, in `poll`, and it holds the lock whenever it does
    anything else. (One TLS session must never be used by two threads at once: OpenSSL forbids
    it, and newer Pythons lock it, so that a blocked read would stop all writes.)

    Args:
        sock: The stream.
        connection: Its state.
    """

    def __init__(self, sock: ssl.SSLSocket, connection: Connection) -> None:
        self.connection: Final = connection
        self.holding = False  # whether `_answers_sent` is to be called
        self.heard = time.monotonic()
        """When bytes came last."""
        self._sock = sock
        self._commands: deque[Callable[[], None]] = deque()
        self._parts: deque[BytesLike] = deque()
        self._lock = threading.Lock()
        self._want_write = False
        self._wake_at = 0.0
        self._waker = Waker()

    # What the lane does about it.

    def _handle(self, events: list[Event]) -> None:
        raise NotImplementedError

    def _begin_waiting(self) -> None:
        """Make the requests that had to wait, as far as they may go now."""
        raise NotImplementedError

    def _tell(self) -> None:
        """Tell what became of calls; the lock is not held."""
        raise NotImplementedError

    def _answers_sent(self) -> None:
        """All that the connection handed out so far was sent."""
        raise NotImplementedError

    def _settle(self) -> None:
        """The connection is over: nothing may be left."""
        raise NotImplementedError

    def _ended(self, error: WireError | None) -> None:
        """The last thing that happens; the lock is not held."""
        raise NotImplementedError

    # From any thread.

    def kill(self) -> None:
        """Cut the stream; what is under way fails."""
        with contextlib.suppress(OSError):  # it may be closed already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def _flush_here(self) -> bool:
        try:
            while self._flush():
                pass
        except OSError:
            return False  # the lane's thread will find the same
        return not self._parts

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
            self._ended(error)

    def _drive(self) -> None:
        connection = self._connection_poll()
        while True:
            now = time.monotonic()
            self._run_commands()
            self._begin_waiting()
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
            else:
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
        self.heard = now
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
                self._answers_sent()
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
        self._settle()
        self._parts.clear()
        self._sock.close()
        self._waker.close()
        return connection.error


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
