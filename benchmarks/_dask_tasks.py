"""Objects and task functions of the Dask benchmark; workers import them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_made: dict[tuple[str, int], Any] = {}
_held: dict[str, Any] = {}


def make(kind: str, nbytes: int, variant: int = 0) -> Any:
    """Make an object of about so many bytes; another variant has other content."""
    if kind == "array":
        import numpy as np

        array = np.ones(nbytes // 8)
        array[0] = variant
        return array
    if kind == "bytes":
        block = bytes(range(256))
        return (b"%16d" % variant + block * (nbytes // len(block) + 1))[:nbytes]
    # Pickled, each of these takes a little more than a hundred bytes.
    return [
        {"number": i + variant, "name": f"record {i:08}", "text": f"{i:060}", "weight": i / 3}
        for i in range(nbytes // 100)
    ]


def give(kind: str, nbytes: int) -> Any:
    """Return the same object each time, so that making it is not measured."""
    if (kind, nbytes) not in _made:
        _made[kind, nbytes] = make(kind, nbytes)
    return _made[kind, nbytes]


def noop(*_: Any) -> None:
    """Do nothing."""


def take(obj: Any) -> int:
    """Use an object: the least that a task can do with it."""
    return len(obj)


def take_one(_: int, obj: Any) -> int:
    """Use an object that other tasks use too."""
    return len(obj)


def read_and_hold(_: int, data: Any) -> float:
    """Read all of an array, and keep it until the next one or `drop`."""
    total = float(data.sum())
    _held["data"] = data
    return total


def drop() -> None:
    """Let go of what `give` and `read_and_hold` kept."""
    _made.clear()
    _held.clear()


def memory() -> int:
    """Return the memory of this process in bytes; pages shared by n processes count 1/n."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in /proc/self/smaps_rollup")
