"""Programs that end in one way or another leave nothing in the store, and do not hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from proxystore_core.connectors.file import FileConnector

ROOT = Path(__file__).parents[2]

HEAD = f"""
import sys, threading
sys.path.insert(0, {str(ROOT)!r})
from globus_compute_endpoint.engines import ThreadPoolEngine
from examples.compute_stack.in_process import InProcess
from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.store import Store
from proxystore_globus_compute import ProxyClient, ProxyExecutor

def slow(x):
    import time
    time.sleep(0.3)
    return x + b"x"

store = Store("s", FileConnector(sys.argv[1], clear=False))
stack = InProcess(ThreadPoolEngine(max_workers=1))
context = stack.executor(ProxyExecutor, store=store, threshold=1000)
ex = context.__enter__()
futures = [ex.submit(slow, b"x" * 5000) for _ in range(3)]
while not all(future.task_id for future in futures):
    pass
print(len(list(store.keys())) >= 1, flush=True)
"""


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path.parent,
    )


def objects(path: Path) -> int:
    with FileConnector(str(path), clear=False) as connector:
        return connector.usage().objects


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("", 0),  # nobody shuts anything down
        ("ex.shutdown(wait=False); futures.clear()", 0),
        ("kept = [future.result() for future in futures]; raise SystemExit(3)", 3),
        ("futures[0].add_done_callback(lambda _: ex.shutdown(wait=False)); 1 / 0", 1),
    ],
)
def test_nothing_is_left(script: str, code: int, tmp_path: Path) -> None:
    done = run(script, tmp_path / "objects")
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("True\n")
    assert "proxystore_" not in done.stderr
    assert objects(tmp_path / "objects") == 0


def test_a_forked_child_takes_nothing_along(tmp_path: Path) -> None:
    script = """
        import os
        pid = os.fork()
        if pid == 0:
            stack._remove.detach()  # its directory is the parent's
            sys.exit(0)  # with all that is done at exit
        os.waitpid(pid, 0)
        for future in futures:
            assert len(future.result()) == 5001
        print("fine")
    """
    done = run(script, tmp_path / "objects")
    assert "fine" in done.stdout, done.stderr
    assert objects(tmp_path / "objects") == 0


def test_a_killed_client_leaves_its_tasks_alone(tmp_path: Path) -> None:
    path = tmp_path / "objects"
    command = [sys.executable, "-c", HEAD + "sys.stdin.read()", str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "True\n"
        os.kill(client.pid, signal.SIGKILL)
    assert client.returncode == -signal.SIGKILL
    assert objects(path) >= 1  # for the time to live of the store, or its owner
    FileConnector(str(path)).close()  # whoever owns it next clears it
    assert objects(path) == 0
