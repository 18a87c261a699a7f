"""Start and end what the stack runs beside this process."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

MARK = "COMPUTE_STACK_MARK"  # variable by which a process's family is known


class StackError(RuntimeError):
    """A part of the stack is missing, did not start, or has ended."""


def free_ports(count: int) -> list[int]:
    """Find TCP ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(int(probe.getsockname()[1]))
        return found


class Process:
    """A program in a session of its own, whose output goes to a file.

    Args:
        name: What to call it in errors.
        command: The program and its arguments.
        environment: All of its environment; `MARK` is added unless it is there.
        log: File for its output.
        directory: Where it runs.
        stdin: Bytes that it reads; `None` for none.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        directory: Path,
        stdin: bytes | None = None,
    ) -> None:
        self.name = name
        self.log = log
        environment = {MARK: uuid.uuid4().hex, **environment}
        self.mark = environment[MARK]
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    command,
                    env=environment,
                    cwd=directory,
                    stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise StackError(f"{name}: there is no program {command[0]}") from error
        self.pid = self._process.pid
        if stdin is not None and self._process.stdin is not None:
            with self._process.stdin as pipe:
                pipe.write(stdin)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def tail(self, characters: int = 3000) -> str:
        """Return the end of what it wrote."""
        return self.log.read_text(errors="replace")[-characters:]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until a condition holds.

        Raises:
            StackError: If the process ends before, or the time is over.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.alive:
                raise StackError(f"{self.name} ended early:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} is not ready after {timeout:g} s:\n{self.tail()}")
            time.sleep(0.02)

    def end(self, kind: signal.Signals = signal.SIGTERM, patience: float = 20.0) -> None:
        """Ask it to end, and kill whatever is left of all that it started."""
        family = family_of(self.pid, self.mark) if self.alive else set()
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        kill(family | family_of(None, self.mark), self._process.poll, patience)
        self._process.wait()

    def family(self) -> list[int]:
        """Return the processes that it started, and itself, whatever session they are in."""
        return sorted(
            process.pid for process in family_of(self.pid if self.alive else None, self.mark)
        )


def family_of(pid: int | None, mark: str) -> set[psutil.Process]:
    """Find the descendants of a process, and those whose parents ended by the mark they inherit.

    The mark alone is not enough: who changes its title writes over its environment.

    Args:
        pid: The process, if it is alive.
        mark: The mark.
    """
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid is not None:
            found |= {me := psutil.Process(pid), *me.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.add(process)
    return found


def kill(
    family: Iterable[psutil.Process],
    reap: Callable[[], object] = lambda: None,
    patience: float = 20.0,
) -> None:
    """Kill processes, and wait until they are gone.

    Args:
        family: The processes.
        reap: Called again and again, to take the remains of children.
        patience: Seconds to wait.
    """
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + patience
    while any(map(running, family)) and time.monotonic() < deadline:
        reap()
        time.sleep(0.01)


def running(process: psutil.Process) -> bool:
    """Tell whether a process still does something: an orphan's remains may wait to be reaped."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
