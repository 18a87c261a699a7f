"""Threads and processes that put, set, get and evict the same keys at once.

Whoever gets finds the whole value of that key, or nothing, or a named error.
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import pytest

from proxystore_core.exceptions import ProxyResolveError, ProxyResolveMissingKeyError
from proxystore_core.proxy import extract
from proxystore_core.store import Store, StoreConfig, get_or_create_store
from proxystore_core.store.lifetimes import ContextLifetime

MISSING = object()
SIZES = [1, 100, 3000, 40_000, 200_000]


def value(number: int, rng: random.Random) -> Any:
    """Make a value that says which key it belongs to, in all of its parts."""
    size, mark = rng.choice(SIZES), rng.randrange(1 << 30)
    if rng.random() < 0.3:
        return [number, mark] * min(size, 500)
    array = np.full((size, 2), mark)
    array[:, 0] = number
    return array


def check(number: int, found: Any) -> None:
    if found is not MISSING:
        pairs = np.asarray(found).reshape(-1, 2)
        assert (pairs[:, 0] == number).all(), "the object of another key"
        assert (pairs[:, 1] == pairs[0, 1]).all(), "a torn object"


def work(store: Store, keys: list[Any], seed: int, steps: int) -> int:
    """Do things to shared keys, and some of its own; return how many gets found something."""
    rng = random.Random(seed)
    found = 0
    for _ in range(steps):
        number = rng.randrange(len(keys))
        key, what = keys[number], rng.random()
        if what < 0.25:
            store._set(key, value(number, rng))
        elif what < 0.35:
            store.evict(key)
        elif what < 0.45:
            objs = store.get_batch(keys, default=MISSING)
            for each, obj in enumerate(objs):
                check(each, obj)
        elif what < 0.6:
            proxy = pickle.loads(pickle.dumps(store.proxy_from_key(key, evict=what < 0.5)))
            try:
                check(number, extract(proxy))
                found += 1
            except ProxyResolveError as error:
                if not isinstance(error.cause, ProxyResolveMissingKeyError):
                    raise
        elif what < 0.7:
            with ContextLifetime(store) as lifetime:
                own = store.put(mine := value(-1, rng), lifetime=lifetime)
                assert np.array_equal(store.get(own), mine)
            assert store.get(own) is None
        else:
            obj = store.get(key, default=MISSING, writable=what < 0.75)
            check(number, obj)
            found += obj is not MISSING
            if isinstance(obj, np.ndarray) and obj.flags.writeable:
                obj[:] = -7  # nobody else may see that
    return found


def in_process(config: StoreConfig, keys: list[Any], seed: int, steps: int) -> None:
    with get_or_create_store(config) as store:
        assert work(store, keys, seed, steps) > 0


@pytest.mark.parametrize("threads", [4])
def test_threads(store: Store, threads: int) -> None:
    keys = [store.connector.new_key() for _ in range(6)]
    barrier = threading.Barrier(threads)

    def start(seed: int) -> int:
        barrier.wait(10)
        return work(store, keys, seed, 300)

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(start, range(threads))) > 0
    store.evict_batch(keys)
    assert store.usage().objects == 0
    assert not store._flights._flights


@pytest.mark.parametrize("kind", ["file", "shm"])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes(make_connector: Any, kind: str, method: str) -> None:
    run_processes(make_connector(kind), method, 3, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["file", "shm"])
def test_processes_for_long(make_connector: Any, kind: str) -> None:
    run_processes(make_connector(kind), "spawn", 4, 20_000)


def run_processes(connector: Any, method: str, count: int, steps: int) -> None:
    context: Any = multiprocessing.get_context(method)
    with Store("races", connector) as store:
        keys = [store.connector.new_key() for _ in range(6)]
        processes = [
            context.Process(target=in_process, args=(store.config(), keys, seed, steps))
            for seed in range(count)
        ]
        for process in processes:
            process.start()
        try:
            work(store, keys, -1, steps)
        finally:
            for process in processes:
                process.join(100)
        assert [process.exitcode for process in processes] == [0] * count
        if method == "spawn":
            resource_tracker._resource_tracker._stop()  # a process that spawning starts
        store.evict_batch(keys)
        assert store.usage().objects == 0
