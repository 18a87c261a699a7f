"""An endpoint's connection to its relay: it comes back by itself and never fails anything else."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from websockets.exceptions import WebSocketException

from proxystore_endpoint.exceptions import (
    RelayError,
    RelayReplacedError,
    RelayUnreachableError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import DEFAULT
from proxystore_endpoint.relay.auth import Credentials, NoAuthentication
from proxystore_endpoint.relay.backoff import Backoff
from proxystore_endpoint.relay.dial import Dialer
from proxystore_endpoint.relay.pipe import RelayPipe
from proxystore_endpoint.relay.session import OnCircuit, OnSignal, Session

_log = logging.getLogger(__name__)

_STEADY: Final = 10.0
"""A connection that lived so long ends the backoff."""


class RelayStatus(NamedTuple):
    """How it stands with the relay.

    Attributes:
        address: Its address.
        connected: Whether this endpoint is registered there now.
        error: Why not.
        rtt: Round trip in seconds.
        observed: The address, `host:port`, that the relay sees us come from.
        circuits: Open circuits.
        registrations: How often this endpoint registered since it started.
    """

    address: str
    connected: bool
    error: str
    rtt: float | None
    observed: str
    circuits: int
    registrations: int


class RelayClient:
    """Keeps an endpoint registered at a relay.

    Its absence fails nothing but what needs the relay: `signal` and `open_circuit` raise, and open
    circuits end with `PipeClosedError`. All methods belong to one event loop.

    Args:
        address: `wss://host[:port]`, or `ws://` on a network that is trusted.
        identity: Who registers.
        auth: How to authenticate, where the relay wants that.
        ssl_context: For `wss`; by default the system's certificates are trusted.
        on_signal: Awaited with source and message of each signal.
        on_circuit: Awaited with source and pipe of each circuit that another endpoint opens;
            without it all are refused.
        connect_timeout: Seconds for one try to connect and register.
        ping_interval: Seconds between two pings.
        dead_after: Seconds of silence after which the relay counts as gone.
        backoff: When to try again.
        agent: Name and version of the software, for the relay.

    Raises:
        EndpointConfigError: If the address is none.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        *,
        auth: Credentials | None = None,
        ssl_context: ssl.SSLContext | None = None,
        on_signal: OnSignal | None = None,
        on_circuit: OnCircuit | None = None,
        connect_timeout: float = 7.0,
        ping_interval: float = DEFAULT.ping_interval,
        dead_after: float = DEFAULT.dead_after,
        backoff: Backoff | None = None,
        agent: str = "proxystore-core",
    ) -> None:
        self.address = address
        self.last_error: Exception | None = None
        self.registrations = 0
        self.on_signal = on_signal
        self.on_circuit = on_circuit
        self._dialer = Dialer(
            address,
            identity,
            auth=NoAuthentication() if auth is None else auth,
            ssl_context=ssl_context,
            agent=agent,
        )
        self._connect_timeout = connect_timeout
        self._ping_interval = ping_interval
        self._dead_after = dead_after
        self._backoff = Backoff() if backoff is None else backoff
        self._replace = True
        self._logged = ""
        self._session: Session | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._hurry = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect, and return at once: the relay may come later."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="relay-client")

    async def close(self) -> None:
        """Leave the relay; open circuits end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    @property
    def connected(self) -> bool:
        """Whether the endpoint is registered at the relay now."""
        return self._session is not None

    @property
    def status(self) -> RelayStatus:
        """How it stands with the relay."""
        session = self._session
        return RelayStatus(
            self.address,
            session is not None,
            "" if self.last_error is None else str(self.last_error),
            None if session is None else session.rtt,
            "" if session is None else session.welcome.address,
            0 if session is None else len(session.pipes),
            self.registrations,
        )

    async def wait_connected(self, timeout: float) -> bool:
        """Wait until the endpoint is registered; tell whether it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            pass
        return self.connected

    async def wait_disconnected(self, timeout: float) -> bool:
        """Wait until the relay is gone; tell whether it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._down.wait()
        except TimeoutError:
            pass
        return not self.connected

    def retry(self) -> None:
        """Try again now, without the rest of the wait: the network changed, say."""
        self._hurry.set()

    async def signal(self, to: UUID, message: dict[str, Any], *, timeout: float = 10.0) -> None:
        """Carry a message to another endpoint; return when the relay passed it on.

        Args:
            to: The other endpoint.
            message: A JSON object of at most 64 KiB.
            timeout: Seconds until the relay has to answer.

        Raises:
            RelayUnreachableError: If the relay is not there.
            UnknownDestinationError: If the other endpoint is not registered there.
            RelayLimitError: If there were too many signals, or too many wait for the other one.
            RelayMessageError: If the message is no JSON object, or too large.
            PathError: If the relay does not answer.
        """
        await self._need().signal(to, message, timeout)

    async def open_circuit(self, to: UUID, timeout: float = 10.0) -> RelayPipe:
        """Open a pipe to another endpoint.

        Args:
            to: The other endpoint.
            timeout: Seconds until it has to be open.

        Raises:
            RelayUnreachableError: If the relay is not there.
            UnknownDestinationError: If the other endpoint is not registered there.
            RelayLimitError: If one of the two has too many circuits, or the relay is full.
            PathError: If the other endpoint refuses, goes away or does not answer.
        """
        return await self._need().open(to, timeout)

    def _need(self) -> Session:
        if self._session is None:
            why = "" if self.last_error is None else f": {self.last_error}"
            raise RelayUnreachableError(
                f"The relay {self.address} is not connected{why}", address=self.address
            )
        return self._session

    # The background.

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._hurry.clear()
            try:
                await self._attend()
            except Exception as error:  # noqa: BLE001 - whatever it is, the endpoint lives on
                if loop.time() - began > _STEADY:
                    self._backoff.reset()
                wait = self._failed(error)
            try:
                async with asyncio.timeout(wait):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    def _spawn(self, work: Awaitable[None], what: str) -> None:
        """Handle a signal or circuit; what it leads to may outlive the connection to the relay."""

        async def guarded() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001 - no handler's failure may end the connection
                _log.exception("Handling a %s from the relay failed.", what)

        task: asyncio.Task[None] = asyncio.create_task(guarded(), name=f"relay-{what}")
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    def _failed(self, error: Exception) -> float:
        wait = self._backoff.next(error)
        if isinstance(error, RelayReplacedError):
            self._replace = False  # two with one identity must not throw each other out in turn
        text = f"{type(error).__name__}: {error}"
        if text != self._logged:
            self._logged = text
            trace = None if isinstance(error, RelayError) else error  # ours say enough
            _log.warning("No relay (%s); next try in %.1f s", text, wait, exc_info=trace)
        else:
            _log.debug("Still no relay (%s); next try in %.1f s", text, wait)
        self.last_error = error
        return wait

    async def _attend(self) -> None:
        """One connection, from the first packet to the last."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                websocket, welcome = await self._dialer.join(replace=self._replace)
        except TimeoutError as error:
            raise RelayUnreachableError(
                f"The relay {self.address} does not answer within {self._connect_timeout:g} s.",
                address=self.address,
            ) from error
        except RelayError:  # some of them are OSErrors too
            raise
        except (OSError, WebSocketException) as error:  # refused, 503, a bad certificate …
            raise RelayUnreachableError(
                f"The relay {self.address} cannot be reached: {error}", address=self.address
            ) from error
        session = Session(
            websocket,
            welcome,
            address=self.address,
            on_signal=self.on_signal,
            on_circuit=self.on_circuit,
            spawn=self._spawn,
            ping_interval=self._ping_interval,
            dead_after=self._dead_after,
        )
        self.registrations += 1
        self._replace = True
        self._logged = ""
        self.last_error = None
        self._session = session
        self._down.clear()
        self._up.set()
        _log.info("Registered at the relay %s.", self.address)
        left: Exception = RelayUnreachableError("left", address=self.address)
        ended = left
        try:
            await session.run()
        except Exception as error:
            ended = error
            raise
        finally:
            self._session = None
            self._up.clear()
            self._down.set()
            session.end(ended)
            await session.close(kindly=ended is left)
