"""Call a function in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

R = TypeVar("R")
PATIENCE = 20.0  # seconds that an interrupted process has to clean up


def call_apart(function: Callable[..., R], *arguments: object) -> R:
    """Call a function in a fresh process, so that nothing is left of it in this one.

    An interrupt (Ctrl-C) is passed on to that process alone: were it to reach the processes of a
    workflow engine too, as it does in one process group, the engine would wait for dead processes
    while it cleans up.

    Args:
        function: An importable function.
        *arguments: Its arguments.

    Returns:
        What it returned.

    Raises:
        RuntimeError: If the process died.
        BaseException: Whatever the function raised.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        good, answer = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"The process ended early, with status {process.exitcode}.") from None
    except KeyboardInterrupt:
        if process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
        raise
    finally:
        ours.close()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
    if not good:
        raise answer
    result: R = answer
    return result


def _call(pipe: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.setpgrp()
    try:
        answer = True, function(*arguments)
    except KeyboardInterrupt:
        return
    except Exception as error:  # noqa: BLE001 - passed on to the caller, who raises it
        error.add_note("It was raised in the process that ran the workflow.")
        answer = False, error
    pipe.send(answer)
    pipe.close()
