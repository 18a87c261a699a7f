"""Streams: one request and its answer, and the bodies of either."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from proxystore_endpoint import limits


class Stream:
    """What a connection knows of one stream.

    It is over when neither side has anything more to send on it.
    """

    __slots__ = (
        "answered",
        "credit",
        "deadline",
        "drained",
        "expected",
        "number",
        "ours",
        "queue",
        "queued",
        "receiving",
        "room",
        "round_at",
        "round_start",
        "sending",
        "sink",
        "taken",
        "unsent",
        "wanted",
        "window",
    )

    def __init__(self, number: int, *, ours: bool) -> None:
        self.number = number
        self.ours = ours
        """Whether we ask."""
        self.answered = False
        """Whether the response was sent or received."""
        self.drained = False
        """Whether nobody wants what comes any more."""
        self.deadline = math.inf

        self.receiving = False
        """Whether the other side has more to send."""
        self.expected = 0
        """Bytes of the body that comes in."""
        self.taken = 0
        """Bytes of it that came, in whole frames."""
        self.wanted = -1
        """Bytes that we asked for at most, or -1."""
        self.sink: memoryview | None = None
        self.room = limits.INITIAL_WINDOW
        """Bytes that the other side may still send."""
        self.window = limits.INITIAL_WINDOW
        """What `room` is filled up to."""
        self.round_start = 0
        """What `taken` was when the window began that is now used up."""
        self.round_at = 0.0
        """When that was."""

        self.sending = False
        """Whether we have more to send."""
        self.unsent = 0
        """Bytes of the body that goes out that were not given to `data` yet."""
        self.queue: deque[memoryview] = deque()
        self.queued = 0
        """Bytes in `queue`."""
        self.credit = limits.INITIAL_WINDOW
        """Bytes that we may still send."""

    def drop(self) -> None:
        """Forget what was to be sent."""
        self.queue.clear()
        self.queued = self.unsent = 0
        self.sending = False


class Streams:
    """The streams that are open, of both sides, and their deadlines.

    Args:
        odd: Whether we are the connecting side, whose streams have odd numbers.
    """

    def __init__(self, *, odd: bool) -> None:
        self._open: dict[int, Stream] = {}
        self._parity = 1 if odd else 0
        self._last = [0, 0]  # highest number of even and odd streams
        self._counts = [0, 0]
        self._deadlines: list[tuple[float, int]] = []

    @property
    def ours(self) -> int:
        """How many of ours are open."""
        return self._counts[self._parity]

    @property
    def theirs(self) -> int:
        """How many of the other side's are open."""
        return self._counts[1 - self._parity]

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._open.values()))

    def get(self, number: int) -> Stream | None:
        """The stream, if it is open."""
        return self._open.get(number)

    def next(self) -> int:
        """Number of our next stream."""
        last = self._last[self._parity]
        return last + 2 if last or not self._parity else 1

    def is_new(self, number: int) -> bool:
        """Whether the other side may open a stream of this number."""
        parity = number & 1
        return parity != self._parity and number > self._last[parity]

    def was_open(self, number: int) -> bool:
        """Whether there may have been a stream of this number."""
        return 0 < number <= self._last[number & 1]

    def add(self, stream: Stream) -> None:
        """Open a stream."""
        parity = stream.number & 1
        self._open[stream.number] = stream
        self._last[parity] = stream.number
        self._counts[parity] += 1
        if stream.deadline != math.inf:
            heap = self._deadlines
            heapq.heappush(heap, (stream.deadline, stream.number))
            if len(heap) > 64 + 2 * len(self._open):  # most are of streams long over
                heap[:] = [entry for entry in heap if entry[1] in self._open]
                heapq.heapify(heap)

    def remove(self, stream: Stream) -> None:
        """Close a stream."""
        del self._open[stream.number]
        self._counts[stream.number & 1] -= 1

    def next_deadline(self) -> float:
        """The earliest deadline of an open stream."""
        heap = self._deadlines
        while heap and heap[0][1] not in self._open:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def expired(self, now: float) -> Iterator[Stream]:
        """Take the streams whose deadline has passed, each once."""
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            stream = self._open.get(heapq.heappop(heap)[1])
            if stream is not None:
                yield stream
