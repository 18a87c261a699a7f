"""Fixtures that fail a test which leaves something behind."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

BASE = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
ROOT = BASE / f"proxystore-test-{os.getpid()}"
os.environ["PROXYSTORE_SHM_ROOT"] = str(ROOT)  # of this run alone; processes it starts inherit it


def shared_memory() -> set[str]:
    """Return the stores in shared memory of this run; other tests' fixtures may hold some."""
    return {str(path) for path in ROOT.iterdir()} if ROOT.is_dir() else set()


def _descriptors() -> dict[str, str]:
    found = {}
    base = Path("/proc/self/fd")
    if not base.is_dir():
        return found
    for entry in base.iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue
    return found


def _children() -> set[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in path.read_text().split()} if path.exists() else set()


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.daemon}


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> bool:
    """Poll until the condition holds; tell whether it did within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True


@contextmanager
def _watch() -> Iterator[None]:
    shm, fds, children, threads = shared_memory(), _descriptors(), _children(), _threads()
    yield
    problems: list[str] = []

    def check() -> bool:
        problems.clear()
        if left := shared_memory() - shm:
            problems.append(f"shared memory left: {sorted(left)}")
        new = {n: t for n, t in _descriptors().items() if n not in fds}
        if left_fds := {
            n: t for n, t in new.items() if "proxystore" in t or t.startswith("socket:")
        }:
            problems.append(f"descriptors left: {left_fds}")
        if left_children := _children() - children:
            problems.append(f"processes left: {sorted(left_children)}")
        if left_threads := _threads() - threads:
            problems.append(f"threads left: {sorted(t.name for t in left_threads)}")
        return not problems

    def check_again() -> bool:
        gc.collect()  # costly: only where something seems left
        return check()

    if not check() and not wait_until(check_again, timeout=5.0):
        pytest.fail("; ".join(problems))


@pytest.fixture(scope="session")
def watch_leaks() -> Callable[[], AbstractContextManager[None]]:
    """Watch longer than a test: for modules that replace `no_leaks` with one of their own."""
    return _watch


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves shared memory, descriptors, threads or processes behind."""
    with _watch():
        yield


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what was imported stays anyway: the collection after each test need not see it


def pytest_unconfigure() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
