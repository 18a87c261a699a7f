"""Message pipes: what relay circuits and data channels look like from above."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Pipe(Protocol):
    """An ordered, reliable stream of messages to one peer, for asyncio.

    One task sends and one receives. `close` may be called from a third, and again:
    both of them then end with `PipeClosedError`.
    """

    @property
    def kind(self) -> str:
        """Kind of the path: `relay` or `webrtc`."""
        ...

    @property
    def max_message(self) -> int:
        """Bytes of one message at most."""
        ...

    async def send(self, message: bytes | memoryview) -> None:
        """Send one message; waits while the other side, or the way there, is full.

        The memory may change once this returns.

        Raises:
            PipeClosedError: The pipe is closed, by either side.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            PipeClosedError: The pipe is closed, by either side, and all messages were returned.
        """
        ...

    async def close(self) -> None:
        """Let go of the pipe."""
        ...
