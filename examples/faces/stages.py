"""What a task does: functions on NumPy arrays and pandas tables that know nothing of Dask.

Shapes: `n` pictures, half of which show a face, and `f` features of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from examples.faces.windows import SIDE, Matrix, Pictures

Labels = npt.NDArray[np.int64]  # 1 for a face
Values = npt.NDArray[np.float32]


def load() -> tuple[Pictures, Labels]:
    """Load the pictures: a hundred faces and a hundred other things, which ship in scikit-image.

    Returns:
        Array of shape (n, SIDE, SIDE), values 0 to 1, and what each shows.
    """
    from skimage.data import lfw_subset

    pictures: Pictures = lfw_subset().astype(np.float32)  # type: ignore[no-untyped-call]
    return pictures, np.repeat([1, 0], len(pictures) // 2)


def measure(pictures: Pictures, weights: Any) -> Matrix:
    """Measure all features of some pictures.

    Args:
        pictures: Shape (some, SIDE, SIDE).
        weights: How to sum them up, as `weigh` says it.

    Returns:
        Array of shape (some, f).
    """
    integral = np.zeros((len(pictures), SIDE + 1, SIDE + 1))
    integral[:, 1:, 1:] = pictures.cumsum(axis=1, dtype=float).cumsum(axis=2)
    features = weights @ integral.reshape(len(pictures), -1).T
    return np.ascontiguousarray(features.T, np.float32)


def correlate(labels: npt.NDArray[np.integer[Any]], matrix: Matrix) -> Values:
    """Correlate features with labels.

    Args:
        labels: Shape (n,), or (draws, n).
        matrix: Shape (n, f), standardised features.

    Returns:
        Array of shape (f,), or (draws, f), values -1 to 1.
    """
    centred = labels - labels.mean(axis=-1, keepdims=True)
    weights = centred / (centred.std(axis=-1, keepdims=True) * len(matrix))
    return np.asarray(weights.astype(np.float32) @ matrix)


def permute(seed: int, matrix: Matrix, labels: Labels, draws: int) -> Values:
    """Draw from what the strongest correlation would be if the pictures told nothing.

    Returns:
        Array of shape (draws,): largest absolute correlation of any feature with labels that are
        shuffled.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(labels, (draws, 1)), axis=1)
    return np.asarray(np.abs(correlate(shuffled, matrix)).max(axis=1))


def resample(seed: int, matrix: Matrix, labels: Labels, draws: int) -> Values:
    """Draw from how far faces and others are apart: take as many pictures of each at random.

    Returns:
        Array of shape (draws, f): differences of the means, in standard deviations of a feature.
    """
    generator = np.random.default_rng(seed)
    shares = np.zeros((draws, len(labels)), np.float32)
    for label, sign in ((1, 1), (0, -1)):
        members = np.flatnonzero(labels == label)
        even = np.full(len(members), 1 / len(members))
        counts = generator.multinomial(len(members), even, size=draws)
        shares[:, members] = sign * counts / len(members)
    return shares @ matrix


def bound(differences: Sequence[Values]) -> Values:
    """Bound the differences of all samples.

    Returns:
        Array of shape (2, f): the values that 2.5 % of the samples lie below, and above.
    """
    return np.quantile(np.concatenate(differences), (0.025, 0.975), axis=0).astype("f4")


def pick(part: pd.DataFrame) -> pd.DataFrame:
    """Pick the strongest feature of each kind."""
    return part.loc[part.groupby("kind").strength.idxmax()]
