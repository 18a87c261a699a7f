"""A counter that threads share."""

from __future__ import annotations

from threading import Lock


class AtomicCounter:
    """Counts from zero; no two threads get the same number.

    Args:
        size: Count at which `increment` raises; `None` never does.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._value = 0
        self._lock = Lock()

    def increment(self) -> int:
        """Return the count, then add one to it.

        Raises:
            ValueError: If the count has reached `size`.
        """
        with self._lock:
            value = self._value
            if self._size is not None and value >= self._size:
                raise ValueError(f"The counter has reached its end: {self._size}.")
            self._value = value + 1
            return value
