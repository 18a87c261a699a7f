"""What a run costs: bytes through Parsl, processor time, and peak memory.

Bytes through Parsl are counted where they enter and leave the client: the length of every
serialized task given to `submit_payload` and of every message taken from the queue of results.
Each of them passes the interchange and the manager as well, but is counted once.

Memory is that of client, interchange, manager and workers together, with what the store holds in
shared memory. On Linux it is the proportional set size (PSS), so that a page that several processes
share counts once; pages of shared memory are left out of it and the files of the store counted
instead, mapped or not, kept for reuse or not. Elsewhere the unique set size stands in.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil


class Traffic:
    """Counts the bytes between a client and the interchange of its HighThroughputExecutor.

    Args:
        executor: A HighThroughputExecutor, or one derived from it, that has started.
    """

    def __init__(self, executor: Any) -> None:
        self.sent = 0
        self.received = 0
        submit, get = executor.submit_payload, executor.incoming_q.get

        def counted_submit(context: dict[str, Any], buffer: bytes) -> Any:
            self.sent += len(buffer)
            return submit(context, buffer)

        def counted_get(timeout_ms: int | None = None) -> bytes | None:
            message: bytes | None = get(timeout_ms=timeout_ms)
            self.received += len(message or b"")
            return message

        executor.submit_payload = counted_submit
        executor.incoming_q.get = counted_get


class Processes:
    """Watches client, interchange, manager and workers in a thread until it is left as a context.

    Attributes:
        peak: Most bytes of memory that they and the store held together.
        cpu: Seconds of processor time that they used, the watching included.

    Args:
        executor: A HighThroughputExecutor on a LocalProvider that has started.
        store: Directory that stores lie in.
        period: Seconds between two samples.
    """

    def __init__(self, executor: Any, store: Path, period: float = 0.2) -> None:
        self.peak = 0
        self.cpu = 0.0
        self._executor = executor
        self._store = store
        self._period = period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processes", daemon=True)

    def __enter__(self) -> Processes:
        self.cpu = -self._cpu_time()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu += self._cpu_time()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            used = sum(_private(process) for process in self._processes())
            self.peak = max(self.peak, used + sum(size for _, size in files(self._store)))

    def _cpu_time(self) -> float:
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _processes(self) -> Iterable[psutil.Process]:
        # The manager is no child of ours: LocalProvider starts it through a shell that ends.
        blocks = [job["remote_pid"] for job in self._executor.provider.resources.values()]
        found = {}
        for pid in [psutil.Process().pid, *blocks]:
            try:
                process = psutil.Process(pid)
                found.update({p.pid: p for p in [process, *process.children(recursive=True)]})
            except psutil.NoSuchProcess:
                continue
        return found.values()


def _private(process: psutil.Process) -> int:
    """Bytes of a process: its share of what it shares, without shared memory."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        if not rollup.exists():
            return int(process.memory_full_info().uss)
        fields = dict(line.split(":") for line in rollup.read_text().splitlines()[1:])
    except (OSError, psutil.Error):  # it has ended
        return 0
    kilobytes = {name: int(value.split()[0]) for name, value in fields.items() if "kB" in value}
    return 1024 * (kilobytes["Pss"] - kilobytes.get("Pss_Shmem", 0))


def files(directory: Path) -> list[tuple[Path, int]]:
    """List the files below a directory with the bytes they take."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found.append((path, path.stat().st_blocks * 512))
    return found
