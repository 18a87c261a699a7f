"""The shared-memory channel below the store: bytes in, bytes out, nothing serialized.

Puts are compared with one memcpy into memory that is already there, and with
writing and mapping plain files of the same memory file system by hand. Every
object is evicted before the next put, outside of the clock.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import (
    GB,
    KB,
    MB,
    Options,
    Report,
    interleave,
    median,
    parse,
    progress,
    size,
)
from proxystore_core.connectors.shared_memory import SharedMemoryConnector

BATCH = 100  # operations behind one sample of a small object


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, in seconds, and what it returned."""
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


class Plain:
    """Files in the root of a store, as one would write them by hand."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory, "by-hand")

    def put(self, data: memoryview) -> None:
        """Write a new file."""
        with self.path.open("wb") as file:
            file.write(data)

    def get(self) -> mmap.mmap:
        """Map it."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def evict(self) -> None:
        """Remove it."""
        self.path.unlink()


def large(report: Report, options: Options, nbytes: int) -> None:
    """Measure one large object: fresh, written again, mapped and read."""
    progress(f"shared memory, {size(nbytes)}")
    source = np.arange(nbytes // 8, dtype=np.float64)
    data = memoryview(source).cast("B")
    target = np.zeros_like(source)
    np.copyto(target, source)
    with (
        SharedMemoryConnector(recycle=2 * nbytes + GB) as store,
        SharedMemoryConnector(recycle=0) as fresh,
    ):
        plain = Plain(store.directory)

        def put(connector: SharedMemoryConnector) -> float:
            took, key = timed(lambda: connector.put(data))
            connector.evict(key)
            return took

        def by_hand() -> float:
            took, _ = timed(lambda: plain.put(data))
            plain.evict()
            return took

        def get(read: bool) -> float:
            key = store.put(data)
            took, total = timed(lambda: touch(store.get(key), read))
            if read and total != nbytes // 8 - 1:
                raise RuntimeError("the wrong object came back")
            store.evict(key)
            return took

        def get_by_hand() -> float:
            plain.put(data)
            took, _ = timed(plain.get)
            plain.evict()
            return took

        samples = interleave(
            {
                "memcpy": lambda: timed(lambda: np.copyto(target, source))[0],
                "put": lambda: put(store),
                "fresh": lambda: put(fresh),
                "by hand": by_hand,
                "get": lambda: get(read=False),
                "read": lambda: get(read=True),
                "read own": lambda: timed(lambda: float(source.max()))[0],
                "get by hand": get_by_hand,
            },
            options.rounds,
            warmup=3,  # the first writes a fresh segment, the second maps it
        )
    report.samples |= {f"{name} {size(nbytes)}": taken for name, taken in samples.items()}
    middle = {name: median(taken) for name, taken in samples.items()}
    goal = 0.8 if nbytes == GB else None
    report.faster(f"put {size(nbytes)}", "one memcpy", middle["put"], middle["memcpy"], goal)
    report.faster(f"put {size(nbytes)}", "a file", middle["put"], middle["by hand"])
    report.faster(f"put {size(nbytes)}, fresh", "a file", middle["fresh"], middle["by hand"])
    report.within(f"get {size(nbytes)}", middle["get"], 300)
    report.faster(f"get {size(nbytes)}", "a mapped file", middle["get"], middle["get by hand"])
    report.faster(f"get and read {size(nbytes)}", "own memory", middle["read"], middle["read own"])


def touch(found: Any, read: bool) -> float:
    """Read all of an object, or nothing of it."""
    return float(np.frombuffer(found).max()) if read else 0.0


def small(report: Report, options: Options, nbytes: int) -> None:
    """Measure small objects in batches."""
    progress(f"shared memory, {size(nbytes)}")
    data = os.urandom(nbytes)
    with SharedMemoryConnector() as store:

        def run() -> tuple[float, float, float]:
            put, keys = timed(lambda: [store.put(data) for _ in range(BATCH)])
            get, _ = timed(lambda: [store.get(key) for key in keys])
            evict, _ = timed(lambda: [store.evict(key) for key in keys])
            return put / BATCH, get / BATCH, evict / BATCH

        run()
        puts, gets, evicts = zip(*(run() for _ in range(options.rounds)), strict=True)
    limit = 100 if nbytes == KB else None
    for name, taken in (("put", puts), ("get", gets), ("evict", evicts)):
        report.samples[f"{name} {size(nbytes)}"] = list(taken)
        report.within(f"{name} {size(nbytes)}", median(taken), limit)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("shared memory")
    for nbytes in (KB, 100 * KB):
        small(report, options, nbytes)
    for nbytes in (MB,) if options.quick else (MB, 100 * MB, GB):
        large(report, options, nbytes)
    report.finish(options)


if __name__ == "__main__":
    main()
