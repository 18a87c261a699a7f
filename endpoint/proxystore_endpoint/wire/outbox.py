"""What waits to be sent: control frames first, then bodies in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from proxystore_endpoint.wire.frames import DATA, HEADER, pack
from proxystore_endpoint.wire.streams import Stream

BytesLike: TypeAlias = bytes | bytearray | memoryview


class Outbox:
    """The queue of one connection.

    Args:
        data_frame: Body bytes of a DATA frame at most.
    """

    def __init__(self, data_frame: int) -> None:
        self._data_frame = data_frame
        self._control: list[bytes] = []
        self._turns: deque[Stream] = deque()  # those with something queued and credit for it
        self.waiting = 0
        """Bytes of control frames that wait."""
        self.sent = 0
        """Bytes of bodies that were taken."""

    @property
    def empty(self) -> bool:
        """Whether nothing can be sent now."""
        return not self._control and not self._turns

    def control(self, kind: int, stream: int, body: bytes = b"") -> None:
        """Queue a frame that is not DATA."""
        frame = pack(kind, stream, body)
        self._control.append(frame)
        self.waiting += len(frame)

    def put(self, stream: Stream, view: memoryview) -> None:
        """Queue a part of a stream's body."""
        stream.queue.append(view)
        if not stream.queued and stream.credit:
            self._turns.append(stream)
        stream.queued += len(view)

    def credit(self, stream: Stream, nbytes: int) -> None:
        """Let a stream send more."""
        if not stream.credit and stream.queued:
            self._turns.append(stream)
        stream.credit += nbytes

    def drop(self, stream: Stream) -> None:
        """Send nothing more of a stream's body."""
        if stream.queued and stream.credit:
            self._turns.remove(stream)
        stream.drop()

    def clear_control(self) -> None:
        """Send no control frame of those that wait."""
        self._control.clear()
        self.waiting = 0

    def clear_bodies(self) -> None:
        """Send nothing more of any body; the streams themselves must be dropped, too."""
        self._turns.clear()

    def take(self, max_bytes: int | None, done: Callable[[Stream], None]) -> list[BytesLike]:
        """Take what can be sent now.

        Args:
            max_bytes: Stop soon after so many bytes.
            done: Called with a stream whose body is now sent completely.
        """
        parts: list[BytesLike] = []
        size = 0
        if self._control:
            frames = self._control
            parts.append(frames[0] if len(frames) == 1 else b"".join(frames))
            size = self.waiting
            self._control = []
            self.waiting = 0
        turns = self._turns
        while turns and (max_bytes is None or size < max_bytes):
            stream = turns.popleft()
            size += self._frame(stream, parts)
            if stream.queued and stream.credit:
                turns.append(stream)
            elif not stream.queued and not stream.unsent:
                done(stream)
        return parts

    def _frame(self, stream: Stream, parts: list[BytesLike]) -> int:
        length = left = min(self._data_frame, stream.credit, stream.queued)
        parts.append(HEADER.pack(DATA, 0, 0, stream.number, length))
        queue = stream.queue
        while left:
            view = queue[0]
            if len(view) <= left:
                parts.append(queue.popleft())
                left -= len(view)
            else:
                parts.append(view[:left])
                queue[0] = view[left:]
                left = 0
        stream.credit -= length
        stream.queued -= length
        self.sent += length
        return length
