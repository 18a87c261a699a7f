"""Put and get through stores: ours against one memcpy, and against ProxyStore.

The producer is this process, the consumer another one. A get is timed in the
consumer, from the key to the object; "read" sums the object as well, so that
every page is touched. Objects are evicted between rounds, outside of the clock.
"""

from __future__ import annotations

import gc
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._child import Child
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
from benchmarks._peers import OURS, PROXYSTORE_FILE, PROXYSTORE_REDIS, reopen, stores

BATCH = 100  # operations behind one sample of a small object


def array(nbytes: int) -> np.ndarray[Any, Any]:
    """Return a float64 array of that size, with all its pages in memory."""
    return np.arange(nbytes // 8, dtype=np.float64)


def get(system: str, config: Any, key: Any, nbytes: int, read: bool) -> float:
    """Fetch an object in the consumer and check it; return the seconds it took."""
    store = reopen(system, config)
    start = time.perf_counter()
    found = store.get(key)
    if read:
        found.sum()
    took = time.perf_counter() - start
    if found.nbytes != nbytes or found[-1] != nbytes // 8 - 1:
        raise RuntimeError(f"{system} gave a wrong object")
    del found
    gc.collect()
    return took


def get_many(system: str, config: Any, keys: Sequence[Any]) -> float:
    """Fetch small objects one by one in the consumer; return the median seconds of one."""
    store = reopen(system, config)
    taken = []
    for key in keys:
        start = time.perf_counter()
        store.get(key)
        taken.append(time.perf_counter() - start)
    return median(taken)


def timed_put(store: Any, data: Any) -> float:
    """Store an object, evict it, and return the seconds that storing took."""
    start = time.perf_counter()
    key = store.put(data)
    took = time.perf_counter() - start
    store.evict(key)
    return took


def timed_get(system: str, store: Any, consumer: Child, data: Any, read: bool = False) -> float:
    """Store an object, time fetching it in the consumer, and evict it."""
    key = store.put(data)
    try:
        return consumer.call(get, system, store.config(), key, data.nbytes, read)
    finally:
        store.evict(key)


def timed_small_gets(system: str, store: Any, consumer: Child, data: Any) -> float:
    """As `timed_get` for many small objects; the median of one."""
    keys = [store.put(data) for _ in range(BATCH)]
    try:
        return consumer.call(get_many, system, store.config(), keys)
    finally:
        for key in keys:
            store.evict(key)


def against_memcpy(report: Report, options: Options, store: Any) -> None:
    """Compare a put into recycled segments with one copy into warm memory."""
    nbytes = MB if options.quick else GB
    progress(f"store: put of {size(nbytes)} and memcpy")
    data = array(nbytes)
    warm = np.zeros_like(data)

    def memcpy() -> float:
        start = time.perf_counter()
        np.copyto(warm, data)
        return time.perf_counter() - start

    taken = interleave(
        {"memcpy": memcpy, "put": lambda: timed_put(store, data)}, options.rounds, warmup=2
    )
    report.samples |= {f"{name} {size(nbytes)}": values for name, values in taken.items()}
    put, copy = median(taken["put"]), median(taken["memcpy"])
    report.add(
        f"put {size(nbytes)} of float64, recycled",
        peer="memcpy into warm memory",
        value=put / copy,
        target=1.25,
        at_most=True,
        ours=f"{put * 1e3:.4g} ms",
        theirs=f"{copy * 1e3:.4g} ms",
    )


def small(report: Report, options: Options, store: Any, consumer: Child) -> None:
    """Time put and get of 1 kB."""
    data = array(KB)
    taken = interleave(
        {
            "put 1 kB": lambda: median([timed_put(store, data) for _ in range(BATCH)]),
            "get 1 kB": lambda: timed_small_gets(OURS, store, consumer, data),
        },
        options.rounds,
    )
    report.samples |= taken
    for name, values in taken.items():
        report.within(name, median(values), 100)


def by_size(report: Report, options: Options, store: Any, consumer: Child) -> None:
    """Time a get, which must not depend on the size."""
    for nbytes in (KB, 64 * KB) if options.quick else (KB, MB, 100 * MB, GB):
        progress(f"store: get of {size(nbytes)}")
        data = array(nbytes)
        cases: dict[str, Callable[[], float]] = {
            "map": lambda data=data: timed_get(OURS, store, consumer, data),  # type: ignore[misc]
            "read": lambda data=data: timed_get(OURS, store, consumer, data, True),  # type: ignore[misc]
        }
        taken = interleave(cases, options.rounds)
        report.samples |= {f"get {size(nbytes)}, {n}": values for n, values in taken.items()}
        report.within(f"get {size(nbytes)}, other process", median(taken["map"]), 300)
        report.within(f"get and read {size(nbytes)}", median(taken["read"]), None)


def against_proxystore(
    report: Report,
    options: Options,
    opened: dict[str, Any],
    missing: dict[str, str],
    consumer: Child,
) -> None:
    """Compare put, get, and get with reading, with ProxyStore's stores."""
    nbytes = MB if options.quick else 100 * MB
    data = array(nbytes)
    steps: dict[str, tuple[Callable[..., float], float | None]] = {
        "put": (lambda system, store: timed_put(store, data), 5),
        "get": (lambda system, store: timed_get(system, store, consumer, data), 100),
        "get and read": (
            lambda system, store: timed_get(system, store, consumer, data, True),
            None,
        ),
    }
    for step, (run, target) in steps.items():
        progress(f"store: {step} of {size(nbytes)}, all stores")
        taken = interleave(
            {
                system: lambda run=run, system=system, store=store: run(system, store)  # type: ignore[misc]
                for system, store in opened.items()
            },
            options.rounds,
            warmup=2,
        )
        report.samples |= {f"{step} {size(nbytes)}, {s}": values for s, values in taken.items()}
        for peer in (PROXYSTORE_FILE, PROXYSTORE_REDIS):
            name = f"{step} {size(nbytes)}"
            if peer in missing:
                report.not_run(name, peer, missing[peer])
            else:
                report.faster(name, peer, median(taken[OURS]), median(taken[peer]), target)


def references(report: Report, opened: dict[str, Any], missing: dict[str, str]) -> None:
    """Compare the size of a pickled proxy."""
    data = array(KB)
    sizes = {}
    for system, store in opened.items():
        proxy = store.proxy(data)
        sizes[system] = len(pickle.dumps(proxy, protocol=5))
        store.evict(_key(system, proxy))
    report.add(
        "pickled proxy",
        value=sizes[OURS],
        unit="B",
        target=200,
        at_most=True,
        ours=f"{sizes[OURS]} B",
    )
    for peer in (PROXYSTORE_FILE, PROXYSTORE_REDIS):
        if peer in missing:
            report.not_run("pickled proxy, times smaller", peer, missing[peer])
            continue
        report.add(
            "pickled proxy, times smaller",
            peer=peer,
            value=sizes[peer] / sizes[OURS],
            target=3,
            ours=f"{sizes[OURS]} B",
            theirs=f"{sizes[peer]} B",
        )


def _key(system: str, proxy: Any) -> Any:
    if system == OURS:
        from proxystore_core.store.utils import get_key
    else:
        from proxystore.store.utils import get_key
    return get_key(proxy)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("store")
    with stores() as (opened, missing), Child() as consumer:
        store = opened[OURS]
        against_memcpy(report, options, store)
        small(report, options, store, consumer)
        by_size(report, options, store, consumer)
        against_proxystore(report, options, opened, missing, consumer)
        references(report, opened, missing)
    report.finish(options)


if __name__ == "__main__":
    main()
