"""A store that must be empty after each test, pools, and tasks that travel by value."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store


@pytest.fixture(scope="session", autouse=True)
def tracker() -> None:
    """Start the helper process of `spawn` pools before a test can seem to leave it behind."""
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True, scope="module")
def no_leaks(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Watch for leaks module by module: these are many small tests, and `store` watches each."""
    with watch_leaks():
        yield


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    def poll(condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                return False
            pause.wait(0.005)
        return True

    return poll


@pytest.fixture
def count() -> Callable[[Store[Any]], int]:
    return lambda store: len(list(store.keys()))


@pytest.fixture
def store(eventually: Any, count: Any) -> Iterator[Store[Any]]:
    with Store("autoproxy") as made:
        yield made
        if not made.closed:
            assert eventually(lambda: count(made) == 0, 5), f"{count(made)} objects left"


@pytest.fixture
def file_store(tmp_path: Path, eventually: Any, count: Any) -> Iterator[Store[Any]]:
    with Store("autoproxy-file", FileConnector(str(tmp_path / "objects"))) as made:
        yield made
        if not made.closed:
            assert eventually(lambda: count(made) == 0, 5), f"{count(made)} objects left"


@pytest.fixture(params=["thread", "fork", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made: Executor
    if request.param == "thread":
        made = ThreadPoolExecutor(2)
    else:
        made = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(request.param))
    yield made
    made.shutdown()


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as made:
        yield made


@pytest.fixture(scope="session")
def tasks() -> SimpleNamespace:
    """Functions that no module has: they pickle by value, into any process."""

    def seen(x: Any) -> tuple[bool, str]:
        return is_proxy(x), type(x).__name__

    def total(x: Any) -> float:
        return float(x.sum())

    def totals(*xs: Any) -> list[float]:
        return [float(x.sum()) for x in xs]

    def ones(n: int) -> Any:
        return np.ones(n)

    def identity(x: Any) -> Any:
        return x

    def add_one(x: Any) -> Any:
        return x + 1

    def nested(n: int) -> Any:
        return {"small": 1, "big": [np.ones(n), np.zeros(n)], "text": "x" * (8 * n)}

    def fail(x: Any) -> None:
        raise LookupError("no luck", len(x))

    def die(x: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def append(x: list[Any]) -> Any:
        x.append(1)
        return x

    def lock(x: Any) -> Any:
        return threading.Lock()

    def resolved(x: Any) -> tuple[bool, bool]:
        return is_proxy(x), is_proxy(x) and is_resolved(x)

    return SimpleNamespace(**{k: v for k, v in locals().items() if callable(v)})
