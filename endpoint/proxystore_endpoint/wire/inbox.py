"""Cuts the bytes that come in into frames; bodies of DATA go straight to where they belong."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import FrameError
from proxystore_endpoint.wire.frames import DATA, HEADER, HEADER_BYTES, NAMES

_CAPACITY: Final = limits.MAX_BODY + HEADER_BYTES  # the largest frame that is not DATA


class Frame(NamedTuple):
    """A frame that came in.

    Attributes:
        kind: Its type.
        flags: Its flags.
        stream: Its stream.
        length: Bytes of its body.
        body: Its body, valid until the next frame; empty for DATA, whose body follows.
    """

    kind: int
    flags: int
    stream: int
    length: int
    body: memoryview


class Inbox:
    """Memory for what comes in: 64 KiB of its own, whatever a header says."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(_CAPACITY))
        self._start = 0
        self._end = 0
        self._target: memoryview | None = None
        self._lent = False
        self._forgotten = False
        self.length = 0
        """Bytes of the body under way, or of the last one."""
        self.left = 0
        """Bytes of a DATA frame's body that have not come yet."""

    @property
    def filling(self) -> bool:
        """Whether `buffer` gave out memory of a body's target, and `add` was not told yet."""
        return self._lent and self._target is not None

    @property
    def filled(self) -> int:
        """Bytes of the body under way that are in its target."""
        return 0 if self._target is None else len(self._target) - self.left

    @property
    def direct(self) -> bool:
        """Whether `buffer` is memory of a body's target."""
        return self._target is not None

    @property
    def empty(self) -> bool:
        """Whether no bytes wait to be looked at."""
        return self._start == self._end

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        self._lent = True
        target = self._target
        if target is not None:
            return target[len(target) - self.left :]
        start, end = self._start, self._end
        if start:  # what is left of a frame goes to the front, so that all of it has room
            if start != end:
                self._memory[: end - start] = self._memory[start:end]
            self._start, self._end = 0, end - start
        return self._memory[self._end :]

    def add(self, n: int) -> None:
        """Tell that `n` bytes came."""
        self._lent = False
        if self._target is None:
            self._end += n
        else:
            self.left -= n
            if self._forgotten:
                self._target = None
                self._forgotten = False

    def frame(self, max_body: int) -> Frame | None:
        """The next frame, when all of it (of DATA: its header) is there.

        Raises:
            FrameError: Its body is longer than allowed.
        """
        start = self._start
        there = self._end - start
        if there < HEADER_BYTES:
            return None
        kind, flags, _, stream, length = HEADER.unpack_from(self._memory, start)
        start += HEADER_BYTES
        if kind == DATA:
            if not 0 < length <= limits.MAX_DATA:
                raise FrameError(f"A DATA frame says it has {length} bytes.")
            self._start = start
            return Frame(kind, flags, stream, length, self._memory[:0])
        if length > max_body:
            name = NAMES.get(kind, f"type {kind}")
            raise FrameError(f"A frame ({name}) of {length} bytes is over the limit {max_body}.")
        if there < HEADER_BYTES + length:
            return None
        self._start = start + length
        return Frame(kind, flags, stream, length, self._memory[start : start + length])

    def begin(self, length: int, target: memoryview | None) -> None:
        """After a DATA frame: its body goes to `target`, of the same size, or nowhere."""
        self.left = self.length = length
        self._target = target

    def consume(self) -> None:
        """Move what there is of the body under way; `left` is 0 when it is complete."""
        take = min(self.left, self._end - self._start)
        if take:
            if self._target is not None:
                at = len(self._target) - self.left
                self._target[at : at + take] = self._memory[self._start : self._start + take]
            self._start += take
            self.left -= take
        if not self.left:
            self._target = None

    def forget(self) -> None:
        """Throw away the rest of the body under way.

        If `buffer` gave out memory of its target, that may be written until `add` is called.
        """
        if self._lent:
            self._forgotten = self._target is not None
        else:
            self._target = None
