"""The web server: uvicorn, with deadlines for clients that do not go on.

uvicorn waits for ever for the rest of a request's head, and for a client that does not read its
answer. `DeadlineProtocol` waits `limits.HEAD_TIMEOUT_S` and `limits.STALL_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from quart import Quart
from uvicorn.protocols.http.h11_impl import H11Protocol

from proxystore_endpoint.app import limits

_BACKLOG = 512
_GRACE_S = 3


class DeadlineProtocol(H11Protocol):
    """One connection of a client."""

    _head: asyncio.TimerHandle | None = None
    _drain: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._arm_head()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm_head()
        elif self._head is None:
            self._arm_head()

    def on_response_complete(self) -> None:
        """Go on to the next request, or close."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that nobody uses."""
        super().timeout_keep_alive_handler()
        self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm_head()
        self._disarm_drain()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client that reads slower than we write."""
        super().pause_writing()
        self._disarm_drain()
        self._arm_drain()

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._disarm_drain()
        super().resume_writing()

    def _arm_head(self) -> None:
        self._head = self.loop.call_later(limits.HEAD_TIMEOUT_S, self._drop)

    def _disarm_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _arm_drain(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._drain = self.loop.call_later(limits.STALL_S, self._check_drain)

    def _disarm_drain(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None

    def _check_drain(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._arm_drain()
        else:
            self._drop()

    def _linger(self) -> None:
        """Close for good after a while, also if the client does not take what is left."""
        self._disarm_head()
        if self._drain is None:
            self._drain = self.loop.call_later(limits.STALL_S, self._drop)

    def _drop(self) -> None:
        self._head = self._drain = None
        self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn's server on one listening socket, which leaves the signals to the daemon."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        make = partial(
            DeadlineProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        tls: dict[str, Any] = {}
        if self.config.ssl is not None:
            tls = {"ssl": self.config.ssl, "ssl_handshake_timeout": limits.HANDSHAKE_TIMEOUT_S}
        loop = asyncio.get_running_loop()
        server = await loop.create_server(make, sock=self._listener, backlog=_BACKLOG, **tls)
        self.servers = [server]
        self.started = True


class HttpServer:
    """The server of an application.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on, 0 for any.
        tls: Context of the server's certificate; `None` for plain HTTP.

    Raises:
        OSError: The address cannot be listened on.
    """

    def __init__(
        self, app: Quart, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.listener = listen(host, port)
        self.host = host
        self.port: int = self.listener.getsockname()[1]
        self.tls = tls is not None
        config = uvicorn.Config(
            app,
            http=DeadlineProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.MAX_CONNECTIONS,
            timeout_keep_alive=max(1, int(limits.HEAD_TIMEOUT_S)),
            timeout_graceful_shutdown=_GRACE_S,
            h11_max_incomplete_event_size=limits.HEAD_BYTES,
            ssl_context_factory=None if tls is None else (lambda _config, _default: tls),
        )
        self._server = _Server(config, self.listener)

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """Connections of clients that are open."""
        return len(self._server.server_state.connections)

    @property
    def requests(self) -> int:
        """Requests that were answered so far."""
        return self._server.server_state.total_requests

    async def run(self) -> None:
        """Serve until `stop` is called."""
        await self._server.serve()

    def stop(self) -> None:
        """Let requests that are being answered end, and then `run`."""
        self._server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        OSError: It is taken, or not this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
