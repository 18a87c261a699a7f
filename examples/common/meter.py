"""What processes cost: processor time, and peak memory.

Memory is that of all processes together, with what stores hold in shared memory. On Linux it is the
proportional set size (PSS), so that a page that several processes share counts once; pages of
shared memory are left out of it and the files of the stores counted instead, mapped or not, kept
for reuse or not. Elsewhere the unique set size stands in.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import psutil


class Processes:
    """Watches processes, with all that they started, in a thread until it is left as a context.

    Attributes:
        peak: Most bytes of memory that they and the stores held together.
        stored: Most bytes that the stores held.
        cpu: Seconds of processor time that they used, the watching included.

    Args:
        pids: Processes to watch beside this one.
        root: Directory that stores lie in.
        period: Seconds between two samples.
    """

    def __init__(self, pids: Sequence[int], root: Path, period: float = 0.2) -> None:
        self.peak = 0
        self.stored = 0
        self.cpu = 0.0
        self._pids = [psutil.Process().pid, *pids]
        self._root = root
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
            stored = sum(size for _, size in files(self._root))
            self.peak = max(self.peak, used + stored)
            self.stored = max(self.stored, stored)

    def _cpu_time(self) -> float:
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _processes(self) -> Iterable[psutil.Process]:
        found = {}
        for pid in self._pids:
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
