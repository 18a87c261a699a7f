"""A message pipe as a byte stream: what lanes over relay circuits and data channels run on.

The lane's thread has one end of a local socket pair and does there what it does on a TCP
socket, TLS included; two tasks on the event loop carry what comes out at the other end
through the pipe, and back. So the loop sees ciphertext only, in large messages, and a
full pipe holds the lane up as a full TCP connection would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from proxystore_endpoint.exceptions import PipeClosedError
from proxystore_endpoint.pipes import Pipe

_log = logging.getLogger(__name__)

_BUFFER = 512 * 1024


class Bridge:
    """Carries bytes between a pipe and a socket, until either is closed.

    Args:
        pipe: The pipe. It is closed with the socket.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._near, self.socket = socket.socketpair()
        for end in (self._near, self.socket):
            end.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    async def run(self) -> None:
        """Carry, until either end is closed; then close both. `socket` is the user's to close."""
        carriers = [asyncio.create_task(self._out()), asyncio.create_task(self._in())]
        try:
            await asyncio.wait(carriers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for carrier in carriers:
                carrier.cancel()
            for result in await asyncio.gather(*carriers, return_exceptions=True):
                if isinstance(result, Exception):
                    _log.debug("%s: %s", self._pipe.kind, result)
            self._near.close()
            await self._pipe.close()

    async def _out(self) -> None:
        loop, pipe = asyncio.get_running_loop(), self._pipe
        buffer = memoryview(bytearray(pipe.max_message))
        with contextlib.suppress(PipeClosedError, ConnectionError):  # the end, either side's
            while count := await loop.sock_recv_into(self._near, buffer):
                await pipe.send(buffer[:count])

    async def _in(self) -> None:
        loop, pipe = asyncio.get_running_loop(), self._pipe
        with contextlib.suppress(PipeClosedError, ConnectionError):  # as above
            while True:
                await loop.sock_sendall(self._near, await pipe.receive())
