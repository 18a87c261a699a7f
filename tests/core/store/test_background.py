from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from proxystore_core.store import _background
from proxystore_core.store._background import Timers, Workers

DEADLINE = 10


def wait_for(condition: Any) -> None:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.005)


def test_submit() -> None:
    workers = Workers()
    assert workers.submit(divmod, 7, 2).result(DEADLINE) == (3, 1)
    assert workers.submit(int, "ff", base=16).result(DEADLINE) == 255
    error = workers.submit(divmod, 1, 0).exception(DEADLINE)
    assert isinstance(error, ZeroDivisionError)


def test_threads_are_used_again_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background, "_MAX_WORKERS", 3)
    workers = Workers()
    for number in range(10):
        assert workers.submit(int, number).result(DEADLINE) == number
        wait_for(lambda: workers._free == 1)
    assert workers._workers == 1
    go_on = threading.Event()
    futures = [workers.submit(go_on.wait, DEADLINE) for _ in range(10)]
    assert workers._workers == 3
    assert futures[-1].cancel()
    go_on.set()
    assert all(future.result(DEADLINE) for future in futures[:-1])


def test_idle_threads_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background, "_IDLE_SECONDS", 0.01)
    workers = Workers()
    thread = workers.submit(threading.current_thread).result(DEADLINE)
    assert thread.daemon
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert (workers._workers, workers._free) == (0, 0)
    assert workers.submit(int, 3).result(DEADLINE) == 3


def test_where_no_thread_starts_the_task_remains_to_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        future = workers.submit(int, 3)
        assert future.cancel()
    assert workers.submit(int, 4).result(DEADLINE) == 4


def test_timers_keep_their_order_and_can_be_cancelled() -> None:
    timers, calls, done = Timers(), [], threading.Event()
    start = time.monotonic()
    timers.call_at(start + 0.06, lambda: (calls.append("third"), done.set()))  # type: ignore[func-returns-value]
    timers.call_at(start + 0.04, lambda: calls.append("second"))
    cancelled = timers.call_at(start + 0.05, lambda: calls.append("never"))
    timers.call_at(start - 1, lambda: calls.append("first"))
    later = timers.call_at(start + 1e9, lambda: calls.append("much later"))
    timers.cancel(cancelled)
    timers.cancel(cancelled)
    assert done.wait(DEADLINE)
    assert calls == ["first", "second", "third"]
    assert time.monotonic() >= start + 0.06
    timers.cancel(later)
    wait_for(lambda: not timers._running)


def test_the_timer_thread_goes_and_comes() -> None:
    timers = Timers()
    for _ in range(2):
        done = threading.Event()
        timers.call_at(time.monotonic(), done.set)
        assert done.wait(DEADLINE)
        wait_for(lambda: not timers._running)


def test_a_forked_child_starts_anew() -> None:
    assert _background.submit(int, 1).result(DEADLINE) == 1
    _background.cancel(_background.call_at(time.monotonic() + 100, int))
    pid = os.fork()
    if pid == 0:
        done = threading.Event()
        _background.call_at(time.monotonic(), done.set)
        ok = _background.submit(int, 2).result(DEADLINE) == 2 and done.wait(DEADLINE)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
