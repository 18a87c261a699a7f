"""Budgets: bytes that may be taken up to a limit."""

from __future__ import annotations

import threading

from proxystore_core.exceptions import StorageFullError
from proxystore_core.utils.data import bytes_to_readable

PAGE = 4096


class Budget:
    """Bytes that threads take and give back.

    Args:
        limit: Bytes that may be taken.
        what: What they are, for people: `'on disk'`.
        advice: What to do when they are spent.
    """

    def __init__(self, limit: int, what: str, advice: str) -> None:
        self.limit = limit
        self.used = 0
        self._what = what
        self._advice = advice
        self._mutex = threading.Lock()

    def take(self, nbytes: int, *, whole: bool = False) -> None:
        """Take bytes.

        Args:
            nbytes: How many.
            whole: Whether one may take more than there are, if no other has any.

        Raises:
            StorageFullError: There are not as many left.
        """
        with self._mutex:
            if self.used + nbytes > self.limit and not (whole and self.used == 0):
                raise StorageFullError(
                    f"{bytes_to_readable(self.used)} of {bytes_to_readable(self.limit)} "
                    f"{self._what} are taken, {bytes_to_readable(nbytes)} more do not fit. "
                    f"{self._advice}",
                    nbytes=nbytes,
                    used=self.used,
                    limit=self.limit,
                )
            self.used += nbytes

    def force(self, nbytes: int) -> None:
        """Take bytes that are taken already, whatever the limit says."""
        with self._mutex:
            self.used += nbytes

    def give(self, nbytes: int) -> None:
        """Give bytes back."""
        with self._mutex:
            self.used -= nbytes


def pages(nbytes: int) -> int:
    """Return what a file of so many bytes takes on a device."""
    return -(-nbytes // PAGE) * PAGE
