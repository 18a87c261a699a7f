"""Executors that we have never heard of, and stores other than shared memory."""

from __future__ import annotations

import multiprocessing.resource_tracker
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import parsl
import pytest
from parsl import python_app
from parsl.data_provider.files import File
from parsl.executors.base import ParslExecutor
from parsl.executors.execute_task import execute_task
from parsl.serialize import pack_apply_message
from parsl.utils import RepresentationMixin
from proxystore_parsl import proxied

from proxystore_core.autoproxy import Policy
from proxystore_core.connectors.file import FileConnector
from proxystore_core.proxy import is_proxy
from proxystore_core.store import Store

N = 50_000


class PoolExecutor(ParslExecutor, RepresentationMixin):
    """Somebody's executor; like Work Queue it looks for files among the arguments."""

    def __init__(self, label: str = "pool", workers: int = 1) -> None:
        super().__init__()
        self.label = label
        self.workers = workers
        self.files: list[File] = []

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(self.workers, mp_context=context)

    def submit(
        self, func: Any, resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        self.files = [item for item in kwargs.get("inputs", []) if isinstance(item, File)]
        self.files += [item for item in args if isinstance(item, File)]
        self.files += [item for item in kwargs.get("outputs", []) if isinstance(item, File)]
        if kwargs.get("stdout") is not None:
            assert isinstance(kwargs["stdout"], str)
        return self.pool.submit(execute_task, pack_apply_message(func, args, kwargs))

    def shutdown(self) -> None:
        self.pool.shutdown()
        super().shutdown()


@pytest.fixture(scope="module", autouse=True)
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    """Watch the module: its pool starts processes when it needs them."""
    multiprocessing.resource_tracker.ensure_running()  # a process that stays anyway
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store[Any]]:
    path = tmp_path_factory.mktemp("store")
    with Store("parsl-files", FileConnector(str(path))) as store:
        yield store


@pytest.fixture(scope="module")
def kernel(parsl_kit: Any, files: Store[Any]) -> Iterator[parsl.DataFlowKernel]:
    byte = proxied(PoolExecutor("byte"), threshold=1)
    special = proxied(
        PoolExecutor("special"),
        store=files,
        policy=Policy(threshold="10 kB", resolve="lazy", writable=True),
    )
    with parsl_kit.load(byte, special) as kernel:
        yield kernel


def _types(*args: Any, inputs: Any = (), stdout: Any = None, outputs: Any = ()) -> list[str]:
    return [type(value).__name__ for value in (*args, *inputs, inputs, stdout, *outputs)]


def _double(array: Any) -> Any:
    return array * 2


def _set_first(array: Any) -> Any:
    array[0] = 7.0
    return float(array[0]), type(array).__name__


def test_it_is_the_executor_that_it_was() -> None:
    executor = proxied(PoolExecutor("mine", workers=3), threshold=5)
    assert isinstance(executor, PoolExecutor)
    assert repr(executor).startswith("ProxyPoolExecutor(")
    assert "label='mine'" in repr(executor)


def test_files_stay_where_the_executor_looks(kernel: Any, tmp_path: Path) -> None:
    def file(name: str) -> File:
        return File(str(tmp_path / name))

    app = python_app(_types, executors=["byte"])
    found = app(
        file("a"), "text", inputs=[file("b"), "x" * 100, [1, 2], np.ones(3)],
        stdout=str(tmp_path / "out"), outputs=[file("c")],
    ).result()  # fmt: skip
    assert found == ["File", "str", "File", "str", "list", "ndarray", "list", "str", "File"]
    names = sorted(Path(item.filepath).name for item in kernel.executors["byte"].files)
    assert names == ["a", "b", "c"]


def test_everything_over_one_byte(kernel: Any) -> None:
    double = python_app(_double, executors=["byte"])
    assert double(double("ab")).result() == "abababab"
    assert double([1]).result() == [1, 1]
    assert double(2).result() == 4
    assert np.array_equal(double(double(np.ones(3))).result(), np.full(3, 4))


def test_a_store_of_files_with_lazy_writable_arguments(
    kernel: Any, files: Store[Any], parsl_kit: Any
) -> None:
    double = python_app(_double, executors=["special"])
    change = python_app(_set_first, executors=["special"])
    array = np.ones(N)
    assert change(array).result() == (7.0, "Proxy")
    result = double(array).result()
    assert is_proxy(result)
    assert change(result).result() == (7.0, "Proxy")
    result[1] = 5.0
    assert (result[0], result[1], array[0]) == (2.0, 5.0, 1.0)
    assert files.usage().objects == 1
    del result
    assert parsl_kit.wait_until(lambda: files.usage().objects == 0)


def test_results_go_between_stores(kernel: Any, files: Store[Any], parsl_kit: Any) -> None:
    there = python_app(_double, executors=["special"])
    here = python_app(_double, executors=["byte"])
    assert there(here(there(here(np.ones(N))))).result()[3] == 16
    assert parsl_kit.wait_until(lambda: files.usage().objects == 0)
