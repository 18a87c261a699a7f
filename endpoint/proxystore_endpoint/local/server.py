"""The server of the control socket, on the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    EndpointConfigError,
    EndpointRunningError,
    LocalProtocolError,
)
from proxystore_endpoint.local import messages as m
from proxystore_endpoint.local.backend import Backend
from proxystore_endpoint.local.serving import Serving

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_THREADS = 8  # for what waits for the disk
_BACKLOG = 512
_MAX_ROOMS = 64  # reservations of one connection
_UCRED = struct.Struct("3i")


class LocalServer:
    """Serves the processes of this user on this node.

    Args:
        backend: The endpoint.
        path: Path of the socket, in a directory that only this user can enter.
    """

    def __init__(self, backend: Backend, path: str | os.PathLike[str]) -> None:
        self.backend = backend
        self.path = Path(path)
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="local")
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def clients(self) -> int:
        """Number of connections that are open."""
        return len(self.connections)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            EndpointRunningError: Another process does, on the same path.
            EndpointConfigError: The path cannot be used.
        """
        listener = _listen(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=_BACKLOG
        )

    async def close(self) -> None:
        """Stop, and end all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.get_running_loop().run_in_executor(None, self.pool.shutdown)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as other:
            other.settimeout(1)
            other.connect(str(path))
            raise EndpointRunningError(f"Another process serves {path}: stop that endpoint first.")
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise EndpointConfigError(
            f"The control socket {path} cannot be made ({error}). Its path may have about 100 "
            "characters, on a local file system.",
            path=str(path),
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


class _Connection(asyncio.Protocol):
    """One client: it asks, and is answered, one request after the other."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._serving = Serving(server.backend, server.pool)
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who it is."""
        self._transport = transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        if not _is_same_user(transport.get_extra_info("socket")):
            denied = AccessDeniedError("Only the user of the endpoint may use this socket.")
            transport.write(m.encode(m.to_failure(denied)))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what the client had reserved, and stop what it waits for."""
        self._server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()
        self._serving.close()

    def abort(self) -> None:
        """End the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        self._buffer += data
        self._go_on()
        if self._task is not None and len(self._buffer) > m.MAX_REQUEST:
            # Only then: while it is read from, it shows when the client goes away.
            self._transport.pause_reading()

    def _go_on(self) -> None:
        while self._task is None and not self._transport.is_closing():
            if len(self._buffer) < m.LENGTH.size:
                return
            length = m.LENGTH.unpack_from(self._buffer)[0]
            if length > m.MAX_REQUEST:
                self._refuse(LocalProtocolError(f"A request of {length} bytes is too long."))
                return
            end = m.LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[m.LENGTH.size : end])
            del self._buffer[:end]
            try:
                request = m.decode_request(body)
            except LocalProtocolError as error:
                self._refuse(error)
                return
            self._serve(request)

    def _refuse(self, error: LocalProtocolError) -> None:
        self._transport.write(m.encode(m.to_failure(error)))
        self._transport.close()

    def _serve(self, request: m.Request) -> None:
        """Answer at once what takes microseconds; all else in a task."""
        try:
            answer = self._serving.answer(request)
        except Exception as error:  # noqa: BLE001 - the client is told, the others are served
            self._reply(m.to_failure(error))
            return
        if isinstance(answer, Awaitable):
            self._task = asyncio.ensure_future(self._finish(answer))
        else:
            self._reply(answer)

    async def _finish(self, answer: Awaitable[m.Reply]) -> None:
        try:
            reply: m.Reply = await answer
        except Exception as error:  # noqa: BLE001 - the client is told, the others are served
            reply = m.to_failure(error)
        self._task = None
        if not self._transport.is_closing():
            self._reply(reply)
            self._transport.resume_reading()
            self._go_on()

    def _reply(self, reply: m.Reply) -> None:
        self._transport.write(m.encode(reply))


def _is_same_user(client: socket.socket) -> bool:
    """Tell whether a client runs as this user; elsewhere than on Linux the directory says so."""
    if sys.platform != "linux":
        return True
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1]) == os.geteuid()
