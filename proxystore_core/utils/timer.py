"""How long something takes."""

from __future__ import annotations

from time import perf_counter_ns
from types import TracebackType
from typing import Self


class Timer:
    """Measures a `with` block, or the time between `start` and `stop`.

    ```python
    with Timer() as timer:
        ...
    print(timer.elapsed_ms)
    ```
    """

    def __init__(self) -> None:
        self._started = 0
        self._stopped = 0
        self._running = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds between start and stop.

        Raises:
            RuntimeError: If the timer is running.
        """
        if self._running:
            raise RuntimeError("The timer is still running: stop it before reading it.")
        return self._stopped - self._started

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds between start and stop."""
        return self.elapsed_ns / 1e6

    @property
    def elapsed_s(self) -> float:
        """Seconds between start and stop."""
        return self.elapsed_ns / 1e9

    def start(self) -> Self:
        """Start, again if need be."""
        self._running = True
        self._started = perf_counter_ns()
        return self

    def stop(self) -> Self:
        """Stop."""
        self._stopped = perf_counter_ns()
        self._running = False
        return self
