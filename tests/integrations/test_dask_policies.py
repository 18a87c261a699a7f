"""What policies, preloads and limits of memory change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import proxystore_dask
import pytest
from distributed import Client, LocalCluster

from proxystore_core.proxy import is_proxy, is_resolved
from tests.conftest import wait_until
from tests.integrations.dask_kit import (
    SIZE,
    THRESHOLD,
    empty,
    infos,
    make,
    started,
    total,
    usage,
    workers,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MB = 1_000_000


def test_proxies_of_results() -> None:
    policy = proxystore_dask.Policy(threshold=THRESHOLD, resolve="lazy")
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        proxystore_dask.enable(client, policy=policy)
        made = client.submit(make, SIZE)
        proxy = made.result()
        assert is_proxy(proxy)
        assert isinstance(proxy, np.ndarray)
        assert proxy.shape == (SIZE,)
        assert not is_resolved(proxy)
        assert client.submit(lambda x: x + 1, 1).result() == 2
        del made  # the proxy holds what it needs
        assert client.submit(is_proxy, proxy).result()
        summed = client.submit(total, proxy, pure=False)
        assert summed.result() == total(make(SIZE))
        assert not is_resolved(proxy)  # it went by reference, as it came
        assert usage(client) == 1
        nested = client.submit(lambda x: total(x["a"][0]), {"a": [proxy]})
        assert nested.result() == total(make(SIZE))
        assert usage(client) == 1
        assert total(proxy) == total(make(SIZE))
        del proxy, summed, nested
        assert empty(client)
        value = make(SIZE)
        assert client.submit(lambda x: (is_proxy(x), total(x)), value).result() == (
            True, total(value),
        )  # fmt: skip
        assert empty(client)


def test_preload_of_the_scheduler(tmp_path: Path) -> None:
    config = {"DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['proxystore_dask']"}
    config |= {"DASK_DISTRIBUTED__WORKER__PRELOAD": "['proxystore_dask']"}
    config |= {"DASK_PROXYSTORE__THRESHOLD": "'50 kB'"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in config.items():
            patch.setenv(name, value)
        with started(tmp_path) as address, Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            here, there = workers(client)
            made = client.submit(make, SIZE, workers=here)
            used = client.submit(lambda x: x.size, made, workers=there)
            assert used.result() == SIZE
            counts = client.run(lambda dask_worker: dask_worker.metrics["proxystore"](dask_worker))
            assert max(count["bytes"] for count in counts.values()) == SIZE * 8
            assert np.array_equal(made.result(), make(SIZE))  # a client that knows nothing of it
            with Client(address, set_as_default=False) as other:
                proxystore_dask.enable(other, threshold=THRESHOLD)
                assert other.submit(total, make(SIZE)).result() == total(make(SIZE))


def test_shared_pages_count_for_no_worker() -> None:
    """Workers whose inputs are larger than their memory, and shared, go on."""
    limits = {
        "distributed.worker.memory.pause": 0.8,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.worker.memory.monitor-interval": "20ms",
    }
    with (
        dask.config.set(limits),
        LocalCluster(
            2, threads_per_worker=1, dashboard_address=":0", memory_limit=300 * MB
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        proxystore_dask.enable(client, threshold=THRESHOLD)
        here, there = workers(client)
        pids = client.run(lambda dask_worker: dask_worker.nanny and __import__("os").getpid())
        value = np.ones(50 * MB)  # 400 MB

        def hold(values: Any, _: int) -> Any:
            from distributed import get_worker

            get_worker().held = values  # type: ignore[attr-defined]
            return total(values)

        futures = client.map(hold, [value] * 2, range(2), workers=[here, there])
        assert client.gather(futures) == [50 * MB] * 2

        def states() -> dict[str, Any]:
            info = infos(client)
            return {a: (w["status"], w["metrics"]["memory"] / MB) for a, w in info.items()}

        # One of them counts for the node, in what the scheduler shows.
        assert wait_until(lambda: sum(memory > 400 for _, memory in states().values()) == 1)
        more = client.map(lambda x: total(x), [value] * 2, pure=False, workers=[here, there])
        assert client.gather(more) == [50 * MB] * 2
        assert {status for status, _ in states().values()} == {"running"}
        assert client.run(lambda: __import__("os").getpid()) == pids  # none was killed
        client.run(lambda dask_worker: delattr(dask_worker, "held") or None, on_error="ignore")
        del futures, more
        assert empty(client)
