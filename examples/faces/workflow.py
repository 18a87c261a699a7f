"""The workflow as a Dask user writes it: nothing in this file depends on the integration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import joblib  # type: ignore[import-untyped]  # it has no annotations
import numpy as np
import pandas as pd
from distributed import Client
from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]  # as above
from sklearn.feature_selection import SelectKBest  # type: ignore[import-untyped]  # as above
from sklearn.linear_model import RidgeClassifier  # type: ignore[import-untyped]  # as above
from sklearn.model_selection import (  # type: ignore[import-untyped]  # as above
    GridSearchCV,
    StratifiedKFold,
)
from sklearn.pipeline import Pipeline  # type: ignore[import-untyped]  # as above
from sklearn.svm import SVC  # type: ignore[import-untyped]  # as above

from examples.faces import stages
from examples.faces.outcome import Answers
from examples.faces.stages import Labels, Values
from examples.faces.windows import SIDE, Matrix, Pictures, Size, lay, weigh

BLOCK = 25  # pictures that a task measures
PARTS = 8  # of the table of features

Share = Callable[[Matrix], Any]

MODELS: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "ridge": (RidgeClassifier(), {"alpha": [1e4, 1e5, 1e6]}),
    "trees": (
        ExtraTreesClassifier(20, n_jobs=1, random_state=0),  # or each tree becomes a task
        {"min_samples_leaf": [1, 4]},
    ),
    "kernel": (
        Pipeline([("best", SelectKBest()), ("svm", SVC())]),
        {"best__k": [500, 10_000]},
    ),
}


def follow(
    client: Client,
    size: Size,
    stage: Callable[[str], AbstractContextManager[None]],
    share: Share,
) -> Answers:
    """Follow the whole workflow.

    Args:
        client: Where it runs; it must be Dask's default client.
        size: How much work to do.
        stage: Entered for each of the stages.
        share: Given the matrix, returns what tasks get in place of it.
    """
    table, (pictures, labels) = lay(size.step), stages.load()
    with stage("measure"):
        matrix = measure(pictures, weigh(table))
    with stage("permute"):
        shared = share(matrix)
        strongest = permute(client, shared, labels, size)
    with stage("resample"):
        low, high = resample(shared, labels, size)
    with stage("search"):
        scores = {name: search(client, name, matrix, labels, shared) for name in MODELS}
    with stage("rank"):
        strength = stages.correlate(labels, matrix)
        exceeded = np.searchsorted(np.sort(strongest), np.abs(strength))
        p = (1 + len(strongest) - exceeded) / (1 + len(strongest))
        table = table.assign(strength=np.abs(strength), sign=np.sign(strength), low=low, high=high)
        kinds, glance, best = rank(table.assign(p=p))
    return Answers(strength, strongest, np.array([low, high]), scores, kinds, glance, best)


def measure(pictures: Pictures, weights: Any) -> Matrix:
    """Measure all features of all pictures, and standardise them.

    Returns:
        Array of shape (n, f).
    """
    count = weights.shape[0]
    blocks = da.from_array(pictures, chunks=(BLOCK, SIDE, SIDE))
    chunks = (blocks.chunks[0], (count,))
    features = blocks.map_blocks(
        stages.measure, weights, chunks=chunks, drop_axis=2, dtype="f4", meta=np.empty((0, 0), "f4")
    )
    centred = features - features.mean(axis=0)
    matrix: Matrix = (centred / centred.std(axis=0)).compute()
    return matrix


def permute(client: Client, matrix: Any, labels: Labels, size: Size) -> Values:
    """Draw from what the strongest correlation would be by chance, with `Client.map`.

    Returns:
        Array of shape (tasks * draws,).
    """
    futures = client.map(
        stages.permute,
        range(size.tasks),
        [matrix] * size.tasks,
        [labels] * size.tasks,
        [size.draws] * size.tasks,
        pure=False,
    )
    return np.concatenate(client.gather(futures))


def resample(matrix: Any, labels: Labels, size: Size) -> Values:
    """Bound how far faces and others are apart, with `dask.delayed`.

    Returns:
        Array of shape (2, f): lower and upper bounds.
    """
    draw, draws = dask.delayed(stages.resample), size.draws // 5
    differences = [draw(1000 + seed, matrix, labels, draws) for seed in range(size.tasks)]
    bounds: Values = dask.delayed(stages.bound)(differences).compute()
    return bounds


def search(client: Client, name: str, matrix: Matrix, labels: Labels, shared: Any) -> Values:
    """Try a model with different parameters, cross-validated, with joblib.

    Returns:
        Accuracy for each choice of parameters.
    """
    model, grid = MODELS[name]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    tried = GridSearchCV(model, grid, cv=folds, refit=False)
    options = {} if shared is matrix else {"scatter": [matrix]}
    with joblib.parallel_config(backend="dask", **options):
        tried.fit(matrix, labels)
    return np.asarray(tried.cv_results_["mean_test_score"])


def rank(table: pd.DataFrame) -> tuple[pd.DataFrame, Values, pd.DataFrame]:
    """Ask of the table of features which tell a face, with `dask.dataframe`.

    Returns:
        How many of each kind there are and how many of them tell; for each pixel the strongest
        feature around it; the strongest of each kind.
    """
    parts = dd.from_pandas(table, npartitions=PARTS)
    parts = parts.assign(tells=(parts.p < 0.05).astype("int64")).persist()
    kinds = parts.groupby("kind").agg({"tells": ["count", "sum"], "strength": "max"})
    around = parts.groupby(["y", "x"]).strength.max()
    best = parts.map_partitions(stages.pick)
    kinds, around, best = dask.compute(kinds, around, best)
    glance = np.zeros((SIDE, SIDE), np.float32)
    glance[tuple(np.array(around.index.to_list()).T)] = around
    return kinds.sort_index(), glance, stages.pick(best.reset_index(drop=True))
