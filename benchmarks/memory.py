"""Peak memory of a put and of a get beside the object itself, ours and ProxyStore's.

Every measurement has a fresh process of its own, watched from outside and by the
kernel's high-water mark, which is set back right before. Beside the object means:

* put: private memory above what the process had with its object. The stored copy
  is the object in its other place: shared pages count as none.
* get (the object is read to the end): all resident memory above what the process
  had before, shared pages included, less the size of the object.

Only the client is watched: what a Redis server holds is not counted against it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._child import Child, Sampler, reset_peak, resident
from benchmarks._harness import MB, Report, median, parse, progress, size
from benchmarks._peers import OURS, PROXYSTORE_FILE, PROXYSTORE_REDIS, reopen, stores

_held: dict[str, Any] = {}  # what a child keeps between two calls


def prepare(system: str, config: Any, nbytes: int) -> None:
    """Open the store in the child, use it once, and make the object to put (if any)."""
    store = reopen(system, config)
    key = store.put(np.ones(1000))
    store.get(key)
    store.evict(key)
    if nbytes:
        _held["object"] = np.ones(nbytes // 8)
    gc.collect()
    reset_peak()


def put(system: str, config: Any) -> tuple[Any, dict[str, int]]:
    """Put the prepared object; return its key and what is resident."""
    key = reopen(system, config).put(_held["object"])
    return key, resident()


def get(system: str, config: Any, key: Any) -> dict[str, int]:
    """Get an object, read all of it, and return what is resident."""
    found = reopen(system, config).get(key)
    if found.sum() != found.size:
        raise RuntimeError(f"{system} gave a wrong object")
    _held["object"] = found
    return resident()


def put_overhead(system: str, store: Any, nbytes: int) -> float:
    """Return the fraction of the object's size that a put took beside it."""
    with Child() as child:
        child.call(prepare, system, store.config(), nbytes)
        before = resident(child.pid)
        with Sampler(child.pid) as watch:
            key, after = child.call(put, system, store.config())
        store.evict(key)
    private = watch.peak["RssAnon"] - before["RssAnon"]
    # The mark misses no short peak, but cannot tell shared pages: take out those seen.
    shared = max(watch.peak["RssShmem"] - before["RssShmem"], 0)
    marked = after["VmHWM"] - before["VmRSS"] - shared
    return max(private, marked, 0) / nbytes


def get_overhead(system: str, store: Any, nbytes: int) -> float:
    """Return the fraction of the object's size that a get took beside it."""
    key = store.put(np.ones(nbytes // 8))
    try:
        with Child() as child:
            child.call(prepare, system, store.config(), 0)
            before = resident(child.pid)
            after = child.call(get, system, store.config(), key)
    finally:
        store.evict(key)
    return max(after["VmHWM"] - before["VmRSS"] - nbytes, 0) / nbytes


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("memory")
    nbytes = 10 * MB if options.quick else 100 * MB
    measures: dict[str, Callable[[str, Any, int], float]] = {
        "put": put_overhead,
        "get": get_overhead,
    }
    with stores() as (opened, missing):
        for step, measure in measures.items():
            beside = {}
            for system, store in opened.items():
                progress(f"memory: {step} of {size(nbytes)}, {system}")
                samples = [measure(system, store, nbytes) for _ in range(1 if options.quick else 3)]
                report.samples[f"{step}, {system}"] = samples
                beside[system] = median(samples)
            for peer in (PROXYSTORE_FILE, PROXYSTORE_REDIS):
                name = f"peak beside the object, {step} {size(nbytes)}"
                if peer in missing:
                    report.not_run(name, peer, missing[peer])
                    continue
                report.add(
                    name,
                    peer=peer,
                    value=beside[OURS] * 100,
                    unit="%",
                    target=10,
                    at_most=True,
                    ours=f"{beside[OURS]:.1%}",
                    theirs=f"{beside[peer]:.0%}",
                )
    report.finish(options)


if __name__ == "__main__":
    main()
