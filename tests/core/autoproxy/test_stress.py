"""Many threads submit, pass on and drop at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from proxystore_core.autoproxy import Session, StoreExecutor
from proxystore_core.store import Store

BIG = 20_000


def test_chains_from_many_threads(
    store: Store[Any], tasks: Any, eventually: Any, count: Any
) -> None:
    shared = bytes(200_000)
    with Session(store) as session:
        problems: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for i in range(25):
                    first = session.prepare(tasks.identity, ([np.full(BIG, seed + i), shared],))
                    array, data = session.result(first.func(*first.args))
                    first.lease.release()
                    second = session.prepare(tasks.add_one, (array,))
                    del array
                    made = session.result(second.func(*second.args))
                    second.lease.release()
                    assert made[0] == seed + i + 1
                    assert len(data) == len(shared)
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert eventually(lambda: count(store) == 0)
        assert session.stats().alive == 0
        assert session.stats().hits > 6 * 25


def test_futures_dropped_in_any_order(
    processes: ProcessPoolExecutor, store: Store[Any], tasks: Any, eventually: Any, count: Any
) -> None:
    with StoreExecutor(processes, store, close_store=False) as executor:
        firsts = [executor.submit(tasks.ones, BIG + i) for i in range(20)]
        with ThreadPoolExecutor(4) as helpers:
            nexts = [
                helpers.submit(lambda f=f: executor.submit(tasks.add_one, f.result()))
                for f in firsts
            ]
            seconds = [outer.result() for outer in as_completed(nexts)]
        firsts.clear()
        del nexts
        total = 0.0
        while seconds:
            total += float(seconds.pop().result()[0])
        assert total == 40
        assert eventually(lambda: count(store) == 0)
