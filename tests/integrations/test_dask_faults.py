"""What happens when clients, workers and whole clusters go, and where something is missing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import proxystore_dask
import pytest
from distributed import Client, LocalCluster
from proxystore_dask import _seams, versions
from proxystore_dask.client import _enabled

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.integrations.dask_kit import (
    SIZE,
    THRESHOLD,
    empty,
    kill,
    local,
    make,
    started,
    total,
    usage,
    workers,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])

BARE = "import sys; sys.modules['proxystore_dask'] = None"


def test_started_by_the_command_line(tmp_path: Path) -> None:
    with started(tmp_path) as address, Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        proxystore_dask.enable(client, threshold=THRESHOLD)
        here, there = workers(client)
        made = client.submit(make, SIZE, workers=here)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE))
        assert usage(client) == 1
        assert client.submit(total, make(SIZE), pure=False).result() == total(make(SIZE))
        assert np.array_equal(made.result(), make(SIZE))
        del made
        assert empty(client)


def test_worker_that_lacks_the_package_is_named(tmp_path: Path) -> None:
    with (
        started(tmp_path, BARE) as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(2)
        with pytest.raises(proxystore_dask.DaskSetupError, match="The worker tcp://") as caught:
            proxystore_dask.enable(client)
        assert caught.value.found is None
        assert "pip install 'proxystore-core[dask]" in str(caught.value)
        assert not proxystore_dask.is_enabled(client)
        assert client.submit(total, make(SIZE)).result() == total(make(SIZE))


def test_other_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with local() as client:
        proxystore_dask.disable(client)
        monkeypatch.setattr(versions, "here", lambda: "0.0.7")
        with pytest.raises(proxystore_dask.DaskSetupError, match=r"The scheduler .* has version"):
            proxystore_dask.enable(client)


def test_release_of_distributed_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        LocalCluster(1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        monkeypatch.setitem(_seams._WANTED[Client], "_gather_remote", ("another",))
        with pytest.warns(UserWarning, match="no Client._gather_remote"):
            proxystore_dask.enable(client)
        assert not proxystore_dask.is_enabled(client)
        assert client.submit(total, make(SIZE)).result() == total(make(SIZE))


def test_threads() -> None:
    with local(processes=False) as client:
        value = make(SIZE)
        made = client.submit(make, SIZE)
        assert client.submit(total, made).result() == total(value)
        assert client.submit(total, value, pure=False).result() == total(value)
        assert made.result() is not None
        scattered = client.scatter(value)
        assert client.submit(total, scattered, pure=False).result() == total(value)
        del made, scattered
        assert empty(client)


def test_asynchronous_client() -> None:
    async def run() -> None:
        async with (
            LocalCluster(2, asynchronous=True, threads_per_worker=1,
                         dashboard_address=":0") as cluster,
            Client(cluster, asynchronous=True, set_as_default=False) as client,
        ):  # fmt: skip
            await proxystore_dask.enable(client, threshold=THRESHOLD)
            value = make(SIZE)
            future = client.submit(lambda x: x + 1, value)
            assert np.array_equal(await future, value + 1)
            assert usage(client) == 2
            scattered = await client.scatter(value)
            results = await client.gather([scattered, client.submit(total, scattered)])
            assert results[1] == total(value)
            del future, scattered
            while usage(client):
                await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_client_of_ours_and_preload() -> None:
    with LocalCluster(1, threads_per_worker=1, dashboard_address=":0") as cluster:
        with proxystore_dask.Client(cluster, ps_threshold=1000, set_as_default=False) as client:
            future = client.submit(total, make(SIZE))
            assert future.result() == total(make(SIZE))
            assert usage(client) == 1
            del future
            assert empty(client)
        configuration = {
            "distributed.client.preload": ["proxystore_dask"],
            "proxystore.threshold": "50 kB",
        }
        with dask.config.set(configuration), Client(cluster, set_as_default=False) as client:
            assert proxystore_dask.is_enabled(client)
            assert client.submit(total, make(SIZE)).result() == total(make(SIZE))


def test_store_of_the_user(tmp_path: Path) -> None:
    with (
        Store("files", FileConnector(str(tmp_path / "files"))) as store,
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        proxystore_dask.enable(client, threshold=THRESHOLD, store=store)
        here, there = workers(client)
        made = client.submit(make, SIZE, workers=here)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE))
        assert len(list(store.keys())) == 1
        future = client.submit(total, make(SIZE), pure=False)
        assert future.result() == total(make(SIZE))
        del made, future
        assert wait_until(lambda: not list(store.keys()))


def test_full_store(tmp_path: Path) -> None:
    connector = SharedMemoryConnector(quota=10_000, spill=False)
    with (
        Store("tiny", connector) as store,
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        proxystore_dask.enable(client, threshold=THRESHOLD, store=store)
        here, there = workers(client)
        made = client.submit(make, SIZE, workers=here)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE))
        assert client.submit(total, make(SIZE), pure=False).result() == total(make(SIZE))
        assert np.array_equal(client.scatter(make(SIZE)).result(), make(SIZE))


def test_restart() -> None:
    with local() as client:
        value = make(SIZE)
        futures = client.map(lambda x: x + 1, [value + i for i in range(4)])
        client.gather(futures)
        client.restart()
        assert empty(client)
        assert client.submit(total, value).result() == total(value)
        assert empty(client)


def test_client_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import os, sys, numpy as np, proxystore_dask\n"
        "from distributed import Client\n"
        "client = Client(sys.argv[1])\n"
        "proxystore_dask.enable(client, threshold=1000)\n"
        "future = client.submit(lambda x: x + 1, np.ones(100_000))\n"
        "future.result()\n"
        "held = proxystore_dask.client._enabled[client].memory.put(np.ones(100_000), 1)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with local() as client:
        process = subprocess.Popen(
            [sys.executable, str(script), client.scheduler.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert usage(client) == 3
            process.kill()
        assert empty(client)


def test_killed_worker_that_held_a_result() -> None:
    with local() as client:
        here, _ = workers(client)
        made = client.submit(make, SIZE, workers=here, allow_other_workers=True)
        assert np.array_equal(made.result(), make(SIZE))
        scattered = client.scatter(make(SIZE, 7), workers=here)
        kill(client, here)
        assert client.submit(total, made).result() == total(make(SIZE))
        assert client.submit(total, scattered).result() == total(make(SIZE, 7))
        assert np.array_equal(scattered.result(), make(SIZE, 7))
        del made, scattered
        assert empty(client)


def test_result_of_a_killed_worker_is_inherited(tmp_path: Path) -> None:
    def make_once(count: int, path: str) -> np.ndarray[Any, Any]:
        with Path(path).open("a") as log:
            log.write("x")
        return make(count)

    log = tmp_path / "log"
    with local(3) as client:
        here, there, _ = workers(client)
        made = client.submit(make_once, SIZE, str(log), workers=here, allow_other_workers=True)
        assert client.submit(total, made, workers=there).result() == total(make(SIZE))
        kill(client, here, there)
        assert client.submit(total, made, pure=False).result() == total(make(SIZE))
        assert np.array_equal(made.result(), make(SIZE))
        assert log.read_text() == "x"  # it was not made again
        assert usage(client) == 1
        del made
        assert empty(client)


@pytest.mark.parametrize(
    ("tasks", "kills"), [(100, 5), pytest.param(500, 50, marks=pytest.mark.soak)]
)
def test_many_tasks_on_workers_that_are_killed(tmp_path: Path, tasks: int, kills: int) -> None:
    def step(values: Any, number: int, path: str) -> np.ndarray[Any, Any]:
        marker = Path(path) / str(number)
        if number % (tasks // kills) == 0 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(values + number)

    value = make(20_000)
    config = {"distributed.scheduler.allowed-failures": tasks}
    with dask.config.set(config), local() as client:
        # A nanny gives up where its worker's name is still taken by the one that was killed.
        client.cluster.adapt(minimum=2, maximum=2, interval="500ms")
        first = [
            client.submit(step, value, i, str(tmp_path), key=f"step-{i}") for i in range(tasks)
        ]
        sums = [client.submit(total, future) for future in first]
        expected = [total(value + i) for i in range(tasks)]
        assert client.gather(sums) == expected
        assert [total(x) for x in client.gather(first)] == expected
        assert len(list(tmp_path.iterdir())) == kills
        del first, sums
        assert empty(client)


def test_retired_worker_gives_its_results_to_another() -> None:
    with local() as client:
        here, _ = workers(client)
        made = client.submit(make, SIZE, workers=here, allow_other_workers=True)
        assert wait_until(made.done)
        client.retire_workers([here])
        assert np.array_equal(made.result(), make(SIZE))
        del made
        assert empty(client)


def test_cluster_leaves_nothing_behind() -> None:
    with local() as client:
        directory = Path(_enabled[client].memory.store.connector.directory)
        futures = client.map(lambda x: x + 1, [make(SIZE), make(SIZE, 1)])
        client.gather(futures)
        assert usage(client)
    assert not directory.exists()
