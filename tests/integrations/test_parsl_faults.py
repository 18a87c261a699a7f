"""Killed workers, killed and interrupted clients, workers without the package, full stores."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from parsl import python_app

from proxystore_core.exceptions import WorkerSetupError
from proxystore_core.store import Store

N = 50_000


@python_app(executors=["htex"])
def die_first(array: Any, marker: str) -> Any:
    import os
    import signal

    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return array + 1


@python_app(executors=["htex"])
def total(array: Any) -> float:
    return float(array.sum())


def test_a_killed_worker_and_a_retry(parsl_kit: Any, tmp_path: Path) -> None:
    with Store("parsl-faults") as store:
        with parsl_kit.load(parsl_kit.htex(store=store), retries=1):
            future = die_first(np.ones(N), str(tmp_path / "marker"))
            assert total(future).result() == 2 * N
            del future
            assert parsl_kit.wait_until(lambda: store.usage().objects == 0)
        assert store.usage().objects == 0


def test_a_killed_worker_without_a_retry(parsl_kit: Any, tmp_path: Path) -> None:
    with parsl_kit.load(parsl_kit.htex()) as kernel:
        future = die_first(np.ones(N), str(tmp_path / "marker"))
        error = future.exception()
        assert type(error).__name__ == "WorkerLost"
        htex: Any = kernel.executors["htex"]
        assert htex.proxy_stats().alive == 0
        assert total(np.ones(N)).result() == N


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "proxystore_core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def test_workers_without_the_package(parsl_kit: Any, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    provider = {"worker_init": f"export PYTHONPATH={tmp_path}"}
    with parsl_kit.load(parsl_kit.htex(workers=1, provider=provider)):
        error = python_app(len, executors=["htex"])(b"x" * 100_000).exception()
    assert isinstance(error, WorkerSetupError)
    assert (error.module, error.executor) == ("proxystore_core", "htex")
    assert "worker_init=" in str(error)
    assert "'htex'" in str(error)
    assert isinstance(error.__cause__, ModuleNotFoundError)


def test_a_full_store(parsl_kit: Any, tmp_path: Path) -> None:
    from proxystore_core.connectors.shared_memory import SharedMemoryConnector

    connector = SharedMemoryConnector(quota="1 MB", spill=False)
    with Store("parsl-full", connector) as store:
        with parsl_kit.load(parsl_kit.htex(workers=1, store=store)):
            with pytest.warns(RuntimeWarning, match="travel"):
                assert total(np.ones(500_000)).result() == 500_000
            assert total(np.ones(N)).result() == N
        assert store.usage().objects == 0


CLIENT = """
import os, sys, time
from pathlib import Path
import numpy as np
import parsl
from parsl import python_app
from parsl.config import Config
from parsl.providers import LocalProvider
from proxystore_parsl import ProxyHighThroughputExecutor

@python_app
def hold(array, directory):
    import os, time
    open(f"{directory}/running-{os.getpid()}", "w").close()
    time.sleep(120)
    return array

@python_app
def make(n):
    import numpy as np
    return np.ones(n)

def main(directory):
    executor = ProxyHighThroughputExecutor(
        label="htex", address="127.0.0.1", max_workers_per_node=1, encrypted=False,
        heartbeat_period=1, heartbeat_threshold=3, threshold="10 kB", cores_per_worker=0.1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    config = Config(executors=[executor], run_dir=directory, strategy="none", strategy_period=0.1)
    with parsl.load(config):
        kept = make(50_000)
        kept.result()
        future = hold(np.ones(50_000), directory)
        future.result()

main(sys.argv[1])
"""


class Client:
    """A program with a workflow, and the processes that it started."""

    def __init__(self, directory: Path, shm: Path, kit: Any) -> None:
        script = directory / "client.py"
        script.write_text(CLIENT)
        self.directory = directory
        self.shm = shm
        self.kit = kit
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(directory)],
            env={**os.environ, "PROXYSTORE_SHM_ROOT": str(shm)},
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_running(self) -> None:
        assert self.process.stderr is not None

        def running() -> bool:
            return any(self.directory.glob("running-*")) or self.process.poll() is not None

        assert self.kit.wait_until(running, 60)
        assert self.process.returncode is None, self.process.stderr.read()
        assert self.objects()

    def objects(self) -> list[str]:
        return sorted(str(path) for path in self.shm.rglob("*")) if self.shm.exists() else []

    def family(self) -> list[psutil.Process]:
        """Find all processes of this run: they stay in the session of the client."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid and process.status() != "zombie":
                    found.append(process)
        return found

    def end(self) -> None:
        """End what is left of the run, by process id."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                # That one removes the semaphores of the others, and ends.
                if "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        assert self.kit.wait_until(lambda: not self.family())


@pytest.fixture
def start_client(tmp_path: Path, parsl_kit: Any) -> Iterator[Any]:
    clients = []

    def start() -> Client:
        client = Client(tmp_path, tmp_path / "shm", parsl_kit)
        clients.append(client)
        client.wait_running()
        return client

    yield start
    for client in clients:
        client.end()


@pytest.mark.timeout(180)
def test_an_interrupted_client_leaves_nothing(start_client: Any) -> None:
    client = start_client()
    client.process.send_signal(signal.SIGINT)
    _, stderr = client.process.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert client.process.returncode != 0
    assert client.kit.wait_until(lambda: not client.objects()), client.objects()
    assert client.kit.wait_until(lambda: not client.family(), 30), client.family()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("reaper", ["gc", "start"])
def test_what_a_killed_client_leaves_is_reaped(start_client: Any, reaper: str) -> None:
    client = start_client()
    client.process.kill()
    client.process.wait()
    assert client.objects()
    environment = {**os.environ, "PROXYSTORE_SHM_ROOT": str(client.shm)}
    commands = {
        "gc": [sys.executable, "-m", "proxystore_core.cli", "gc"],
        "start": [
            sys.executable,
            "-c",
            "from proxystore_core.store import Store; Store('next').close()",
        ],
    }
    subprocess.run(commands[reaper], env=environment, check=True, capture_output=True)
    assert client.kit.wait_until(lambda: not client.objects()), client.objects()
