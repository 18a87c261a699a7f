from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

from proxystore_core.store._finalize import when_gone

DEADLINE = 10


class Thing:
    """Something that can be referred to weakly, and be in a cycle."""


def test_called_at_once_when_the_last_reference_goes() -> None:
    calls: list[tuple[int, int]] = []
    thing = Thing()
    when_gone(thing, lambda *args: calls.append(args), 1, 2)
    assert calls == []
    del thing
    assert calls == [(1, 2)]


def test_detached() -> None:
    calls: list[int] = []
    thing = Thing()
    when_gone(thing, calls.append, 1).detach()
    del thing
    assert calls == []


def test_what_is_collected_is_finalized_in_another_thread_which_takes_the_locks_it_needs() -> None:
    # The collection may happen while its thread holds the lock that the finalizer needs.
    lock, done, threads = threading.Lock(), threading.Event(), []

    def finalize() -> None:
        with lock:
            threads.append(threading.current_thread())
        done.set()

    thing = Thing()
    thing.itself = thing  # type: ignore[attr-defined]
    when_gone(thing, finalize)
    with lock:
        del thing
        gc.collect()
    assert done.wait(DEADLINE)
    assert threads != [threading.current_thread()]
    assert threads[0].daemon


def test_called_as_the_process_ends_and_not_in_a_forked_child() -> None:
    script = (
        "import os\n"
        "from proxystore_core.store._finalize import when_gone\n"
        "class Thing: pass\n"
        "thing = Thing(); when_gone(thing, print, 'gone', os.getpid())\n"
        "if os.fork():\n"
        "    os.wait()\n"
        "    print('parent', os.getpid(), flush=True)\n"
        "else:\n"
        "    del thing\n"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.split()
    assert lines == ["parent", lines[1], "gone", lines[1]]


def test_a_forked_child_can_finalize_its_own() -> None:
    thing = Thing()
    when_gone(thing, int)
    pid = os.fork()
    if pid == 0:
        done = threading.Event()
        own = Thing()
        own.itself = own  # type: ignore[attr-defined]
        when_gone(own, done.set)
        del own
        gc.collect()
        os._exit(0 if done.wait(DEADLINE) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
