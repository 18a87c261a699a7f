"""Dask round trips: plain Dask, scatter, ProxyStore's Dask client, and ours.

Each system has a cluster of its own on this node, worker processes with one thread, and
they take turns with one task at a time. What is measured, for NumPy arrays, bytes and
lists of dicts, the sizes of which are those of their pickles:

* argument: from submitting a task with the object until its small result is there. All
  have the defaults, so that each makes the task's key from what the object holds, and in
  each round it holds something else.
* argument, pure=False: the same with random keys, so only what carrying costs.
* result: from submitting a task that has the object ready until the client has it.
* A to B: the same task on one worker, until a task on another worker has used the object.
* shared: an array that eight tasks use.

Then four workers of each system read an array of 1 GB in eight tasks, two on each, first one
of the client (scattered to all of them) and then one that a task makes, and hold it: how much
more the workers take is their memory.

What a round left behind goes outside of the clock.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _dask_tasks as tasks
from benchmarks._harness import (
    GB,
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

PLAIN = "plain Dask"
SCATTER = "scatter, then use"
BY_CLIENT = "ProxyStore's Dask client, file on /dev/shm"
INSTALL = "needs: pip install 'proxystore-core[bench]'"

LEVEL = 0.95  # nearer to 1 than one run can tell
TARGETS = {  # against plain Dask
    "argument, array 100 MB": 4.0,
    "A to B, array 100 MB": 4.0,
    "result, array 100 MB": 2.5,
    "result, dicts 10 MB": 12.0,
}
OVERHEAD = 1 / 1.1
LIMIT = 5.0  # seconds after which a row has enough rounds
SIZES = {"array": (1, 10, 100), "bytes": (1, 10, 100), "dicts": (1, 10)}  # MB


class Bench:
    """A client and a cluster for each system."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self.clients = clients
        if PLAIN in clients:
            self.clients[SCATTER] = clients[PLAIN]
        self.workers = {system: sorted(client.nthreads()) for system, client in clients.items()}

    def systems(self, *, scatter: bool = False) -> list[str]:
        """Name the systems that a row has, ours last."""
        names = (PLAIN, SCATTER, BY_CLIENT, OURS) if scatter else (PLAIN, BY_CLIENT, OURS)
        return [name for name in names if name in self.clients]

    def argument(
        self, system: str, kind: str, nbytes: int, pure: bool = True
    ) -> Callable[[], float]:
        """Return a round: an object goes to a task."""
        client, rounds = self.clients[system], iter(range(1, 1000))

        def run() -> float:
            obj = tasks.make(kind, nbytes, next(rounds))
            begin = time.perf_counter()
            sent = _scattered(client, obj, hash=pure) if system == SCATTER else obj
            found = client.submit(tasks.take, sent, pure=pure).result()
            took = time.perf_counter() - begin
            _check(system, found, len(obj))
            return took

        return _settled(run)

    def result(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a round: an object comes from a task."""
        client, worker = self.clients[system], self.workers[system][0]
        length = client.submit(tasks.take, tasks.make(kind, nbytes), pure=False).result()

        def run() -> float:
            begin = time.perf_counter()
            future = client.submit(tasks.give, kind, nbytes, workers=worker, pure=False)
            found = tasks.take(future.result())
            took = time.perf_counter() - begin
            _check(system, found, length)
            return took

        return _settled(run)

    def between(self, system: str, kind: str, nbytes: int) -> Callable[[], float]:
        """Return a round: an object goes from one worker to another."""
        client, (here, there) = self.clients[system], self.workers[system][:2]

        def run() -> float:
            begin = time.perf_counter()
            future = client.submit(tasks.give, kind, nbytes, workers=here, pure=False)
            client.submit(tasks.take, future, workers=there, pure=False).result()
            return time.perf_counter() - begin

        return _settled(run)

    def shared(self, system: str, nbytes: int) -> Callable[[], float]:
        """Return a round: eight tasks use one array of the client's."""
        client, obj = self.clients[system], tasks.make("array", nbytes)

        def run() -> float:
            begin = time.perf_counter()
            sent = _scattered(client, obj, hash=False) if system == SCATTER else obj
            found = client.gather(client.map(tasks.take_one, range(8), [sent] * 8, pure=False))
            took = time.perf_counter() - begin
            _check(system, found, [len(obj)] * 8)
            return took

        return _settled(run)

    def held(self, system: str, nbytes: int, obj: Any) -> Callable[[], tuple[float, float]]:
        """Return a round: eight tasks read and hold one array; it measures seconds and bytes.

        Args:
            system: Who does it.
            nbytes: Size of the array.
            obj: The array, or `None` for a task to make it.
        """
        client, workers = self.clients[system], self.workers[system]

        def run() -> tuple[float, float]:
            before = sum(client.run(tasks.memory).values())
            begin = time.perf_counter()
            if obj is None:
                data = client.submit(tasks.make, "array", nbytes, workers=workers[0], pure=False)
                # Where they wait for it, and not all where it is.
                futures = [
                    client.submit(tasks.read_and_hold, i, data, workers=workers[i % len(workers)])
                    for i in range(8)
                ]
            else:
                data = obj
                if system == SCATTER:
                    data = client.scatter(obj, hash=False, broadcast=True)
                futures = client.map(tasks.read_and_hold, range(8), data=data, pure=False)
            found = client.gather(futures)
            took = time.perf_counter() - begin
            _check(system, found, [nbytes // 8 - 1] * 8)
            held = sum(client.run(tasks.memory).values()) - before
            del futures, data
            client.run(tasks.drop)
            client.run(gc.collect)
            return took, held

        return run

    def noop(self, system: str) -> Callable[[], float]:
        """Return a round: one task with nothing to carry."""
        client = self.clients[system]

        def run() -> float:
            begin = time.perf_counter()
            client.submit(tasks.noop, pure=False).result()
            return time.perf_counter() - begin

        return run

    def mapped(self, system: str, count: int) -> Callable[[], float]:
        """Return a round: many of them by one `map`."""
        client = self.clients[system]

        def run() -> float:
            begin = time.perf_counter()
            client.gather(client.map(tasks.noop, range(count), pure=False))
            return time.perf_counter() - begin

        return _settled(run)

    def submitted(self, system: str, count: int) -> Callable[[], float]:
        """Return a round: many of them, submitted one by one."""
        client = self.clients[system]

        def run() -> float:
            begin = time.perf_counter()
            client.gather([client.submit(tasks.noop, i, pure=False) for i in range(count)])
            return time.perf_counter() - begin

        return _settled(run)


def _scattered(client: Any, obj: Any, *, hash: bool) -> Any:  # noqa: A002  # as Dask calls it
    (future,) = client.scatter([obj], hash=hash)  # of a bare list each item would go by itself
    return future


def _check(system: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise RuntimeError(f"{system} gave {found!r} instead of {expected!r}")


def _settled(run: Callable[[], float]) -> Callable[[], float]:
    def settled() -> float:
        value = run()
        time.sleep(0.03)  # the scheduler tells the workers what to forget
        return value

    return settled


@contextlib.contextmanager
def running(systems: Sequence[str], workers: int) -> Iterator[Bench]:
    """Start a cluster for each system, and stop them."""
    import dask.config
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        # What is measured would be called large, unmanaged and slow.
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(dask.config.set({"distributed.admin.low-level-log-length": 0}))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-dask-"))
        clients: dict[str, Any] = {}
        for system in systems:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=":0",
                    local_directory=scratch,
                    silence_logs=50,
                    env={"PYTHONWARNINGS": "ignore"},
                )
            )
            if system == BY_CLIENT:
                clients[system] = stack.enter_context(_proxystore_client(stack, cluster))
                continue
            clients[system] = stack.enter_context(Client(cluster, set_as_default=False))
            if system == OURS:
                import proxystore_dask

                proxystore_dask.enable(clients[system])
        yield Bench(clients)


def _proxystore_client(stack: contextlib.ExitStack, cluster: Any) -> Any:
    from proxystore.connectors.file import FileConnector
    from proxystore.store import Store
    from proxystore_ex.plugins.distributed import Client

    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=SHM))
    connector = FileConnector(directory, clear=False)
    store = Store(Path(directory).name, connector, cache_size=0, register=True)
    return Client(cluster, ps_store=store, set_as_default=False)


def overhead(report: Report, options: Options, bench: Bench) -> None:
    """Compare tasks with nothing to carry."""
    progress("dask: tasks that do nothing")
    count = 20 if options.quick else 1000
    systems = (PLAIN, OURS)
    rows = {
        "no-op, one at a time": ({s: bench.noop(s) for s in systems}, 40 * options.rounds),
        f"no-op, map of {count}": ({s: bench.mapped(s, count) for s in systems}, options.rounds),
        f"no-op, {count} submitted": (
            {s: bench.submitted(s, count) for s in systems},
            options.rounds,
        ),
    }
    for name, (cases, rounds) in rows.items():
        taken = interleave(cases, rounds, warmup=1, limit=2 * LIMIT)
        report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
        ours, plain = median(taken[OURS]), median(taken[PLAIN])
        report.faster(name, PLAIN, ours, plain, OVERHEAD)


def round_trips(report: Report, options: Options, bench: Bench) -> None:
    """Compare what carrying costs."""
    sizes = {"array": (1,)} if options.quick else SIZES
    for kind, nbytes in [(kind, n * MB) for kind, wanted in sizes.items() for n in wanted]:
        what = f"{kind} {size(nbytes)}"
        both, few = bench.systems(scatter=True), bench.systems()
        rows = {
            f"argument, {what}": {s: bench.argument(s, kind, nbytes) for s in both},
            f"argument, {what}, pure=False": {
                s: bench.argument(s, kind, nbytes, pure=False) for s in both
            },
            f"result, {what}": {s: bench.result(s, kind, nbytes) for s in few},
            f"A to B, {what}": {s: bench.between(s, kind, nbytes) for s in few},
        }
        if kind == "array":
            rows[f"shared by 8 tasks, {what}"] = {s: bench.shared(s, nbytes) for s in both}
        for name, cases in rows.items():
            progress(f"dask: {name}")
            gc.collect()
            slow = kind == "dicts" and nbytes > MB
            taken = interleave(cases, options.rounds, warmup=0 if slow else 1, limit=LIMIT)
            _compare(report, name, taken)
        for client in bench.clients.values():
            client.run(tasks.drop)


def one_copy(report: Report, options: Options, bench: Bench) -> None:
    """Compare time and memory of workers that read the same large array."""
    import psutil

    free = psutil.virtual_memory().available
    nbytes = 10 * MB if options.quick else GB if free > 12 * GB else GB // 4
    # Tasks beside the maker may use what it made before anyone else asks for it.
    for what, most in (("argument", 1.1), ("result of a task", 2.1)):
        obj = tasks.make("array", nbytes) if what == "argument" else None
        systems = bench.systems(scatter=obj is not None)
        name = f"{size(nbytes)} {what}, read by 8 tasks"
        progress(f"dask: {name}")
        if obj is not None:
            systems.remove(PLAIN)  # it would put the array into each of the tasks
        if BY_CLIENT in systems and free < 32 * nbytes:
            systems.remove(BY_CLIENT)
            report.not_run(name, BY_CLIENT, f"needs {size(32 * nbytes)} of free memory")
        held: dict[str, list[float]] = {system: [] for system in systems}
        cases = {
            system: _remembering(bench.held(system, nbytes, obj), held[system])
            for system in systems
        }
        rounds = min(3, options.rounds)
        taken = interleave(cases, rounds, warmup=0, limit=4 * LIMIT, enough=1)
        _compare(report, name, taken)
        copies = {system: f"{median(values) / nbytes:.2f}" for system, values in held.items()}
        report.add(
            f"{name}: copies that the workers hold",
            peer=", ".join(systems[:-1]),
            value=median(held[OURS]) / nbytes,
            unit="copies",
            target=most,
            at_most=True,
            ours=copies.pop(OURS),
            theirs=", ".join(copies.values()),
        )


def _remembering(run: Callable[[], tuple[float, float]], held: list[float]) -> Callable[[], float]:
    def remembering() -> float:
        took, memory = run()
        held.append(memory)
        return took

    return remembering


def _compare(report: Report, name: str, taken: dict[str, list[float]]) -> None:
    report.samples |= {f"{name}, {s}": values for s, values in taken.items()}
    progress("  " + ", ".join(f"{s} {seconds(median(v))}" for s, v in taken.items()))
    for peer, values in taken.items():
        if peer != OURS:
            target = TARGETS.get(name, LEVEL) if peer == PLAIN else LEVEL
            report.faster(name, peer, median(taken[OURS]), median(values), target)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("dask")
    if not have("distributed"):
        report.not_run("round trips", PLAIN, INSTALL)
    else:
        missing = [] if have("proxystore") and have("proxystore_ex") else [BY_CLIENT]
        for peer in missing:
            report.not_run("round trips", peer, INSTALL)
        systems = [system for system in (PLAIN, BY_CLIENT, OURS) if system not in missing]
        with running(systems, workers=2) as bench:
            overhead(report, options, bench)
            round_trips(report, options, bench)
            if options.quick:
                one_copy(report, options, bench)
        if not options.quick:
            with running(systems, workers=4) as bench:
                one_copy(report, options, bench)
    report.finish(options)


if __name__ == "__main__":
    main()
