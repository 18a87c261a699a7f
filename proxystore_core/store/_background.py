"""Threads that do things aside, and go away when there is nothing to do.

They are daemons, so they never keep a process from ending, and none is started
before it is needed. A forked child starts without any.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WORKERS = 32
_IDLE_SECONDS = 5.0


class Workers:
    """A pool of daemon threads that grows as needed and shrinks when idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._workers = 0
        self._free = 0

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in another thread."""
        future: Future[T] = Future()
        with self._lock:
            self._tasks.put((future, lambda: function(*args, **kwargs)))
            self._free -= 1
            if self._free < 0 and self._workers < _MAX_WORKERS:
                with contextlib.suppress(RuntimeError):  # no threads: it remains to be cancelled
                    threading.Thread(
                        target=self._work, name="proxystore-worker", daemon=True
                    ).start()
                    self._workers += 1
                    self._free += 1
        return future

    def _work(self) -> None:
        while True:
            try:
                future, call = self._tasks.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if not self._tasks.empty():
                        continue
                    self._workers -= 1
                    self._free -= 1
                    return
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 -- it is the future's to raise
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, call
            with self._lock:
                self._free += 1


class Timers:
    """Calls functions at their time, all of them in one daemon thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._running = False

    def call_at(self, when: float, function: Callable[[], None]) -> int:
        """Call a function once; it should hand long work on to `submit`."""
        with self._changed:
            number = next(self._number)
            heapq.heappush(self._heap, (when, number, function))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="proxystore-timer", daemon=True).start()
            self._changed.notify()
        return number

    def cancel(self, number: int) -> None:
        """Forget a call."""
        with self._changed:
            self._heap = [entry for entry in self._heap if entry[1] != number]
            heapq.heapify(self._heap)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._heap:
                    self._running = False
                    return
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))
                    continue
                function = heapq.heappop(self._heap)[2]
            function()
            del function


_workers = Workers()
_timers = Timers()


def submit(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call a function in another thread, a daemon.

    Returns:
        Its future. One that no thread took up yet can be cancelled.
    """
    return _workers.submit(function, *args, **kwargs)


def call_at(when: float, function: Callable[[], None]) -> int:
    """Call a function once, at a time of the clock `time.monotonic`.

    Returns:
        The number that `cancel` takes.
    """
    return _timers.call_at(when, function)


def cancel(number: int) -> None:
    """Do not call what `call_at` was told to; if it was called already, that is no error."""
    _timers.cancel(number)


def _after_fork() -> None:
    global _workers, _timers
    _workers, _timers = Workers(), Timers()


os.register_at_fork(after_in_child=_after_fork)
