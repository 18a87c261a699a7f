"""The accepting side: one thread that takes all new connections through their handshakes.

A connection gets a lane, and a thread of its own, only once its peer has proved who it
is and is let in. Until then it costs one socket and some state, has a deadline, and
yields to newer ones when there are too many; so strangers, however many, cannot hold up
peers that are connected, nor keep others from connecting.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from uuid import UUID

from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    EndpointError,
    VersionError,
    WireError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.secure import check_auth, make_hello, server_context
from proxystore_endpoint.transports.guests import Doorkeeper, Guest
from proxystore_endpoint.transports.waker import Waker
from proxystore_endpoint.wire.connection import Connection, Role
from proxystore_endpoint.wire.events import AuthReceived, Ended
from proxystore_endpoint.wire.messages import Auth, GoAwayReason

_log = logging.getLogger(__name__)

_PAUSE: Final = 0.1  # after accept failed, most likely for lack of descriptors
_LINGER: Final = 1.0  # that a refused peer gets to read why
_BACKLOG: Final = 512


class Greeter:
    """Takes new connections through TLS and the proof of who is there.

    Args:
        identity: Who we are.
        doorkeeper: Who decides.
        limits: What a connection allows; its `handshake_timeout` is for the whole handshake.
        max_guests: Connections in their handshake at most; the oldest goes for a newer one.
        agent: Name and version of our software.
    """

    def __init__(
        self,
        identity: Identity,
        doorkeeper: Doorkeeper,
        *,
        limits: Limits,
        max_guests: int = 1024,
        agent: str = "",
    ) -> None:
        self._identity = identity
        self._doorkeeper = doorkeeper
        self._limits = limits
        self._max_guests = max_guests
        self._agent = agent
        self._context = server_context(identity)
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._selector.register(self._waker.fileno(), selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._paused_until = 0.0
        self._sweep_at = 0.0
        self.address: tuple[str, int] | None = None
        self._guests: dict[Guest, None] = {}  # in the order in which they came
        self._commands: deque[Callable[[], None]] = deque()
        self._closing = False
        self.refused = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="greeter", daemon=True)

    @property
    def guests(self) -> int:
        """Connections in their handshake now."""
        return len(self._guests)

    def listen(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a TCP address; call it before `start`. Returns the address.

        Raises:
            OSError: It cannot be bound.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)
        bound = listener.getsockname()
        self.address = bound[0], bound[1]
        return self.address

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(
        self, raw: socket.socket, *, kind: str, remote: str = "", expected: UUID | None = None
    ) -> None:
        """Take a connected stream that came by another way than the listener."""
        self._commands.append(lambda: self._take(raw, kind=kind, remote=remote, expected=expected))
        self._waker.wake()
        if self._closing:
            raw.close()

    def close(self) -> None:
        """Stop listening and drop who is not let in yet."""
        self._closing = True
        self._waker.wake()
        if self._thread.ident is not None:
            self._thread.join()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        self._waker.close()

    # The thread.

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:  # noqa: BLE001  # a fault of ours must not make us deaf
                _log.exception("a fault while greeting peers")
                time.sleep(_PAUSE)
        for guest in tuple(self._guests):
            self._drop(guest)

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        if self._paused_until and now >= self._paused_until and self._listener is not None:
            self._paused_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)
        idle = not self._guests and not self._paused_until
        for key, _ in self._selector.select(None if idle else _PAUSE):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, Guest):
                if key.data in self._guests:
                    self._serve(key.data)
            else:
                self._waker.clear()
        while self._commands:
            self._commands.popleft()()

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + _PAUSE
        for guest in [guest for guest in self._guests if guest.deadline <= now]:
            self.dropped += not guest.leaving
            self._drop(guest)

    def _accept(self) -> None:
        listener = self._listener
        for _ in range(64):
            try:
                raw, address = listener.accept()  # type: ignore[union-attr]  # it was readable
            except BlockingIOError:
                return
            except OSError as error:
                _log.warning("no connection can be accepted now: %s", error)
                self._selector.unregister(listener)  # type: ignore[arg-type]  # as above
                self._paused_until = time.monotonic() + _PAUSE
                if self._guests:
                    self._drop(next(iter(self._guests)))
                return
            self._take(raw, kind="tcp", remote=f"{address[0]}:{address[1]}", expected=None)

    def _take(self, raw: socket.socket, *, kind: str, remote: str, expected: UUID | None) -> None:
        raw.setblocking(False)
        try:
            if raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # gone again
            raw.close()
            return
        while len(self._guests) >= self._max_guests:
            self.dropped += 1
            self._drop(next(iter(self._guests)))
        deadline = time.monotonic() + self._limits.handshake_timeout
        guest = Guest(sock, deadline, kind=kind, remote=remote, expected=expected)
        self._guests[guest] = None
        self._selector.register(sock, selectors.EVENT_READ, guest)
        self._serve(guest)

    def _serve(self, guest: Guest) -> None:
        wanted = selectors.EVENT_READ
        try:
            self._step(guest)
            if guest.parts:
                wanted |= selectors.EVENT_WRITE
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            wanted |= selectors.EVENT_WRITE
        except (OSError, WireError, AuthenticationError, ValueError) as error:
            _log.debug("%s %s dropped: %s", guest.kind, guest.remote, error)
            self._drop(guest)
        except Exception:  # noqa: BLE001  # a fault over one connection must not touch others
            _log.exception("a fault while greeting %s", guest.remote)
            self._drop(guest)
        if guest in self._guests and wanted != guest.events:
            guest.events = wanted
            self._selector.modify(guest.sock, wanted, guest)

    def _step(self, guest: Guest) -> None:
        """Go on as far as it goes; `SSLWant...Error` says for what to wait."""
        if guest.connection is None:
            guest.sock.do_handshake()
            if guest.sock.version() != "TLSv1.3":
                raise AuthenticationError("not TLS 1.3")
            guest.connection = Connection(Role.SERVER, limits=self._limits, now=time.monotonic())
            guest.hello = make_hello(self._agent)
            guest.connection.send_hello(guest.hello)
            guest.asked = time.monotonic()
        while True:
            self._send(guest)
            if guest.leaving:
                if not guest.sock.recv(4096):
                    raise ConnectionResetError("it left")
                continue
            if guest.admitted is not None:
                self._hand_over(guest)
                return
            self._receive(guest, guest.connection)

    def _send(self, guest: Guest) -> None:
        guest.parts.extend(guest.connection.to_send())  # type: ignore[union-attr]  # see _step
        while guest.parts:
            self._send_part(guest)
        if guest.leaving:
            with contextlib.suppress(OSError):  # it may have left already
                socket.socket.shutdown(guest.sock, socket.SHUT_WR)

    def _send_part(self, guest: Guest) -> None:
        part = guest.parts[0]
        sent = guest.sock.send(part)
        if sent == len(part):
            guest.parts.popleft()
        else:
            guest.parts[0] = memoryview(part)[sent:]

    def _receive(self, guest: Guest, connection: Connection) -> None:
        now = time.monotonic()
        count = guest.sock.recv_into(connection.buffer())
        if not count:
            raise ConnectionResetError("it closed the connection")
        events = connection.received(count, now)
        while True:
            for event in events:
                if isinstance(event, AuthReceived):
                    connection.least_rtt = now - guest.asked
                    self._decide(guest, connection, event.auth)
                elif isinstance(event, Ended):
                    self._leave(guest)
            if not connection.paused or connection.ended or guest.admitted:
                return
            events = connection.received(0, now)

    def _decide(self, guest: Guest, connection: Connection, auth: Auth) -> None:
        try:
            peer = check_auth(self._identity, guest.hello, auth)  # type: ignore[arg-type]  # sent
            if guest.expected is not None and peer != guest.expected:
                raise AuthenticationError(
                    f"The relay says that {guest.expected} is there, but {peer} answered."
                )
            ready = self._doorkeeper.admit(peer, auth, guest)
        except EndpointError as error:
            self.refused += 1
            known = isinstance(error, (AccessDeniedError, AuthenticationError))
            reason = GoAwayReason.REFUSED if known else GoAwayReason.BUSY
            if isinstance(error, VersionError):
                reason = GoAwayReason.VERSION
            _log.info("%s %s refused: %s", guest.kind, guest.remote, error)
            connection.goaway(reason, str(error))
            self._leave(guest)
            return
        connection.send_ready(ready)
        guest.admitted = peer, auth

    def _leave(self, guest: Guest) -> None:
        guest.leaving = True
        guest.deadline = min(guest.deadline, time.monotonic() + _LINGER)

    def _hand_over(self, guest: Guest) -> None:
        del self._guests[guest]
        self._selector.unregister(guest.sock)
        try:
            if guest.admitted is not None and guest.connection is not None:
                peer, auth = guest.admitted
                self._doorkeeper.welcome(peer, auth, guest.sock, guest.connection, guest)
        except BaseException:
            guest.sock.close()
            raise

    def _drop(self, guest: Guest) -> None:
        if self._guests.pop(guest, guest) is None:
            self._selector.unregister(guest.sock)
            guest.sock.close()
