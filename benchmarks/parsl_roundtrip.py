"""Parsl round trips: the plain executor, ours, and ProxyStore used by hand.

All run in one Parsl config, each on a `HighThroughputExecutor` of its own with one
block and two workers, and take turns with one task at a time. A round trip is from
calling the app to the end of what is done with its result, in one of three ways, by the
worker for an argument and by the client for a result:

* ignored: nothing is done. A proxy made by hand is then never fetched, only stored.
* fetched: the array itself is there, and none of its data is read.
* read: the array is summed.

Workers hold the results ready, so that making them is not measured. What a round left
behind is evicted outside of the clock.
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _tasks
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
from benchmarks._peers import OURS, SHM

PLAIN = "plain executor"
UNENCRYPTED = "plain executor, encrypted=False"
BY_HAND = "ProxyStore by hand, file on /dev/shm"
LABELS = {PLAIN: "plain", UNENCRYPTED: "unencrypted", BY_HAND: "by_hand", OURS: "ours"}
WORKERS = 2

WAYS = {"ignored": _tasks.take, "fetched": _tasks.take_and_fetch, "read": _tasks.take_and_read}

# size -> (target against the plain executor, target against ProxyStore by hand)
TARGETS: dict[int, tuple[float | None, float | None]] = {
    MB: (None, None),
    10 * MB: (12, 4),
    100 * MB: (40, 4),
}


class Bench:
    """Apps for each system, in one loaded Parsl config."""

    def __init__(self, systems: Sequence[str], directory: str) -> None:
        self.systems = systems
        self._directory = directory
        self._store: Any = None
        if BY_HAND in systems:
            from proxystore.connectors.file import FileConnector
            from proxystore.store import Store

            connector = FileConnector(directory, clear=False)
            name = f"bench-{os.getpid()}"
            self._store = Store(name, connector, cache_size=0, register=True)

    def app(self, system: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function as an app of one system's executor."""
        from parsl import python_app

        made: Callable[..., Any] = python_app(function, executors=[LABELS[system]])
        return made

    def prepare(self, sizes: list[int]) -> None:
        """Wait until every worker of every system has the arrays."""
        for system in self.systems:
            app, ready = self.app(system, _tasks.prepare), set[int]()
            for _ in range(20):
                ready |= {f.result() for f in [app(sizes, 0.1) for _ in range(WORKERS)]}
                if len(ready) >= WORKERS:
                    break
            else:
                raise RuntimeError(f"{system}: only {len(ready)} of {WORKERS} workers came up")

    def noop(self, system: str) -> Callable[[], float]:
        """Return a round: one task that does nothing."""
        app = self.app(system, _tasks.noop)

        def run() -> float:
            start = time.perf_counter()
            app().result()
            return time.perf_counter() - start

        return run

    def throughput(self, system: str, tasks: int) -> Callable[[], float]:
        """Return a round: many tasks that do nothing; it measures seconds per task."""
        app = self.app(system, _tasks.noop)

        def run() -> float:
            start = time.perf_counter()
            for future in [app() for _ in range(tasks)]:
                future.result()
            return (time.perf_counter() - start) / tasks

        return run

    def argument(self, system: str, nbytes: int, way: str) -> Callable[[], float]:
        """Return a round: an array goes to a task."""
        app = self.app(system, WAYS[way])
        data, store = _tasks.array(nbytes), self._store
        expected = None if way == "ignored" else nbytes // 8

        def run() -> float:
            start = time.perf_counter()
            sent = store.proxy(data) if system == BY_HAND else data
            found = app(sent).result()
            took = time.perf_counter() - start
            _check(system, found, expected)
            if system == BY_HAND:
                self._evict(sent)
            return took

        return run

    def result(self, system: str, nbytes: int, way: str) -> Callable[[], float]:
        """Return a round: an array comes from a task."""
        by_hand = system == BY_HAND
        app = self.app(system, _tasks.give_proxy if by_hand else _tasks.give)
        args = (self._store.name, self._directory, nbytes) if by_hand else (nbytes,)
        extract = _extractor(system)

        def run() -> float:
            start = time.perf_counter()
            found = app(*args).result()
            if by_hand:
                (found,) = found
            if way != "ignored":
                whole = extract(found)
                total = float(whole.sum()) if way == "read" else whole.size
            took = time.perf_counter() - start
            if way != "ignored":
                _check(system, total, nbytes // 8)
                del whole
            if by_hand:
                self._evict(found)
            del found
            gc.collect()
            return took

        return run

    def _evict(self, proxy: Any) -> None:
        from proxystore.store.utils import get_key

        self._store.evict(get_key(proxy))


def _extractor(system: str) -> Callable[[Any], Any]:
    if system == BY_HAND:
        import proxystore.proxy

        return proxystore.proxy.extract
    if system == OURS:
        import proxystore_core.proxy as ours

        return lambda found: ours.extract(found) if ours.is_proxy(found) else found
    return lambda found: found


def _check(system: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise RuntimeError(f"{system} gave {found!r} instead of {expected!r}")


def executor(system: str) -> Any:
    """Make the executor of a system, with Parsl's defaults but for the local address."""
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    kind: Any = HighThroughputExecutor
    if system == OURS:
        import proxystore_parsl

        kind = proxystore_parsl.ProxyHighThroughputExecutor
    return kind(
        label=LABELS[system],
        address="127.0.0.1",
        max_workers_per_node=WORKERS,
        cores_per_worker=0.1,
        encrypted=system != UNENCRYPTED,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )


@contextlib.contextmanager
def running(systems: Sequence[str]) -> Iterator[Bench]:
    """Run Parsl with one executor for each system."""
    import parsl
    from parsl.config import Config

    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # workers import the task functions
    with (
        tempfile.TemporaryDirectory(prefix="bench-parsl-") as run_dir,
        tempfile.TemporaryDirectory(prefix="bench-", dir=SHM) as directory,
        parsl.load(
            Config(
                executors=[executor(system) for system in systems],
                run_dir=run_dir,
                strategy="none",
                initialize_logging=False,
            )
        ),
    ):
        yield Bench(systems, directory)


def overhead(report: Report, options: Options, bench: Bench) -> None:
    """Compare what a task costs that carries no data."""
    progress("parsl: tasks that do nothing")
    systems = [s for s in (PLAIN, OURS) if s in bench.systems]
    tasks = 20 if options.quick else 1000
    one = interleave({s: bench.noop(s) for s in systems}, 50 * options.rounds, warmup=10)
    many = interleave({s: bench.throughput(s, tasks) for s in systems}, options.rounds)
    report.samples |= {f"no-op, {s}": values for s, values in one.items()}
    report.samples |= {f"no-op throughput, {s}": values for s, values in many.items()}
    ours, plain = median(one[OURS]), median(one[PLAIN])
    report.faster("no-op, one at a time", PLAIN, ours, plain)
    ours, plain = median(many[OURS]), median(many[PLAIN])
    report.add(
        f"no-op throughput, {tasks} tasks",
        peer=PLAIN,
        value=plain / ours,
        target=0.95,
        ours=f"{1 / ours:.0f} per s",
        theirs=f"{1 / plain:.0f} per s",
    )


def round_trips(report: Report, options: Options, bench: Bench) -> None:
    """Compare what carrying an argument and a result costs."""
    targets = {MB: (None, None)} if options.quick else TARGETS
    bench.prepare(list(targets))
    for nbytes, (against_plain, against_by_hand) in targets.items():
        for what in ("argument", "result"):
            for way in WAYS:
                name = f"{what} {size(nbytes)}, {way}"
                progress(f"parsl: {name}")
                make = bench.argument if what == "argument" else bench.result
                # Without encryption once is enough: it is there to show what encryption costs.
                systems = [s for s in bench.systems if s != UNENCRYPTED or way == "read"]
                taken = interleave(
                    {system: make(system, nbytes, way) for system in systems},
                    options.rounds,
                    warmup=1 if options.quick else 2,
                )
                report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
                progress("  " + ", ".join(f"{s} {seconds(median(v))}" for s, v in taken.items()))
                limits = {PLAIN: against_plain, BY_HAND: against_by_hand, UNENCRYPTED: None}
                for peer, target in limits.items():
                    if peer in taken:
                        ours, theirs = median(taken[OURS]), median(taken[peer])
                        report.faster(name, peer, ours, theirs, target)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("parsl")
    install = "needs: pip install 'proxystore-core[bench]'"
    if not have("parsl"):
        report.not_run("round trips", PLAIN, install)
    else:
        systems = [PLAIN, OURS] if options.quick else [PLAIN, UNENCRYPTED, OURS]
        if have("proxystore"):
            systems.insert(-1, BY_HAND)
        else:
            report.not_run("round trips", BY_HAND, install)
        with running(systems) as bench:
            overhead(report, options, bench)
            round_trips(report, options, bench)
    report.finish(options)


if __name__ == "__main__":
    main()
