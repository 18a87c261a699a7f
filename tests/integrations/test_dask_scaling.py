"""Clusters that are encrypted, restarted, scaled, and short of memory."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from distributed import (
    Client,
    Security,
    get_worker,
    wait,
)

from tests.conftest import wait_until
from tests.integrations.dask_kit import (
    SIZE,
    beaten,
    empty,
    infos,
    local,
    make,
    total,
    usage,
    workers,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_encrypted_cluster() -> None:
    with local(security=Security.temporary()) as client:
        assert client.scheduler.address.startswith("tls://")
        here, there = workers(client)
        made = client.submit(lambda x: x + 1, make(SIZE), workers=here)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE, 1))
        assert usage(client) == 2
        assert np.array_equal(made.result(), make(SIZE, 1))
        scattered = client.scatter(make(SIZE), workers=here)
        assert client.submit(total, scattered, workers=there).result() == total(make(SIZE))
        del made, scattered
        assert empty(client)


def test_workers_that_are_restarted() -> None:
    with local() as client:
        here, there = workers(client)
        future = client.submit(lambda x: x + 1, make(SIZE))
        made = client.map(make, [SIZE] * 2, range(2))
        scattered = client.scatter(make(SIZE, 3), workers=here)
        assert client.submit(lambda x, y: total(x + y), *made).result() == total(
            make(SIZE)
        ) + total(make(SIZE, 1))
        before = client.run(os.getpid)
        client.restart_workers([here, there])
        assert not set(before.values()) & set(client.run(os.getpid).values())
        for _ in range(2):  # the workers live on, too
            sums = client.gather(client.map(total, [*made, scattered], pure=False))
            assert sums == [total(make(SIZE, start)) for start in (0, 1, 3)]
            beaten(client)
        assert np.array_equal(future.result(), make(SIZE, 1))
        del made, scattered, future
        assert empty(client)


def once(number: int, path: str) -> np.ndarray[Any, Any]:
    """Make values, and note that it was done."""
    with open(f"{path}/{number}", "a") as file:
        file.write("x")
    return make(SIZE, number)


def runs(path: Path) -> list[str]:
    return [file.read_text() for file in path.iterdir()]


def test_scaled_cluster_loses_nothing(tmp_path: Path) -> None:
    with local(1) as client:
        cluster = client.cluster
        cluster.scale(3)
        client.wait_for_workers(3, timeout=30)
        everywhere = client.map(
            once, range(6), path=str(tmp_path),
            workers=workers(client), allow_other_workers=True,
        )  # fmt: skip
        scattered = client.scatter([make(SIZE, 20 + i) for i in range(3)])
        argument = client.submit(lambda x: x + 1, make(SIZE, 30))
        shared = client.map(total, everywhere)
        argument.result()
        assert client.gather(shared) == [total(x) for x in client.gather(everywhere)]
        cluster.scale(1)
        assert wait_until(lambda: len(workers(client)) == 1, timeout=30)
        assert [total(x) for x in client.gather(everywhere)] == client.gather(shared)
        assert client.gather(shared) == [total(make(SIZE, i)) for i in range(6)]
        found = client.gather(client.map(total, scattered))
        assert found == [total(make(SIZE, 20 + i)) for i in range(3)]
        assert np.array_equal(argument.result(), make(SIZE, 31))
        assert runs(tmp_path) == ["x"] * 6  # what was looked at lies in the node's memory
        del everywhere, scattered, argument, shared
        assert empty(client)


def test_adaptive_cluster_loses_nothing(tmp_path: Path) -> None:
    go = tmp_path / "go"
    done = tmp_path / "done"
    done.mkdir()

    def hold(number: int, path: str, go: str) -> np.ndarray[Any, Any]:
        pause = threading.Event()
        while not Path(go).exists():
            pause.wait(0.02)
        return once(number, path)

    with local(1) as client:
        client.cluster.adapt(
            minimum=1, maximum=3, interval="50ms", wait_count=2, target_duration="10ms"
        )
        futures = client.map(hold, range(9), path=str(done), go=str(go))
        assert wait_until(lambda: len(workers(client)) == 3, timeout=40)
        go.touch()
        with client.as_current():
            wait(futures)
        assert wait_until(lambda: len(workers(client)) == 1, timeout=40)
        assert [total(x) for x in client.gather(futures)] == [
            total(make(SIZE, i)) for i in range(9)
        ]
        more = client.map(lambda x, y: total(x) + y[0], futures, y=make(SIZE, 1))
        assert client.gather(more) == [total(make(SIZE, i)) + 1 for i in range(9)]
        assert runs(done) == ["x"] * 9
        del futures, more
        assert empty(client)


# Memory limits

LIMIT = 512 * 2**20
ITEMS = 64 * 2**20 // 8


@contextmanager
def limited() -> Iterator[Client]:
    with local(1, memory_limit=LIMIT) as client:
        yield client


def stay(look: Callable[[], Any]) -> list[Any]:
    """Look again and again while the worker and its nanny check the memory several times."""
    monitor = get_worker().monitor
    until = monitor.count + 3
    found = []
    pause = threading.Event()
    while monitor.count < until:
        found.append(look())
        pause.wait(0.02)
    return found


def test_mapped_memory_is_not_the_worker_s_own() -> None:
    """Inputs that all workers of the node share, and that are larger than the limit of one."""

    def read(arrays: list[Any]) -> tuple[int, float, set[str]]:
        sums = [total(array) for array in arrays]  # touches all pages
        return os.getpid(), sum(sums), set(stay(lambda: get_worker().status.name))

    with limited() as client:
        arrays = [np.full(ITEMS, float(i)) for i in range(10)]
        (pid,) = client.run(os.getpid).values()
        scattered = client.scatter(arrays[5:])
        expected = sum(float(i) * ITEMS for i in range(10))
        found = client.submit(read, [*arrays[:5], *scattered]).result(timeout=60)
        assert found == (pid, expected, {"running"})
        del scattered
        assert empty(client)


def test_spilling() -> None:
    with limited() as client:
        futures = client.map(lambda i: np.full(ITEMS // 2, float(i)), range(20), pure=False)
        with client.as_current():
            wait(futures)
        (address,) = workers(client)

        def spilled() -> int:
            metrics = infos(client)[address]["metrics"]
            return int(metrics["spilled_bytes"]["disk"])

        assert wait_until(lambda: spilled() > 0, timeout=20)
        assert client.gather(client.map(total, futures)) == [i * ITEMS // 2 for i in range(20)]
        assert [x[5] for x in client.gather(futures[::5])] == [0, 5, 10, 15]
        assert client.nbytes(summary=False)[futures[0].key] == ITEMS * 4
        del futures
        assert empty(client)
        assert wait_until(lambda: spilled() == 0, timeout=20)


def test_pausing() -> None:
    """Memory of the worker's own pauses it, that of arguments which were written to included."""

    def fill(shared: Any) -> tuple[set[str], int]:
        import psutil

        worker = get_worker()
        shared += 1  # private pages from now on
        rest = int(LIMIT * 0.87) - psutil.Process().memory_info().rss
        own = np.ones(max(rest, 0) // 8)
        pause = threading.Event()
        for _ in range(1000):
            if worker.status.name == "paused":
                break
            pause.wait(0.02)
        return {worker.status.name}, len(own)

    with limited() as client:
        states, _ = client.submit(fill, np.ones(ITEMS)).result(timeout=60)
        assert states == {"paused"}
        assert client.submit(total, make(SIZE)).result(timeout=60) == total(make(SIZE))
        assert empty(client)
