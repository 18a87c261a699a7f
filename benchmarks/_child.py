"""A second process that calls functions for a benchmark, as a consumer or under observation."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

READY_TIMEOUT = 300.0  # seconds


def _serve(connection: Connection) -> None:
    while True:
        job = connection.recv()
        if job is None:
            return
        function, args, kwargs = job
        try:
            connection.send((True, function(*args, **kwargs)))
        except BaseException as error:
            connection.send((False, f"{type(error).__name__}: {error}"))
            raise


class Child:
    """A fresh interpreter; `call` runs a module-level function there and returns its result."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the child and return what it returns."""
        self._connection.send((function, args, kwargs))
        if not self._connection.poll(READY_TIMEOUT):
            raise TimeoutError(f"{function.__name__} did not end within {READY_TIMEOUT} s")
        done, value = self._connection.recv()
        if not done:
            raise RuntimeError(f"{function.__name__} failed in the child: {value}")
        return value  # type: ignore[no-any-return]  # what `function` returned, pickled

    def close(self) -> None:
        """End the child."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):  # it ended by itself meanwhile
                self._connection.send(None)
            self._process.join(20)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def resident(pid: int | str = "self") -> dict[str, int]:
    """Read a process's resident memory in bytes, split as Linux splits it.

    Returns:
        `VmHWM` (peak of the sum), `VmRSS`, `RssAnon` (private), `RssFile`, `RssShmem` (shared).
    """
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in {"VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"}:
            found[name] = int(value.split()[0]) * 1024
    return found


def reset_peak() -> None:
    """Set this process's `VmHWM` back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


class Sampler:
    """Watches a process's resident memory from outside, about a thousand times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self.peak: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.is_set():
            now = resident(self._pid)
            for name, value in now.items():
                self.peak[name] = max(value, self.peak.get(name, 0))
            time.sleep(0.0005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
