"""Whole runs: nothing is left, what the user holds can still be read, checkpoints hold values."""

from __future__ import annotations

import gc
import multiprocessing.resource_tracker
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsl import python_app
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor
from parsl.monitoring import MonitoringHub
from proxystore_parsl import ProxyHighThroughputExecutor, ProxyThreadPoolExecutor, proxied

from proxystore_core.store import Store

N = 50_000


@python_app(executors=["htex"])
def make(n: int = N) -> Any:
    return np.arange(n, dtype=float)


@python_app(executors=["htex"], cache=True)
def make_marked(n: int, marker: str) -> Any:
    with open(marker, "a") as file:
        file.write("made\n")
    return np.arange(n, dtype=float)


@python_app(executors=["htex"], cache=True)
def total_marked(items: Any, marker: str) -> float:
    with open(marker, "a") as file:
        file.write(f"{type(items).__name__}\n")
    return float(sum(items))


@python_app(executors=["htex"])
def double(array: Any) -> Any:
    return array * 2


@python_app(executors=["htex"])
def wait_for_file(array: Any, path: str) -> float:
    import time

    while not Path(path).exists():
        time.sleep(0.01)
    return float(array.sum())


def test_results_can_be_read_after_the_run(parsl_kit: Any) -> None:  # no_leaks checks the rest
    with parsl_kit.load(parsl_kit.htex(workers=1)):
        future = make()
        nested = double(make())
        nested.result()
        future.result()
    assert future.result()[3] == 3
    assert nested.result().sum() == 2 * np.arange(N).sum()


def test_a_run_that_ends_early_leaves_nothing(parsl_kit: Any, tmp_path: Path) -> None:
    with parsl_kit.load(parsl_kit.htex(workers=1)):
        futures = [wait_for_file(np.ones(N), str(tmp_path / "never")) for _ in range(3)]
        assert parsl_kit.wait_until(lambda: futures[-1].task_status() == "launched")
    assert not futures[0].done()


def test_a_users_store_is_emptied_and_stays_open(parsl_kit: Any) -> None:
    with Store("kept-open") as store:
        mine = store.put(b"mine")
        with parsl_kit.load(parsl_kit.htex(workers=1, store=store)):
            result = make().result()
            assert store.usage().objects == 2
        assert store.usage().objects == 1
        assert store.get(mine) == b"mine"
        assert result[2] == 2


def test_an_executor_by_itself(parsl_kit: Any, tmp_path: Path) -> None:
    executor = proxied(HighThroughputExecutor(**parsl_kit.settings(workers=1)), threshold=1000)
    assert isinstance(executor, ProxyHighThroughputExecutor)
    executor.run_dir = str(tmp_path)
    executor.provider.script_dir = str(tmp_path)
    with executor:
        executor.start()
        executor.scale_out_facade(1)
        future = executor.submit(np.sum, {}, np.ones(N))
        assert future.parsl_executor_task_id == 1
        assert future.result() == N
        executor.scale_in_facade(1)
    executor.shutdown()


@pytest.mark.parametrize("mode", ["task_exit", "dfk_exit", "manual"])
def test_a_checkpoint_holds_values(mode: Any, parsl_kit: Any, tmp_path: Path) -> None:
    marker = tmp_path / "calls"
    run_dir = str(tmp_path / "runs")
    memoizer = BasicMemoizer(checkpoint_mode=mode)
    with parsl_kit.load(parsl_kit.htex(workers=1), memoizer=memoizer, run_dir=run_dir):
        assert make_marked(N, str(marker)).result()[7] == 7
        if mode == "manual":
            memoizer.checkpoint()
    gc.collect()  # no_leaks tells whether the store is gone
    again = BasicMemoizer(checkpoint_mode=mode)
    threads = ProxyThreadPoolExecutor(label="htex")  # starts sooner; the memo does not care
    with parsl_kit.load(threads, memoizer=again, run_dir=run_dir):
        result = make_marked(N, str(marker)).result()
        assert type(result) is np.ndarray
        assert np.array_equal(result, np.arange(N))
        assert total_marked(list(result[:3]), str(marker)).result() == 3
    assert marker.read_text() == "made\nlist\n"


@pytest.fixture(scope="module")
def resource_tracker() -> None:
    """Start the process that multiprocessing starts once, and keeps."""
    multiprocessing.resource_tracker.ensure_running()


@pytest.mark.usefixtures("resource_tracker")
def test_monitoring(parsl_kit: Any, tmp_path: Path) -> None:
    database = tmp_path / "monitoring.db"
    hub = MonitoringHub(resource_monitoring_interval=0.1, logging_endpoint=f"sqlite:///{database}")
    with parsl_kit.load(parsl_kit.htex(workers=1), monitoring=hub, strategy_period=0.1):
        source = make()
        assert double(source).result()[3] == 6
        assert double(inputs_of(inputs=[source, make()])).result()[1] == 4
    with sqlite3.connect(database) as connection:
        tasks = connection.execute(
            "SELECT task_func_name, task_depends, task_inputs, task_time_returned FROM task"
        ).fetchall()
        states = connection.execute("SELECT task_status_name FROM status").fetchall()
        resources = connection.execute("SELECT count(*) FROM resource").fetchone()
    connection.close()
    assert sorted(task[0] for task in tasks) == ["double", "double", "inputs_of", "make", "make"]
    assert all(task[3] for task in tasks)
    assert sum(state[0] == "exec_done" for state in states) == 5
    assert [task[1] for task in tasks if task[0] == "inputs_of"] == ["0,2"]
    assert resources[0] > 0


@python_app(executors=["htex"])
def inputs_of(inputs: Any = ()) -> Any:
    return inputs[0] + inputs[1]


def test_blocks_come_and_go(parsl_kit: Any) -> None:
    provider = {"init_blocks": 0, "min_blocks": 0, "max_blocks": 2}
    htex = parsl_kit.htex(workers=1, provider=provider)
    with parsl_kit.load(htex, strategy="htex_auto_scale", max_idletime=0.5) as kernel:
        assert len(htex.connected_managers()) == 0
        results = [double(make()) for _ in range(6)]
        assert [float(result.result()[1]) for result in results] == [2.0] * 6
        assert kernel.executors["htex"].outstanding() == 0
        assert parsl_kit.wait_until(lambda: not htex.connected_managers(), 30)
        assert results[0].result()[2] == 4
        assert double(results[1]).result()[1] == 4
