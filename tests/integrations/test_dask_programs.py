"""Programs of the libraries on top of Dask give what they give without us."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import proxystore_dask
import pytest
from distributed import Client, LocalCluster
from proxystore_dask.client import _enabled

from tests.conftest import wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Leave what is watched to `cluster`, and the objects to `client`."""


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as made:
        yield made


def values() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(600, 500))


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "group": rng.integers(0, 7, 60_000),
            "value": rng.normal(size=60_000),
            "name": rng.choice(["a", "b", "c"], 60_000),
        }
    )


def array_reductions() -> Any:
    x = da.from_array(values(), chunks=(150, 500))
    return dask.compute(x.sum(axis=0), (x - x.mean(axis=1, keepdims=True)).std(), x[::7, 3])


def array_products() -> Any:
    x = da.from_array(values(), chunks=(200, 250))
    return (x.T @ x).rechunk((100, 500)).compute()


def array_of_one_block() -> Any:
    return da.from_array(values(), chunks=-1).map_blocks(lambda block: block * 2).compute()


def array_overlap() -> Any:
    x = da.from_array(values(), chunks=(300, 500)).persist()
    return da.overlap.overlap(x, depth=1, boundary="none").sum().compute()


def linear_algebra() -> Any:
    _, s, _ = da.linalg.svd(da.from_array(values(), chunks=(200, 500)))
    return s.compute()


def frame_groups() -> Any:
    df = dd.from_pandas(frame(), npartitions=4)
    return df.groupby("group").value.agg(["mean", "count"]).compute().sort_index()


def frame_merge() -> Any:
    left = dd.from_pandas(frame(), npartitions=3)
    right = dd.from_pandas(pd.DataFrame({"group": range(7), "weight": np.arange(7.0)}), 1)
    merged = left.merge(right, on="group")
    return merged.assign(x=merged.value * merged.weight).x.sum().compute()


def frame_shuffle() -> Any:
    df = dd.from_pandas(frame(), npartitions=4).shuffle("group", npartitions=3)
    return df.map_partitions(lambda part: part.sort_values("value")).value.sum().compute()


def frame_whole() -> Any:
    return dd.from_pandas(frame(), npartitions=2).persist().compute()


def bag_words() -> Any:
    words = [f"word {i % 50}" for i in range(20_000)]
    return sorted(db.from_sequence(words, npartitions=4).frequencies().compute())


def bag_folds() -> Any:
    numbers = db.from_sequence(list(range(50_000)), npartitions=3)
    return numbers.map(lambda x: x * x).filter(lambda x: x % 3 == 0).sum().compute()


def delayed_tree() -> Any:
    level = [dask.delayed(lambda x, i: x + i)(values(), i) for i in range(8)]
    while len(level) > 1:
        level = [dask.delayed(np.add)(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0].compute()


def joblib_tasks() -> Any:
    x = values()
    with joblib.parallel_config(backend="dask"):
        return joblib.Parallel()(joblib.delayed(np.dot)(x, x[i]) for i in range(6))


def machine_learning() -> Any:
    linear_model = pytest.importorskip("sklearn.linear_model")
    selection = pytest.importorskip("sklearn.model_selection")
    x = values()
    search = selection.GridSearchCV(linear_model.Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3)
    with joblib.parallel_config(backend="dask"):
        search.fit(x, x[:, 0] * 2 + x[:, 1])
    return search.cv_results_["mean_test_score"]


PROGRAMS = [
    array_reductions, array_products, array_of_one_block, array_overlap, linear_algebra,
    frame_groups, frame_merge, frame_shuffle, frame_whole, bag_words, bag_folds, delayed_tree,
    joblib_tasks, machine_learning,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_program(client: Client, program: Callable[[], Any]) -> None:
    proxystore_dask.disable(client)
    expected = program()
    proxystore_dask.enable(client, threshold=20_000)
    found = program()
    if isinstance(expected, (pd.DataFrame, pd.Series)):
        assert expected.equals(found)
    elif isinstance(expected, (np.ndarray, float)):
        assert np.allclose(expected, found, rtol=1e-12, atol=0)
    elif isinstance(expected, (tuple, list)) and isinstance(expected[0], np.ndarray):
        assert all(np.allclose(a, b) for a, b in zip(expected, found, strict=True))
    else:
        assert expected == found
    gc.collect()
    store = _enabled[client].memory.store
    assert wait_until(lambda: not store.usage().objects), list(store.keys())
