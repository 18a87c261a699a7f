"""A circuit through a relay, as its two ends see it: a `Pipe` with credit in both directions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from proxystore_endpoint.exceptions import MessageTooLargeError, PipeClosedError, RelayMessageError
from proxystore_endpoint.limits import KIB, MIB
from proxystore_endpoint.relay import messages as m

WINDOW: Final = 4 * MIB
"""What the relay may send on a circuit before this side takes it."""
MESSAGE: Final = 64 * KIB
"""What is sent at once. The relay takes more, but buffers over 128 KiB are fresh pages each time
with glibc's allocator, which costs more than all copies; and others get their turn sooner."""
_SHARE: Final = 4


class RelayPipe:
    """One end of a circuit.

    Args:
        circuit: The circuit's number.
        peer: Who is at the other end, as the relay says: the secure channel proves it.
        credit: What may be sent before the relay grants more.
        payload_limit: Largest message that the relay takes.
        send: Sends a frame, and waits while the websocket is full.
        push: Sends a small frame without waiting.
        forget: Called when the pipe ends.
    """

    kind = "relay"

    def __init__(
        self,
        circuit: int,
        peer: UUID,
        *,
        credit: int,
        payload_limit: int,
        send: Callable[[bytes], Awaitable[None]],
        push: Callable[[bytes], None],
        forget: Callable[[int], object],
    ) -> None:
        self.circuit = circuit
        self.peer = peer
        self._max_message = min(payload_limit, MESSAGE)
        self._credit = credit
        self._granted = WINDOW
        self._taken = 0
        self._queue: deque[m.Data] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._end: str | None = None  # no more comes
        self._closed = False  # by this side
        self._send = send
        self._push = push
        self._forget = forget

    def __repr__(self) -> str:
        state = "closed" if self._closed or self._end is not None else "open"
        return f"RelayPipe({self.circuit}, peer={self.peer}, {state})"

    @property
    def max_message(self) -> int:
        """Bytes of one message at most."""
        return self._max_message

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closed or self._end is not None

    async def send(self, message: bytes | memoryview) -> None:
        """Send one message; waits while the other side, or the way there, is full.

        Raises:
            MessageTooLargeError: If it is over `max_message` bytes.
            PipeClosedError: If the pipe is closed, by either side or with the relay.
        """
        nbytes = message.nbytes if isinstance(message, memoryview) else len(message)
        if nbytes > self._max_message:
            raise MessageTooLargeError(
                f"A message of {nbytes} bytes; a circuit takes {self._max_message}.",
                nbytes=nbytes,
                limit=self._max_message,
            )
        cost = m.cost(nbytes)
        while True:
            if self.closed:
                raise self._error()
            if self._credit >= cost:
                break
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        self._credit -= cost
        await self._send(m.encode_data(self.circuit, message))

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            PipeClosedError: If the pipe is closed, by either side or with the relay, and all
                messages were returned.
        """
        while not self._queue:
            if self.closed:
                raise self._error()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._queue.popleft()
        if not self.closed:
            self._taken += message.cost
            if self._taken >= WINDOW // _SHARE:
                self._granted += self._taken
                self._push(m.encode_credit(self.circuit, self._taken))
                self._taken = 0
        return bytes(message.payload)

    async def close(self) -> None:
        """Let go of the circuit; what was sent before still arrives. Never fails, nor waits."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        if self._end is None:
            self._push(m.encode(m.Close(self.circuit, "closed")))
        self._forget(self.circuit)
        self._wake()

    # What the relay says.

    def on_data(self, message: m.Data) -> None:
        """Take a message.

        Raises:
            RelayMessageError: If the relay sends more than it was allowed to.
        """
        if self._closed:
            return
        self._granted -= message.cost
        if self._granted < 0:
            raise RelayMessageError("The relay sent more on a circuit than it had credit for.")
        self._queue.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def on_credit(self, amount: int) -> None:
        """Take credit."""
        self._credit += amount
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def on_end(self, reason: str) -> None:
        """Learn that the other side, or the relay, is gone."""
        if self._end is None:
            self._end = reason
            self._forget(self.circuit)
            self._wake()

    def _wake(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _error(self) -> PipeClosedError:
        if self._closed:
            return PipeClosedError("The circuit was closed on this side.")
        return PipeClosedError(f"The circuit to {self.peer} is closed: {self._end}.")
