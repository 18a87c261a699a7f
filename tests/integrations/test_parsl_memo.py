"""Memoization and checkpoints."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsl import python_app
from parsl.dataflow.memoization import id_for_memo

from proxystore_core.autoproxy.results import auto_factory
from proxystore_core.proxy import extract, is_proxy, is_resolved
from proxystore_core.store import Store

N = 50_000


def _make(n: int, marker: str) -> Any:
    import numpy as np

    with open(marker, "a") as file:
        file.write("made\n")
    return np.arange(n, dtype=float)


def _listed(n: int) -> list[int]:
    return list(range(n))


def _total(array: Any, marker: str) -> float:
    with open(marker, "a") as file:
        file.write(f"{type(array).__name__}\n")
    return float(sum(array))


make = python_app(_make, executors=["htex"], cache=True)
listed = python_app(_listed, executors=["htex"])
total = python_app(_total, executors=["htex"], cache=True)


def calls(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module", autouse=True)
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    """Watch the module: its executors start threads when they need them."""
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def store() -> Any:
    with Store("parsl-memo") as store:
        yield store


@pytest.fixture(scope="module")
def kernel(parsl_kit: Any, store: Store[Any]) -> Any:
    with parsl_kit.load(parsl_kit.htex(store=store)) as kernel:
        yield kernel


def test_a_large_result_is_remembered(kernel: Any, tmp_path: Path) -> None:
    marker = tmp_path / "calls"
    first = make(N, str(marker)).result()
    gc.collect()
    again = make(N, str(marker)).result()
    assert calls(marker) == 1
    assert is_proxy(again)
    assert np.array_equal(first, again)


def test_an_evicted_result_is_computed_again(
    kernel: Any, store: Store[Any], tmp_path: Path
) -> None:
    marker = tmp_path / "calls"
    first = make(N, str(marker)).result()
    factory = auto_factory(first)
    assert factory is not None
    store.evict(factory.ref.key)
    again = make(N, str(marker)).result()
    assert calls(marker) == 2
    assert again[5] == 5
    assert make(N, str(marker)).result()[6] == 6
    assert calls(marker) == 2


def test_results_as_arguments_of_remembered_tasks(kernel: Any, tmp_path: Path) -> None:
    marker = tmp_path / "calls"
    one, other = make(N, str(tmp_path / "a")), make(N, str(tmp_path / "b"))
    assert total(one, str(marker)).result() == total(other, str(marker)).result()
    assert calls(marker) == 1, "equal content is an equal argument"
    assert not is_resolved(one.result())
    total(make(N + 1, str(tmp_path / "a")), str(marker)).result()
    assert calls(marker) == 2
    assert marker.read_text() == "ndarray\nndarray\n"


def test_the_threshold_makes_no_difference(kernel: Any, tmp_path: Path) -> None:
    marker = tmp_path / "calls"
    result = listed(N).result()
    assert is_proxy(result)
    assert total(result, str(marker)).result() == sum(range(N))
    assert total(list(range(N)), str(marker)).result() == sum(range(N))
    assert calls(marker) == 1


def test_handlers_that_a_user_registers(kernel: Any, parsl_kit: Any) -> None:
    result = listed(N).result()
    assert id_for_memo(result) == id_for_memo(extract(result))
    assert id_for_memo([result]) == id_for_memo([extract(result)])
    with pytest.raises(ValueError, match="unknown type"):
        id_for_memo(np.ones(3))
    with pytest.raises(ValueError, match="unknown type"):
        id_for_memo(object())
