"""Workers and clients on several nodes, each with a memory of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import proxystore_dask
import pytest
from distributed import Client, get_worker

from tests.conftest import wait_until
from tests.integrations.dask_kit import (
    SIZE,
    THRESHOLD,
    elsewhere,
    empty,
    infos,
    make,
    mapped_file,
    root_of,
    started,
    total,
    usage,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def nothing_elsewhere(no_leaks: None) -> Iterator[None]:
    """Fail a test that leaves something on the other node."""
    yield
    assert not objects("far")
    if root_of("far").exists():
        root_of("far").rmdir()  # raises where something was left


def objects(name: str) -> int:
    """Count the objects in the memory of another node."""
    return len(list(root_of(name).glob("*/o/*")))


@contextmanager
def nodes(path: Path, *names: str) -> Iterator[tuple[Client, list[str]]]:
    """Start a worker on each node, by name; yield the client and the workers' addresses."""
    preloads = [elsewhere(name) if name else "" for name in names]
    with (
        started(path, *preloads, workers=len(names)) as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(len(names), timeout=60)
        proxystore_dask.enable(client, threshold=THRESHOLD)
        by_name = {info["name"]: address for address, info in infos(client).items()}
        yield client, [by_name[f"w{number}"] for number in range(len(names))]


def test_workers_of_another_node_share_one_copy(tmp_path: Path) -> None:
    with nodes(tmp_path, "", "far", "far") as (client, (near, one, two)):
        value = make(SIZE)
        argument = client.map(
            lambda _, x: (get_worker().address, mapped_file(x)), range(8), x=value,
            workers=[one, two],
        )  # fmt: skip
        found = client.gather(argument)
        assert {worker for worker, _ in found} == {one, two}
        assert len({path for _, path in found}) == 1  # one object, fetched once
        assert found[0][1].startswith(str(root_of("far")))
        assert objects("far") == 1
        assert usage(client) == 1
        del argument
        assert empty(client)
        assert wait_until(lambda: not objects("far"))  # the copy goes with it

        made = client.submit(make, SIZE, workers=one)
        path = client.submit(mapped_file, made, workers=two).result()
        assert path.startswith(str(root_of("far")))
        assert client.submit(total, made, workers=near).result() == total(value)
        assert np.array_equal(made.result(), value)
        del made
        assert empty(client)
        assert wait_until(lambda: not objects("far"))


def test_all_ways_between_nodes(tmp_path: Path) -> None:
    with nodes(tmp_path, "far", "") as (client, (far, near)):
        value = make(SIZE)

        async def later(values: Any) -> float:
            return total(values)

        assert client.submit(total, value, workers=far).result() == total(value)
        assert client.submit(later, value, workers=far).result() == total(value)
        made = client.submit(make, SIZE, workers=near)
        assert np.array_equal(made.result(), value)
        assert usage(client) >= 1
        assert client.submit(total, made, workers=far).result() == total(value)
        back = client.submit(make, SIZE, 5, workers=far)
        assert client.submit(total, back, workers=near).result() == total(make(SIZE, 5))
        assert np.array_equal(back.result(), make(SIZE, 5))
        scattered = client.scatter(make(SIZE, 7), workers=far)
        everywhere = client.scatter(make(SIZE, 8), broadcast=True)
        for worker in (far, near):
            assert client.submit(total, scattered, workers=worker).result() == total(make(SIZE, 7))
            assert client.submit(total, everywhere, workers=worker).result() == total(make(SIZE, 8))
        assert np.array_equal(scattered.result(), make(SIZE, 7))
        assert np.array_equal(client.gather(scattered, direct=True), make(SIZE, 7))
        del made, back, scattered, everywhere
        assert empty(client)
        assert wait_until(lambda: not objects("far"))


def test_client_of_another_node(tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        elsewhere("far")
        + """
import sys
import numpy as np
import proxystore_dask
from distributed import Client

with Client(sys.argv[1]) as client:
    proxystore_dask.enable(client, threshold=100_000)
    value = np.arange(100_000, dtype='f8')
    future = client.submit(lambda x: x + 1, value)
    value[:] = 0  # after it was sent
    assert future.result()[5] == 6
    value = np.arange(100_000, dtype='f8')
    assert client.submit(lambda x, y: x.sum() + y['z'].sum(), future, {'z': value}).result() \\
        == 2 * value.sum() + value.size
    scattered = client.scatter(value)
    assert client.submit(np.sum, scattered).result() == value.sum()
    assert (scattered.result() == value).all()
    try:
        client.submit(lambda x, y: x, value, (i for i in ()))
    except TypeError:
        pass
    else:
        raise AssertionError('a generator was pickled')
    print('objects', flush=True)
    sys.stdin.readline()
    del future, scattered
    print('none', flush=True)
    sys.stdin.readline()
"""
    )
    with (
        nodes(tmp_path, "") as (client, _),
        subprocess.Popen(
            [sys.executable, str(script), client.scheduler.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "objects\n"
        assert usage(client) >= 2
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "none\n"
        assert wait_until(lambda: not usage(client))
        print(file=process.stdin, flush=True)
        assert process.wait(30) == 0


def test_client_of_another_node_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        elsewhere("far")
        + """
import sys
import numpy as np
import proxystore_dask
from distributed import Client

client = Client(sys.argv[1])
proxystore_dask.enable(client, threshold=1000)
future = client.submit(lambda x: x + 1, np.ones(100_000))
future.result()
proxystore_dask.client._enabled[client].memory.put(np.ones(100_000), 1)  # and dies before it tells
client.submit(lambda: 1).result()
print('ready', flush=True)
sys.stdin.read()
"""
    )
    with (
        nodes(tmp_path, "") as (client, _),
        subprocess.Popen(
            [sys.executable, str(script), client.scheduler.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert usage(client) >= 2
        process.kill()
        process.wait()
        assert empty(client)
    with proxystore_core_reaps():
        pass


@contextmanager
def proxystore_core_reaps() -> Iterator[None]:
    """Remove the memory of a node whose only process was killed, as opening a store there does."""
    from proxystore_core.connectors._reaping import reap_stores

    yield
    reap_stores(str(root_of("far")))
