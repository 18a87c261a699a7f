"""What wakes a thread that waits in `poll`."""

from __future__ import annotations

import contextlib
import os
import threading


class Waker:
    """A descriptor that turns readable when any thread calls `wake`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # macOS
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read

    def wake(self) -> None:
        """Wake the thread, or let its next wait end at once."""
        with self._lock:  # `close` must not give the number away to another file meanwhile
            if self._read >= 0 and not self._set:
                self._set = True
                with contextlib.suppress(BlockingIOError):  # full: then it is readable
                    os.write(self._write, b"\1\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Forget all wakes so far; call it before looking for what they were about."""
        with self._lock:
            if self._read >= 0 and self._set:
                self._set = False
                with contextlib.suppress(BlockingIOError):  # nothing there
                    os.read(self._read, 8)

    def close(self) -> None:
        """Let go of the descriptor."""
        with self._lock:
            if self._read >= 0:
                os.close(self._read)
                if self._write != self._read:
                    os.close(self._write)
                self._read = self._write = -1
