"""Globus Compute: the plain executor, ours, and ProxyStore by hand as its guide does it.

All send their tasks to one endpoint (`GlobusComputeEngine`, two workers) of the local stack, where
all is real but the cloud's REST service, and take turns. A round trip is from the call of `submit`
with an array to the end of reading the array of the same size that the task made of it.

The SDK and the endpoint look for results every half a second, so that a round trip takes about that
long whatever it carries, and chance decides who seems faster. Here, for all alike, they look every
5 ms. What goes through the broker is counted by the stand-in of the service, each byte once; on the
way to the real one it crosses the internet twice.
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

import numpy as np

from benchmarks import _compute_tasks as tasks
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
    seconds,
    size,
)
from benchmarks._peers import OURS, SHM

PLAIN = "plain executor"
BY_HAND = "ProxyStore by hand, file on /dev/shm"
INSTALL = "needs: pip install 'proxystore-core[bench]'"
LEVEL = 0.95

POLL = 0.005  # seconds
# For the process of the endpoint alone, among all that its environment reaches.
QUICKER = f"""
import sys

if "_start-user-endpoint" in sys.orig_argv:
    from globus_compute_endpoint.endpoint.rabbit_mq.result_publisher import ResultPublisher

    ResultPublisher.__init__.__kwdefaults__["poll_period_s"] = {POLL}
"""

# size -> (targets of time against the plain executor and ProxyStore by hand, and of bytes through
# the broker against the plain executor)
TARGETS: dict[int, tuple[float | None, float | None, float | None]] = {
    10 * KB: (LEVEL, LEVEL, 0.9),  # under the threshold
    100 * KB: (LEVEL, LEVEL, 20),
    MB: (2, LEVEL, 200),
    5 * MB: (8, LEVEL, 1000),
    100 * MB: (None, 4, None),
}
PLAIN_END = 5 * MB  # a little more and neither argument nor result is taken


class Bench:
    """Executors of each system, for one endpoint."""

    def __init__(self, stack: Any, executors: dict[str, Any], directory: str) -> None:
        self.executors = executors
        self._stack = stack
        self._directory = directory
        self._store: Any = None
        if BY_HAND in executors:
            from proxystore.connectors.file import FileConnector
            from proxystore.store import Store

            connector = FileConnector(directory, clear=False)
            name = f"bench-{os.getpid()}"
            self._store = Store(name, connector, cache_size=0, register=True)

    def close(self) -> None:
        """Forget the store that was made by hand."""
        if self._store is not None:
            self._store.close()

    def broker_bytes(self) -> int:
        """Return the bytes that have passed the broker."""
        found: int = self._stack.traffic().broker_bytes
        return found

    def noop(self, system: str, count: int) -> Callable[[], float]:
        """Return a round: tasks that carry nothing."""
        executor = self.executors[system]

        def run() -> float:
            start = time.perf_counter()
            for future in [executor.submit(tasks.noop) for _ in range(count)]:
                future.result()
            return time.perf_counter() - start

        return run

    def round_trips(
        self, system: str, nbytes: int, count: int, carried: list[float]
    ) -> Callable[[], float]:
        """Return a round: arrays go to tasks, and others come back.

        Args:
            system: Whose executor.
            nbytes: Size of each array.
            count: How many tasks.
            carried: Where bytes through the broker, for each task, are added after each round.
        """
        data = np.ones(nbytes // 8)

        def run() -> float:
            before = self.broker_bytes()
            start = time.perf_counter()
            sent, futures = self._submit(system, data, count)
            found = [future.result() for future in futures]
            totals = [float(self._whole(system, value).sum()) for value in found]
            took = time.perf_counter() - start
            if totals != [2.0 * data.size] * count:
                raise RuntimeError(f"{system} gave {totals} instead of {2.0 * data.size} each")
            carried.append((self.broker_bytes() - before) / count)
            if system == BY_HAND:
                self._evict([*sent, *(value[0] for value in found)])
            del found, futures
            gc.collect()
            return took

        return run

    def _submit(self, system: str, data: Any, count: int) -> tuple[list[Any], list[Any]]:
        submit = self.executors[system].submit
        if system != BY_HAND:
            return [], [submit(tasks.echo, data) for _ in range(count)]
        sent = [self._store.proxy(data) for _ in range(count)]
        args = (self._store.name, self._directory)
        return sent, [submit(tasks.echo_by_hand, proxy, *args) for proxy in sent]

    @staticmethod
    def _whole(system: str, value: Any) -> Any:
        if system == BY_HAND:
            import proxystore.proxy

            return proxystore.proxy.extract(value[0])
        if system == OURS:
            import proxystore_core.proxy as ours

            return ours.extract(value) if ours.is_proxy(value) else value
        return value

    def _evict(self, proxies: list[Any]) -> None:
        from proxystore.store.utils import get_key

        for proxy in proxies:
            self._store.evict(get_key(proxy))


@contextlib.contextmanager
def running(systems: Sequence[str], engine: str) -> Iterator[Bench]:
    """Start the stack, an endpoint and the executors, and stop them."""
    from proxystore_globus_compute import ProxyExecutor

    from examples.compute_stack.stack import Stack
    from proxystore_core.store import Store

    with contextlib.ExitStack() as stack:
        stack.enter_context(_quick_client())
        code = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-globus-"))
        Path(code, "sitecustomize.py").write_text(QUICKER)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=SHM))
        services = stack.enter_context(Stack())
        root = str(Path(__file__).resolve().parent.parent)
        paths = {"PYTHONPATH": os.pathsep.join([code, root])}
        endpoint = services.user_endpoint(engine, environment=paths)
        executors: dict[str, Any] = {}
        for system in systems:
            options: dict[str, Any] = {}
            if system == OURS:
                store = stack.enter_context(Store(f"bench-{os.getpid()}"))
                options = {"kind": ProxyExecutor, "store": store}
            executors[system] = stack.enter_context(services.executor(endpoint.id, **options))
        bench = Bench(services, executors, directory)
        stack.callback(bench.close)
        yield bench


@contextlib.contextmanager
def _quick_client() -> Iterator[None]:
    from globus_compute_sdk.sdk.executor import _ResultWatcher

    init: Any = _ResultWatcher.__init__
    usual = init.__defaults__
    init.__defaults__ = (POLL, *usual[1:])
    try:
        yield
    finally:
        init.__defaults__ = usual


def overhead(report: Report, options: Options, bench: Bench) -> None:
    """Compare tasks that carry nothing."""
    for count in (1, 10 if options.quick else 200):
        name = "no-op, one at a time" if count == 1 else f"no-op, {count} submitted"
        progress(f"globus: {name}")
        systems = [s for s in (PLAIN, OURS) if s in bench.executors]
        taken = interleave({s: bench.noop(s, count) for s in systems}, options.rounds)
        report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
        report.faster(name, PLAIN, median(taken[OURS]), median(taken[PLAIN]), LEVEL)


def round_trips(report: Report, options: Options, bench: Bench) -> None:
    """Compare what carrying arrays costs, in time and in bytes through the broker."""
    targets = {100 * KB: TARGETS[100 * KB]} if options.quick else TARGETS
    for nbytes, (*in_time, in_bytes) in targets.items():
        name = f"round trip, {size(nbytes)} in and out"
        systems = [s for s in bench.executors if s != PLAIN or nbytes <= PLAIN_END]
        taken, carried = _measure(report, options, bench, systems, name, nbytes, 1)
        _compare(report, name, taken, dict(zip((PLAIN, BY_HAND), in_time, strict=True)))
        for peer in (s for s in systems if s != OURS):
            report.add(
                f"bytes through the broker, {size(nbytes)} in and out",
                peer=peer,
                value=carried[peer] / carried[OURS],
                target=in_bytes if peer == PLAIN else None,
                ours=size(round(carried[OURS])),
                theirs=size(round(carried[peer])),
            )
        if PLAIN not in systems:
            report.not_run(name, PLAIN, "the service takes 10 MB of argument, and of result")


def burst(report: Report, options: Options, bench: Bench) -> None:
    """Compare many tasks at once, which plain only come through if they are few a request."""
    count = 4 if options.quick else 100
    name = f"{count} tasks at once, {size(200 * KB)} in and out"
    systems = [s for s in bench.executors if s != PLAIN]
    taken, _ = _measure(report, options, bench, systems, name, 200 * KB, count)
    _compare(report, name, taken, {BY_HAND: LEVEL})
    report.not_run(name, PLAIN, "the service takes 10 MB in one request, and here they are 27")


def _measure(
    report: Report,
    options: Options,
    bench: Bench,
    systems: list[str],
    name: str,
    nbytes: int,
    count: int,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    progress(f"globus: {name}")
    carried: dict[str, list[float]] = {system: [] for system in systems}
    cases = {s: bench.round_trips(s, nbytes, count, carried[s]) for s in systems}
    taken = interleave(cases, options.rounds)
    report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
    progress("  " + ", ".join(f"{s} {seconds(median(v))}" for s, v in taken.items()))
    return taken, {system: median(values) for system, values in carried.items()}


def _compare(
    report: Report,
    name: str,
    taken: dict[str, list[float]],
    targets: dict[str, float | None],
) -> None:
    for peer, values in taken.items():
        if peer != OURS:
            report.faster(name, peer, median(taken[OURS]), median(values), targets[peer])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("globus")
    if not have("globus_compute_sdk") or not have("globus_compute_endpoint"):
        report.not_run("round trips", PLAIN, INSTALL)
    else:
        systems = [PLAIN, OURS]
        if have("proxystore"):
            systems.insert(-1, BY_HAND)
        else:
            report.not_run("round trips", BY_HAND, INSTALL)
        with running(systems, "threads" if options.quick else "htex") as bench:
            overhead(report, options, bench)
            round_trips(report, options, bench)
            burst(report, options, bench)
    report.finish(options)


if __name__ == "__main__":
    main()
