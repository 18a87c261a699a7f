"""Dask round trips: plain Dask, scatter, and ours.

Each system has a cluster of two worker processes with one thread on this node, and they
take turns with one task at a time. What is measured, for NumPy arrays, bytes and lists
of dicts:

* argument: submitting a task with the object, until its small result is there;
* result: gathering an object that a worker holds ready;
* A to B: a task on one worker that uses an object which another one holds ready;
* shared: one object that eight tasks use, two at a time.

Arguments are submitted with `pure=False`, so that making a key from their content, which
is the same for all, is not measured. What a round left behind goes outside of the clock.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks._harness import (
    MB,
    Options,
    Report,
    have,
    interleave,
    median,
    parse,
    progress,
    seconds,
    size,
)
from benchmarks._peers import OURS

PLAIN = "plain Dask"
SCATTER = "scatter, then use"

# What, size -> target against plain Dask
TARGETS: dict[tuple[str, str, int], float] = {
    ("argument", "array", 100 * MB): 4,
    ("A to B", "array", 100 * MB): 4,
    ("result", "array", 100 * MB): 2.5,
    ("result", "dicts", 10 * MB): 12,
}


def make(kind: str, nbytes: int) -> Any:
    """Make an object of about so many bytes."""
    if kind == "array":
        import numpy as np

        return np.arange(nbytes // 8, dtype="f8")
    if kind == "bytes":
        return os.urandom(1 << 20) * (nbytes >> 20) + b"x" * (nbytes % (1 << 20))
    return [{"number": i, "text": f"text of record {i}"} for i in range(nbytes // 100)]


def take(obj: Any) -> int:
    """Use an object: the least that a task can do with it."""
    return len(obj)


class Bench:
    """A cluster for each system.

    Args:
        addresses: The two workers of each.
        clients: A client of each.
    """

    def __init__(self, clients: dict[str, Any]) -> None:
        self.clients = clients
        self.workers = {
            system: sorted(client.scheduler_info()["workers"]) for system, client in clients.items()
        }

    def argument(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a call that times the way of an argument."""
        client = self.clients[PLAIN if system == SCATTER else system]
        obj = make(kind, nbytes)

        def run() -> float:
            begin = time.perf_counter()
            sent = client.scatter(obj, hash=False) if system == SCATTER else obj
            client.submit(take, sent, pure=False).result()
            return time.perf_counter() - begin

        return _settled(run)

    def result(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a call that times the way of a result."""
        client = self.clients[system]

        def run() -> float:
            future = _ready(client, kind, nbytes, self.workers[system][0])
            begin = time.perf_counter()
            take(future.result())
            return time.perf_counter() - begin

        return _settled(run)

    def between(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a call that times the way from one worker to the other."""
        client = self.clients[system]

        def run() -> float:
            here, there = self.workers[system]
            future = _ready(client, kind, nbytes, here)
            begin = time.perf_counter()
            client.submit(take, future, workers=there, pure=False).result()
            return time.perf_counter() - begin

        return _settled(run)

    def shared(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a call that times eight tasks that use one object."""
        client = self.clients[PLAIN if system == SCATTER else system]
        obj = make(kind, nbytes)

        def run() -> float:
            begin = time.perf_counter()
            sent = client.scatter(obj, hash=False) if system == SCATTER else obj
            tasks = client.map(_take_nth, range(8), [sent] * 8, pure=False)
            client.gather(tasks)
            return time.perf_counter() - begin

        return _settled(run)

    def nothing(self, system: str) -> float:
        """Time a task with nothing to carry."""
        begin = time.perf_counter()
        self.clients[system].submit(_nothing, pure=False).result()
        return time.perf_counter() - begin

    def many(self, system: str) -> float:
        """Time 200 of them together."""
        begin = time.perf_counter()
        client = self.clients[system]
        client.gather(client.map(take, [(i,) for i in range(200)], pure=False))
        return time.perf_counter() - begin


def _nothing() -> None:
    pass


def _take_nth(_: int, obj: Any) -> int:
    return take(obj)


def _ready(client: Any, kind: str, nbytes: int, worker: str) -> Any:
    from distributed import wait

    future = client.submit(make, kind, nbytes, workers=worker, pure=False)
    wait(future)
    return future


def _settled(run: Callable[[], float]) -> Callable[[], float]:
    def settled() -> float:
        value = run()
        gc.collect()
        time.sleep(0.05)  # the scheduler tells the workers what to forget
        return value

    return settled


@contextlib.contextmanager
def running() -> Iterator[Bench]:
    """Start a cluster for each system, and stop them."""
    import warnings

    import proxystore_dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        clients = {}
        for system in (PLAIN, OURS):
            cluster = stack.enter_context(
                LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
            )
            clients[system] = stack.enter_context(Client(cluster, set_as_default=False))
        proxystore_dask.enable(clients[OURS], threshold="100 kB")
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of large graphs, which is what is measured
        stack.enter_context(clients[PLAIN].as_current())
        yield Bench(clients)


def overhead(report: Report, options: Options, bench: Bench) -> None:
    """Compare tasks with nothing to carry."""
    systems = (PLAIN, OURS)
    rounds = options.rounds * 20
    one = interleave({s: lambda s=s: bench.nothing(s) for s in systems}, rounds, warmup=5)
    many = interleave({s: lambda s=s: bench.many(s) for s in systems}, options.rounds)
    for name, taken in (("no-op, one at a time", one), ("no-op, 200 at once", many)):
        report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
        ours, plain = median(taken[OURS]), median(taken[PLAIN])
        report.faster(name, PLAIN, ours, plain, 0.9)


def round_trips(report: Report, options: Options, bench: Bench) -> None:
    """Compare what carrying costs."""
    cases = [(kind, n * MB) for kind in ("array", "bytes") for n in (1, 10, 100)]
    cases += [("dicts", n * MB) for n in (1, 10)]
    if options.quick:
        cases = [("array", MB)]
    ways = {
        "argument": bench.argument,
        "result": bench.result,
        "A to B": bench.between,
        "shared": bench.shared,
    }
    for kind, nbytes in cases:
        for what, way in ways.items():
            if what == "shared" and kind != "array":
                continue
            systems = [PLAIN, SCATTER, OURS] if what in ("argument", "shared") else [PLAIN, OURS]
            name = f"{what}, {kind} {size(nbytes)}"
            progress(f"dask: {name}")
            slow = kind == "dicts" and nbytes > MB
            rounds = min(options.rounds, 3) if slow else options.rounds
            taken = interleave(
                {s: way(s, kind, nbytes) for s in systems}, rounds, warmup=1 if slow else 2
            )
            report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
            progress("  " + ", ".join(f"{s} {seconds(median(v))}" for s, v in taken.items()))
            for peer in systems[:-1]:
                target = TARGETS.get((what, kind, nbytes), 1.0) if peer == PLAIN else 1.0
                report.faster(name, peer, median(taken[OURS]), median(taken[peer]), target)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("dask")
    if have("distributed"):
        with running() as bench:
            overhead(report, options, bench)
            round_trips(report, options, bench)
    else:
        report.not_run("round trips", PLAIN, "needs: pip install 'proxystore-core[bench]'")
    report.finish(options)


if __name__ == "__main__":
    main()
