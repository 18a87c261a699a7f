"""Print by how much the resident set grows at most in `dump` and in `load`, one case a line.

A script of its own, because a process of pytest has grown already. Linux only:
the mark of the largest resident set can be set back there.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from proxystore_core.serialize import dump, load

N = 6_000_000


def cases() -> dict[str, Callable[[], Any]]:
    frame = {"a": np.arange(float(N)), "b": np.arange(N, dtype="i8")}
    return {
        "bytes": lambda: b"x" * (8 * N),
        "bytes in a dict": lambda: {"x": b"x" * (8 * N)},
        "bytearray": lambda: bytearray(8 * N),
        "array": lambda: np.ones(N),
        "array in another order": lambda: np.ones((200, N // 400, 2)).transpose(2, 0, 1),
        "columns of an array": lambda: np.ones((10, N // 5))[:, N // 10 :],
        "dates": lambda: np.arange(N).astype("M8[s]"),
        "list of arrays": lambda: [np.ones(N // 50) for _ in range(50)],
        "pandas": lambda: pd.DataFrame(
            frame | {"when": pd.date_range("2020", periods=N, freq="s")}
        ),
        "rows of pandas": lambda: pd.DataFrame({c: np.arange(float(N)) for c in "abcd"})[: N // 2],
        "text of pandas": lambda: pd.DataFrame(
            {"t": pd.array(["some text"] * N, "string[pyarrow]")}
        ),
        "polars": lambda: pl.DataFrame(frame | {"t": pl.repeat("some longer text", N, eager=True)}),
        "arrow": lambda: pa.table(frame),
    }


def peak(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what the work returns, and by how many bytes the process grew at most."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")

    def high() -> int:
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    before = high()
    result = work()
    return result, high() - before


def store(parts: Any) -> mmap.mmap:
    """Write parts into memory that is not counted twice when it is read."""
    target = mmap.mmap(-1, parts.nbytes)
    for part in parts.buffers:
        target.write(part)
    return target


def measure(make: Callable[[], Any]) -> tuple[int, int, int]:
    """Return the stored size of an object, and the growth of its dump and load."""
    obj = make()
    dump(obj)  # imports what the first one needs
    parts, dumped = peak(lambda: dump(obj))
    stored = memoryview(store(parts))
    nbytes = parts.nbytes
    _, loaded = peak(lambda: load(stored))
    return nbytes, dumped, loaded


if __name__ == "__main__":
    for name, make in cases().items():
        print(name, *measure(make), sep="\t")
