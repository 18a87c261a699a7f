"""Does something when an object is gone, at a moment when that is safe.

A finalizer runs wherever the last reference happens to go. Inside a garbage
collection that may be in the middle of any code of the same thread, with locks
held; so what finalizers of collected objects do is handed to a thread.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

_collecting = 0  # the thread that collects garbage
_watching = False
_starting = threading.Lock()
# Its `put` may interrupt itself, which no other queue allows.
_tasks: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()


def when_gone(
    obj: object, function: Callable[..., object], *args: Any
) -> weakref.finalize[..., Any]:
    """Call a function when an object is gone, or as the process ends.

    It is not called in a forked child, where the object is a copy.

    Args:
        obj: The object.
        function: What to call; it reports its errors itself.
        args: What to call it with; nothing that refers to the object.

    Returns:
        The finalizer: calling it does it now, `detach` gives it up.
    """
    _watch()
    return weakref.finalize(obj, _run, os.getpid(), function, args)


def _run(pid: int, function: Callable[..., object], args: tuple[Any, ...]) -> None:
    if os.getpid() != pid:
        return
    if _collecting == threading.get_ident():
        _tasks.put((function, args))
    else:
        function(*args)


def _watch() -> None:
    global _watching
    if not _watching:
        with _starting:
            if not _watching:
                gc.callbacks.append(_on_collection)
                # Started now: in a collection it is too late for that.
                threading.Thread(target=_work, name="proxystore-finalizer", daemon=True).start()
                _watching = True


def _on_collection(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = threading.get_ident() if phase == "start" else 0


def _work() -> None:
    while True:
        function, args = _tasks.get()
        function(*args)
        del function, args


def _after_fork() -> None:
    global _watching, _starting, _tasks
    if _watching:
        gc.callbacks.remove(_on_collection)
    _watching, _starting, _tasks = False, threading.Lock(), queue.SimpleQueue()


os.register_at_fork(after_in_child=_after_fork)
