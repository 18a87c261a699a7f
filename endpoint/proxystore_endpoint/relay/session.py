"""One registered connection of an endpoint to its relay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from proxystore_endpoint.exceptions import (
    PathError,
    RelayError,
    RelayLimitError,
    RelayMessageError,
    RelayRefusedError,
    RelayReplacedError,
    RelayUnreachableError,
    UnknownDestinationError,
)
from proxystore_endpoint.limits import KIB
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay import reasons
from proxystore_endpoint.relay.pipe import WINDOW, RelayPipe

_log = logging.getLogger(__name__)

_READ_BUFFER: Final = 256 * KIB
_MAX_PIPES: Final = 512
_MAX_SIGNALS: Final = 256
"""Signals that are being handled at once; more are dropped."""
_LIMITS: Final = frozenset({reasons.RATE, reasons.BUSY, reasons.LIMIT, reasons.TOO_LARGE})

OnSignal = Callable[[UUID, dict[str, Any]], Awaitable[None]]
OnCircuit = Callable[[UUID, RelayPipe], Awaitable[None]]


class Connection(ClientConnection, asyncio.BufferedProtocol):
    """A websocket that knows when it was heard: any byte counts, so a slow link is alive.

    It receives into one buffer. As a plain protocol it would be given a fresh one of 256 KiB for
    each record of TLS, which costs a quarter of the time that receiving takes.
    """

    heard = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._buffer = memoryview(bytearray(_READ_BUFFER))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes; websockets copies them."""
        self.heard = self.loop.time()
        received: Any = self._buffer[:nbytes]
        self.data_received(received)


class Session:
    """Reads what the relay says until it is gone; sends what the endpoint has to say.

    Args:
        websocket: The connection, registered.
        welcome: The relay's answer to the registration.
        address: The relay's address, for messages.
        on_signal: Called for each signal.
        on_circuit: Called for each circuit that another endpoint opens.
        spawn: Runs what these two return; it may outlive the connection.
        ping_interval: Seconds between two pings.
        dead_after: Seconds of silence after which the relay is gone.
    """

    def __init__(
        self,
        websocket: Connection,
        welcome: m.Welcome,
        *,
        address: str,
        on_signal: OnSignal | None,
        on_circuit: OnCircuit | None,
        spawn: Callable[[Awaitable[None], str], None],
        ping_interval: float,
        dead_after: float,
    ) -> None:
        self.welcome = welcome
        self.rtt: float | None = None
        self.pipes: dict[int, RelayPipe] = {}
        self._websocket = websocket
        self._address = address
        self._on_signal = on_signal
        self._on_circuit = on_circuit
        self._ping_interval = ping_interval
        self._dead_after = dead_after
        self._waiting: dict[int, tuple[asyncio.Future[Any], UUID]] = {}
        self._spawn = spawn
        self._signals = 0
        self._requests = 0
        self._pinged: tuple[int, float] = (0, 0.0)
        self._over: Exception | None = None

    # For the endpoint.

    async def signal(self, to: UUID, body: dict[str, Any], timeout: float) -> None:
        """Send a signal; return when the relay passed it on."""
        raw = m.encode_body(body)
        await self._request(lambda number: m.Signal(number, to, raw), to, timeout)

    async def open(self, to: UUID, timeout: float) -> RelayPipe:
        """Open a circuit."""
        pipe = await self._request(lambda number: m.Open(number, to, WINDOW), to, timeout)
        if not isinstance(pipe, RelayPipe):
            raise RelayMessageError("The relay opened no circuit.", address=self._address)
        return pipe

    async def _request(
        self, make: Callable[[int], m.Signal | m.Open], to: UUID, timeout: float
    ) -> Any:
        if self._over is not None:
            raise self._lost()
        self._requests = (self._requests + 1) % 2**32
        number = self._requests
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer, to
        delivered = False
        try:
            async with asyncio.timeout(timeout):
                await self._send(m.encode(make(number)))
                result = await answer
            delivered = True
            return result
        except TimeoutError as error:
            raise PathError(
                f"Endpoint {to} did not answer through the relay {self._address} within "
                f"{timeout:g} s.",
                kind="relay",
            ) from error
        finally:
            del self._waiting[number]
            if not delivered and answer.done() and not answer.cancelled():
                late = answer.exception() or answer.result()
                if isinstance(late, RelayPipe):  # it came just when its asker gave up
                    await late.close()

    async def _send(self, frame: bytes) -> None:
        try:
            await self._websocket.send(frame, text=frame[:1] == b"{")
        except ConnectionClosed as error:
            raise self._lost() from error

    def _push(self, frame: bytes) -> None:
        # Small frames go ahead of the bulk that waits for room; broadcast never blocks.
        broadcast([self._websocket], frame.decode() if frame[:1] == b"{" else frame)

    def _lost(self) -> RelayUnreachableError:
        return RelayUnreachableError(
            f"The connection to the relay {self._address} is lost: {self._over or 'closed'}",
            address=self._address,
        )

    # The relay's side.

    async def run(self) -> None:
        """Serve the connection until it ends.

        Raises:
            RelayError: Always: why it ended.
        """
        pinger = asyncio.create_task(self._ping(), name="relay-ping")
        try:
            while True:
                frame = await self._websocket.recv(decode=False)
                self._take(m.decode_from_relay(frame))
        except ConnectionClosed as error:
            raise RelayUnreachableError(
                f"The relay {self._address} went away ({error}).", address=self._address
            ) from error
        finally:
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)

    def end(self, error: Exception) -> None:
        """Fail all that waits and all circuits: the relay is gone."""
        self._over = error
        for answer, _ in list(self._waiting.values()):
            if not answer.done():
                answer.set_exception(self._lost())
        for pipe in list(self.pipes.values()):
            pipe.on_end(f"the relay {self._address} is gone ({error})")

    async def close(self, *, kindly: bool) -> None:
        """Close the websocket, with a closing handshake or without."""
        if kindly:
            # The relay may be stuck: do not wait long for its half of the handshake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._websocket.close()
        self._websocket.transport.abort()

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        due = loop.time()
        while True:
            now = loop.time()
            if now - self._websocket.heard > self._dead_after:
                self._websocket.transport.abort()
                return
            if now >= due:
                number += 1
                due = now + self._ping_interval
                self._pinged = number, now
                self._push(m.encode(m.Ping(number)))
            await asyncio.sleep(min(1.0, self._ping_interval, self._dead_after / 4))

    def _take(self, message: m.FromRelay | m.Data | m.Credit | m.Unknown) -> None:
        match message:
            case m.Data():
                if (pipe := self.pipes.get(message.circuit)) is not None:
                    pipe.on_data(message)
            case m.Credit():
                if (pipe := self.pipes.get(message.circuit)) is not None:
                    pipe.on_credit(message.amount)
            case m.Pong():
                if message.id == self._pinged[0]:
                    self.rtt = asyncio.get_running_loop().time() - self._pinged[1]
            case m.Result():
                self._answer(message)
            case m.Opened():
                self._opened(message)
            case m.Incoming():
                self._incoming(message)
            case m.Closed():
                if (pipe := self.pipes.get(message.circuit)) is not None:
                    pipe.on_end(message.reason or reasons.CLOSED)
            case m.Signalled():
                self._signalled(message)
            case m.Goodbye():
                raise farewell(message, self._address)
            case m.Challenge() | m.Welcome():
                raise RelayMessageError("The relay registers a client twice.")
            case m.Unknown():
                return

    def _answer(self, message: m.Result) -> None:
        answer, to = self._waiting.get(message.id, (None, None))
        if answer is None or to is None or answer.done():
            return
        if not message.error:
            answer.set_result(None)
        elif message.error == reasons.UNKNOWN:
            answer.set_exception(
                UnknownDestinationError(
                    f"Endpoint {to} is not registered at the relay {self._address}.",
                    destination=to,
                    address=self._address,
                )
            )
        elif message.error in _LIMITS:
            answer.set_exception(
                RelayLimitError(
                    f"The relay {self._address} does not do that now: a limit is reached "
                    f"({message.error}).",
                    address=self._address,
                )
            )
        else:
            answer.set_exception(
                PathError(
                    f"Endpoint {to} cannot be reached through the relay {self._address}: "
                    f"{message.error}.",
                    kind="relay",
                )
            )

    def _opened(self, message: m.Opened) -> None:
        answer, to = self._waiting.get(message.id, (None, None))
        if answer is None or to is None or answer.done():
            self._push(m.encode(m.Close(message.circuit, "given up")))  # too late
            return
        answer.set_result(self._pipe(message.circuit, to, message.window))

    def _incoming(self, message: m.Incoming) -> None:
        if self._on_circuit is None or len(self.pipes) >= _MAX_PIPES:
            self._push(m.encode(m.Close(message.circuit, reasons.REFUSED)))
            return
        pipe = self._pipe(message.circuit, message.source, message.window)
        self._push(m.encode(m.Accept(message.circuit, WINDOW)))
        self._spawn(self._on_circuit(message.source, pipe), "circuit")

    def _pipe(self, circuit: int, peer: UUID, credit: int) -> RelayPipe:
        if circuit in self.pipes:
            raise RelayMessageError("The relay uses a circuit's number twice.")
        pipe = RelayPipe(
            circuit,
            peer,
            credit=credit,
            payload_limit=self.welcome.payload_limit,
            send=self._send_data,
            push=self._push,
            forget=lambda number: self.pipes.pop(number, None),
        )
        self.pipes[circuit] = pipe
        return pipe

    async def _send_data(self, frame: bytes) -> None:
        try:
            await self._websocket.send(frame)
        except ConnectionClosed:
            # The reader learns of it too, and ends the pipe with the reason.
            return

    def _signalled(self, message: m.Signalled) -> None:
        if self._on_signal is None or self._signals >= _MAX_SIGNALS:
            _log.info("A signal from %s is dropped.", message.source)
            return
        try:
            body = m.decode_body(message.body)
        except RelayMessageError as error:  # its sender's fault, not the relay's
            _log.info("A signal from %s is no use: %s", message.source, error)
            return
        self._signals += 1
        self._spawn(self._handle_signal(message.source, body), "signal")

    async def _handle_signal(self, source: UUID, body: dict[str, Any]) -> None:
        try:
            if self._on_signal is not None:
                await self._on_signal(source, body)
        finally:
            self._signals -= 1


def farewell(message: m.Goodbye, address: str) -> RelayError:
    """Why the relay ends the connection, as an error."""
    detail = f"The relay {address} ends the connection ({message.reason}): {message.detail}"
    match message.reason:
        case "refused":
            return RelayRefusedError(detail, address=address)
        case "replaced" | "taken":
            return RelayReplacedError(detail, address=address)
        case "full":
            return RelayLimitError(detail, address=address)
        case "protocol":
            return RelayMessageError(detail, address=address)
        case _:
            return RelayUnreachableError(detail, address=address)
