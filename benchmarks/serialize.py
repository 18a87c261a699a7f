"""Objects to bytes and back: ours against ProxyStore's serializer and plain pickle 5.

`dump` is what a store does: ours gives parts that a channel writes in place,
the peers join one run of bytes. `joined` joins ours as well. `load` starts
from one run of bytes for everybody.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks._harness import (
    KB,
    MB,
    Options,
    Report,
    have,
    interleave,
    median,
    parse,
    progress,
    size,
)
from proxystore_core.serialize import deserialize, dump, serialize

Call = Callable[[Any], Any]
BATCH_SECONDS = 0.002  # a sample of something short repeats it for about that long


def objects(nbytes: int) -> Iterator[tuple[str, Any]]:
    """Make objects of different types, each of about `nbytes` bytes."""
    yield "bytes", b"x" * nbytes
    yield "str", "x" * nbytes
    yield "array", np.arange(nbytes // 8, dtype=np.float64)
    if have("pandas"):
        yield "frame", frame(nbytes)
    if nbytes <= 10 * MB:  # more would take minutes, and only measure pickle
        rows = range(nbytes // 36)
        yield "list of dicts", [{"id": i, "value": i / 7, "name": f"n{i}"} for i in rows]


def frame(nbytes: int) -> Any:
    """Make a pandas frame: two columns of numbers, one of text, one of dates."""
    import pandas as pd

    rows = max(1, nbytes // 40)
    return pd.DataFrame(
        {
            "a": np.arange(rows, dtype=np.float64),
            "b": np.arange(rows),
            "text": [f"text {i % 97}" for i in range(rows)],
            "when": pd.date_range("2020-01-01", periods=rows, freq="s"),
        }
    )


def systems() -> dict[str, tuple[Call, Call]]:
    """Return how each system dumps and loads."""
    found: dict[str, tuple[Call, Call]] = {"ours": (dump, deserialize)}
    if have("proxystore"):
        from proxystore.serialize import deserialize as their_load
        from proxystore.serialize import serialize as their_dump

        found["ProxyStore"] = (their_dump, their_load)
    found["pickle"] = (lambda obj: pickle.dumps(obj, 5), pickle.loads)
    return found


def timed(call: Call, argument: Any) -> Callable[[], float]:
    """Return a round of a call: it returns the seconds of one."""
    start = time.perf_counter()
    call(argument)
    repeat = max(1, int(BATCH_SECONDS / max(1e-7, time.perf_counter() - start)))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            call(argument)
        return (time.perf_counter() - start) / repeat

    return run


def compare(report: Report, options: Options, what: str, nbytes: int, obj: Any) -> None:
    """Measure one object in all systems."""
    progress(f"   {what}, {size(nbytes)}")
    peers = systems()
    stored = {name: serialize(obj) if name == "ours" else peers[name][0](obj) for name in peers}
    cases: dict[str, Callable[[], float]] = {"ours joined": timed(serialize, obj)}
    for name, (dumps, loads) in peers.items():
        cases[f"{name} dump"] = timed(dumps, obj)
        cases[f"{name} load"] = timed(loads, stored[name])
    samples = interleave(cases, options.rounds)
    for name, values in samples.items():
        report.samples[f"{what} {nbytes} {name}"] = values
    taken = {name: median(values) for name, values in samples.items()}
    for peer in peers:
        if peer == "ours":
            continue
        for ours, theirs in (("dump", "dump"), ("joined", "dump"), ("load", "load")):
            title = f"{ours} {what}, {size(nbytes)}"
            report.faster(title, peer, taken[f"ours {ours}"], taken[f"{peer} {theirs}"])
    if what == "bytes" and nbytes == KB:
        report.within("dump and load 1 kB", taken["ours dump"] + taken["ours load"], 10)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(argv, __doc__)
    report = Report("serialize")
    if not have("proxystore"):
        report.not_run("dump and load", "ProxyStore", "pip install 'proxystore-core[bench]'")
    for nbytes in (KB, 100 * KB) if options.quick else (KB, MB, 100 * MB):
        for what, obj in objects(nbytes):
            compare(report, options, what, nbytes, obj)
    report.finish(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
