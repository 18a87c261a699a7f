"""The relay: websockets in front of a `Switch`, with /health and /metrics on the same port."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from proxystore_endpoint.exceptions import (
    RelayLimitError,
    RelayMessageError,
    RelayRefusedError,
    RelayUnreachableError,
)
from proxystore_endpoint.limits import KIB, MIB, NONCE_BYTES
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.admission import admit
from proxystore_endpoint.relay.auth import Authenticator, NoAuthentication
from proxystore_endpoint.relay.connection import Watched, address_of
from proxystore_endpoint.relay.limits import Bucket, RelayLimits
from proxystore_endpoint.relay.pages import health, metrics
from proxystore_endpoint.relay.port import Port
from proxystore_endpoint.relay.switch import Switch

_log = logging.getLogger(__name__)

_ANSWERS: Final = 1 * MIB
"""Answers that may wait for a client before the relay stops reading from it."""
_WRITE_BUFFER: Final = 512 * KIB
_BURST: Final = 1 * MIB
_CLOSE_TIMEOUT: Final = 2.0


class RelayServer:
    """Serves many endpoints: forwards signals and circuits between those that are registered.

    Args:
        authenticator: Who may register, beside proving its identity; by default everyone.
        limits: What clients may do.
        names: Hosts (`relay.example.org`, or with a port) that the relay is dialled by; with
            them, it refuses a registration that was signed for another relay.
        ssl_context: For TLS; without one, run it behind something that does TLS.
        log_level: Level of the messages about single connections from the websockets library.
            Strangers cause most of them.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator | None = None,
        limits: RelayLimits | None = None,
        names: Collection[str] = (),
        ssl_context: ssl.SSLContext | None = None,
        log_level: int | str = logging.CRITICAL,
    ) -> None:
        self.limits = RelayLimits() if limits is None else limits
        self.switch = Switch(self.limits)
        self.started = time.monotonic()
        self._authenticator = NoAuthentication() if authenticator is None else authenticator
        self._names = frozenset(name.lower() for name in names)
        self._ssl = ssl_context
        self._websockets_log = _log.getChild("websockets")
        self._websockets_log.setLevel(log_level)
        self._connections: set[Watched] = set()
        self._unregistered: dict[Watched, None] = {}  # the oldest comes first
        self._addresses: Counter[str] = Counter()
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._server is None:
            await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self, host: str | None = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Args:
            host: Address to listen at; `None` for all.
            port: Port; 0 for any (see `port`).

        Raises:
            OSError: If the address cannot be used.
        """
        connection = type("RelayConnection", (Watched,), {"keeper": self})
        limits = self.limits
        self._server = await serve(
            self._handle,
            host,
            port,
            create_connection=connection,
            process_request=self._request,
            ssl=self._ssl,
            origins=[None],  # no browser has business here
            compression=None,  # ciphertext
            open_timeout=limits.handshake_timeout,
            ping_interval=None,  # clients ping; see _look
            close_timeout=_CLOSE_TIMEOUT,
            max_size=max(limits.payload + m.DATA_HEADER, m.MAX_CONTROL),
            write_limit=_WRITE_BUFFER,
            logger=self._websockets_log,
            server_header="proxystore-relay",
        )
        self._watch = asyncio.create_task(self._look(), name="relay-watch")

    @property
    def port(self) -> int:
        """The port that it listens at."""
        if self._server is None:
            raise RuntimeError("The relay does not run: start it first.")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """What clients on this host dial."""
        return f"{'ws' if self._ssl is None else 'wss'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections, registered or not."""
        return len(self._connections)

    async def close(self) -> None:
        """Tell all clients, and stop."""
        server, self._server = self._server, None
        if server is None:
            return
        for port in list(self.switch.ports.values()):
            self.switch.remove(
                port,
                m.Goodbye("shutdown", "The relay stops."),
                now=time.monotonic(),
            )
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await asyncio.sleep(0)  # the writers send the farewells
        server.close()
        try:
            async with asyncio.timeout(2 * _CLOSE_TIMEOUT):
                await server.wait_closed()
        except TimeoutError:
            for connection in list(self._connections):
                connection.transport.abort()
            await server.wait_closed()

    # Connections.

    def came(self, connection: Watched) -> None:
        """Count a new connection; too many are cut, of those not registered the oldest."""
        limits = self.limits
        address = address_of(connection)
        self._connections.add(connection)
        self._unregistered[connection] = None
        self._addresses[address] += 1
        self.switch.counts["connections"] += 1
        if (
            len(self._connections) > limits.connections
            or self._addresses[address] > limits.connections_per_address
        ):
            self.cut(connection, "connections")
        elif len(self._unregistered) > limits.unregistered:
            self.cut(next(iter(self._unregistered)), "unregistered")

    def went(self, connection: Watched) -> None:
        """Forget a connection."""
        self._unregistered.pop(connection, None)
        if connection in self._connections:
            self._connections.discard(connection)
            address = address_of(connection)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def cut(self, connection: Watched, reason: str) -> None:
        """End a connection at once."""
        self.switch.counts[f"cut_{reason}"] += 1
        self._unregistered.pop(connection, None)
        connection.transport.abort()

    async def _look(self) -> None:
        """Drop who is silent, or takes nothing; give up circuits; end what expired."""
        limits = self.limits
        loop = asyncio.get_running_loop()
        early = 2 * limits.handshake_timeout + limits.register_timeout + limits.auth_timeout
        while True:
            await asyncio.sleep(min(1.0, limits.silence / 4))
            now, clock = loop.time(), time.time()
            self.switch.tick(now)
            for connection in list(self._connections):
                principal = connection.principal
                if connection.port is None:
                    if now - connection.born > early:
                        self.cut(connection, "unregistered")
                elif wrong := connection.look(now, limits.silence):
                    self.cut(connection, wrong)
                elif principal is not None and (principal.expires or clock) < clock:
                    goodbye = m.Goodbye("expired", "The credentials expired.")
                    self.switch.remove(connection.port, goodbye, now=now)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/health":
            kind, text = "application/json", health(self)
        elif path == "/metrics":
            kind, text = "text/plain; version=0.0.4", metrics(self)
        else:
            return None
        response = connection.respond(200, text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = kind
        return response

    # One client.

    async def _handle(self, websocket: ServerConnection) -> None:
        connection: Any = websocket  # a Watched
        wake = asyncio.Event()
        try:
            port = await self._register(connection, wake.set)
        except ConnectionClosed:
            return
        if port is None:
            return
        _log.debug("%s registered from %s", port.uuid, address_of(connection))
        writer = asyncio.create_task(self._write(connection, port, wake), name="relay-writer")
        try:
            await self._read(connection, port)
        except ConnectionClosed:
            self._leave(port, m.Goodbye("closed"))
        except RelayMessageError as error:
            self.switch.counts["malformed"] += 1
            _log.info("%s breaks the protocol: %s", port.uuid, error)
            self._leave(port, m.Goodbye("protocol", str(error)[:200]))
        except Exception:
            _log.exception("Serving %s failed.", port.uuid)
            raise
        finally:
            self._leave(port, m.Goodbye("error", "The relay failed."))
            wake.set()
            await asyncio.wait([writer], timeout=_CLOSE_TIMEOUT)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _leave(self, port: Port, goodbye: m.Goodbye) -> None:
        self.switch.remove(port, goodbye, now=asyncio.get_running_loop().time())

    async def _register(self, connection: Watched, wake: Callable[[], None]) -> Port | None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        challenge = m.Challenge(nonce, self._authenticator.method, agent="proxystore-relay")
        await connection.send(m.encode(challenge), text=True)
        try:
            async with asyncio.timeout(self.limits.register_timeout):
                frame = await connection.recv(decode=False)
        except TimeoutError:
            self.cut(connection, "unregistered")
            return None
        try:
            message = m.decode_from_client(frame)
            if not isinstance(message, m.Register):
                raise RelayMessageError("The first message has to register.")
            async with asyncio.timeout(self.limits.auth_timeout):
                principal = await admit(
                    message, nonce, authenticator=self._authenticator, names=self._names
                )
            if connection.state is not State.OPEN:  # it must not replace who came meanwhile
                return None
            port = Port(message.uuid, principal.name, wake)
            port.answer(
                m.Welcome(port.uuid, address_of(connection, port=True), self.limits.payload)
            )
            now = asyncio.get_running_loop().time()
            if self.switch.register(port, replace=message.replace, now=now):
                self._unregistered.pop(connection, None)
                connection.port = port
                connection.principal = principal
                return port
            goodbye = m.Goodbye("taken", "Another registration of this id is alive.")
        except RelayMessageError as error:
            goodbye = m.Goodbye("protocol", str(error)[:200])
        except RelayRefusedError as error:
            goodbye = m.Goodbye("refused", str(error)[:200])
        except RelayLimitError as error:
            goodbye = m.Goodbye("full", str(error)[:200])
        except (RelayUnreachableError, TimeoutError):
            goodbye = m.Goodbye("auth", "The relay cannot check credentials now.")
        self.switch.counts[f"refused_{goodbye.reason}"] += 1
        await connection.send(m.encode(goodbye), text=True)
        await connection.close(1008, goodbye.reason)
        return None

    async def _read(self, connection: Watched, port: Port) -> None:
        limits = self.limits
        loop = asyncio.get_running_loop()
        messages = Bucket(limits.messages, limits.messages)
        nbytes = None if limits.nbytes is None else Bucket(limits.nbytes, max(limits.nbytes, MIB))
        while port.goodbye is None:
            frame = await connection.recv(decode=False)
            now = loop.time()
            self.switch.receive(port, m.decode_from_client(frame), now=now)
            pause = messages.borrow(now)
            if nbytes is not None:
                pause = max(pause, nbytes.borrow(now, len(frame)))
            if pause > 0 or port.control_bytes > _ANSWERS:
                await self._pause(connection, port, pause)
        await connection.wait_closed()

    async def _pause(self, connection: Watched, port: Port, seconds: float) -> None:
        """Stop reading for a while, or until the client took its answers."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        connection.throttled = True
        while port.goodbye is None:
            left = until - loop.time()
            if left <= 0 and port.control_bytes <= _ANSWERS:
                break
            await asyncio.sleep(min(max(left, 0.02), 0.5))
        connection.throttled = False
        connection.heard = loop.time()

    async def _write(self, connection: Watched, port: Port, wake: asyncio.Event) -> None:
        written = 0
        try:
            while True:
                frame = port.pop(self.switch.deliver)
                if frame is None:
                    if port.goodbye is not None:
                        break
                    wake.clear()
                    await wake.wait()
                    continue
                await connection.send(frame, text=frame[:1] == b"{")
                written += len(frame)
                if written > _BURST:
                    written = 0
                    await asyncio.sleep(0)  # a fast client must not keep the loop
            await connection.close(1000, port.goodbye.reason)
        except ConnectionClosed:
            return
