"""What wrapping a task costs, and what it saves: a pool by itself, and within `StoreExecutor`.

Three pools of one forked worker take turns: the plain `ProcessPoolExecutor`, ours within a
`StoreExecutor` of its defaults, and one within ProxyStore's `StoreExecutor` over its file
connector on `/dev/shm`, which proxies arrays. A round trip is from `submit` to the end of what is
done with the array, by the worker for an argument and by the client for a result:

* fetched: the array itself is there, and none of its data is read.
* read: the array is summed.

Workers hold the results ready. What a round leaves behind is let go of outside of the clock.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _tasks
from benchmarks._harness import MB, Options, Report, interleave, median, parse, progress, size
from benchmarks._peers import OURS, SHM, MissingPeerError, open_ours, open_proxystore_file

PLAIN = "plain pool"
PROXYSTORE = "ProxyStore's StoreExecutor, file on /dev/shm"

WAYS: dict[str, Callable[[Any], Any]] = {
    "fetched": _tasks.take_and_fetch,
    "read": _tasks.take_and_read,
}
CALLS = 2000  # of `prepare`, in one sample
NOOPS = 300  # tasks of nothing, in one sample


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))


@contextlib.contextmanager
def executors() -> Iterator[tuple[dict[str, Executor], dict[str, str]]]:
    """Start the pools; yield them, and for each that is missing what it needs."""
    from proxystore_core.store.executor import StoreExecutor

    started: dict[str, Executor] = {}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=SHM))
        started[PLAIN] = stack.enter_context(_pool())
        started[OURS] = stack.enter_context(StoreExecutor(_pool(), open_ours("autoproxy")))
        try:
            store = open_proxystore_file(Path(directory, "store"))
            from proxystore.store.executor import ProxyType
            from proxystore.store.executor import StoreExecutor as Theirs

            theirs = Theirs(_pool(), store, should_proxy=ProxyType(np.ndarray))
            started[PROXYSTORE] = stack.enter_context(theirs)
        except MissingPeerError as error:
            missing[PROXYSTORE] = str(error)
        for executor in started.values():
            executor.submit(_tasks.noop).result()
        yield started, missing


def noops(number: int, executor: Executor) -> float:
    """Time tasks that do nothing, each submitted when the one before it is done."""
    start = time.perf_counter()
    for _ in range(number):
        executor.submit(_tasks.noop).result()
    return (time.perf_counter() - start) / number


def burst(number: int, executor: Executor) -> float:
    """Time tasks that do nothing, submitted all at once."""
    start = time.perf_counter()
    for future in [executor.submit(_tasks.noop) for _ in range(number)]:
        future.result()
    return (time.perf_counter() - start) / number


def argument(data: Any, use: Callable[[Any], Any], executor: Executor) -> float:
    """Time a task that takes an array."""
    start = time.perf_counter()
    executor.submit(use, data).result()
    return time.perf_counter() - start


def result(nbytes: int, use: Callable[[Any], Any], executor: Executor) -> float:
    """Time a task that returns an array."""
    start = time.perf_counter()
    made = executor.submit(_tasks.give, nbytes).result()
    use(made)
    took = time.perf_counter() - start
    del made
    gc.collect()
    return took


def chain(nbytes: int, executor: Executor) -> float:
    """Time a task that returns an array, and one that takes it."""
    start = time.perf_counter()
    made = executor.submit(_tasks.give, nbytes).result()
    executor.submit(_tasks.take_and_fetch, made).result()
    took = time.perf_counter() - start
    del made
    gc.collect()
    return took


def preparing(report: Report, options: Options) -> None:
    """Measure what a session adds to a submit of small things."""
    from proxystore_core.autoproxy import Session

    with Session(open_ours("prepare"), own_store=True) as session:
        small = np.ones(10)
        cases = {
            "no arguments": (),
            "numbers and strings": (1, 2.0, "three"),
            "a list, a dictionary, a small array": ([1, 2, 3], {"a": 1, "b": [2]}, small),
        }
        number = CALLS // 20 if options.quick else CALLS

        def sample(args: tuple[Any, ...]) -> float:
            start = time.perf_counter()
            for _ in range(number):
                session.prepare(_tasks.take, args)
            return (time.perf_counter() - start) / number

        runs = {name: partial(sample, args) for name, args in cases.items()}
        for name, samples in interleave(runs, options.rounds).items():
            report.samples[f"prepare {name}"] = samples
            report.within(f"prepare: {name}", median(samples), 20)


def compare(
    report: Report,
    options: Options,
    pools: dict[str, Executor],
    missing: dict[str, str],
    name: str,
    run: Callable[[Executor], float],
    targets: dict[str, float] | None = None,
) -> None:
    """Run one case on all pools in turn, and add a row for each peer."""
    progress(f"autoproxy: {name}")
    cases = {name: partial(run, pool) for name, pool in pools.items()}
    samples = interleave(cases, options.rounds)
    for pool, values in samples.items():
        report.samples[f"{name} | {pool}"] = values
    ours = median(samples[OURS])
    for peer in (PLAIN, PROXYSTORE):
        if peer in missing:
            report.not_run(name, peer, missing[peer])
        else:
            report.faster(name, peer, ours, median(samples[peer]), (targets or {}).get(peer))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(argv, (__doc__ or "").splitlines()[0])
    report = Report("autoproxy")
    preparing(report, options)
    sizes = [MB // 5] if options.quick else [10 * MB, 100 * MB]
    number = NOOPS // 20 if options.quick else NOOPS
    with executors() as (pools, missing):

        def row(
            name: str, run: Callable[[Executor], float], targets: dict[str, float] | None = None
        ) -> None:
            compare(report, options, pools, missing, name, run, targets)

        row("no-op, one by one", partial(noops, number))
        row("no-op, all at once", partial(burst, number))
        for nbytes in sizes:
            data = _tasks.array(nbytes)
            for way, use in WAYS.items():
                row(f"argument {size(nbytes)}, {way}", partial(argument, data, use))
            for way, use in WAYS.items():
                row(f"result {size(nbytes)}, {way}", partial(result, nbytes, use))
            row(f"result {size(nbytes)} to the next task", partial(chain, nbytes))
    report.finish(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
