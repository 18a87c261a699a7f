"""What a feature is: pixels in the light half of a window minus those in its dark half.

These are the features of Viola and Jones, and of `skimage.feature.haar_like_feature`. A window is
cut into 2, 3 or 4 equal rectangles. There are 190,736 of them in a picture of 25 x 25 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse  # type: ignore[import-untyped]  # it has no annotations

SIDE = 25  # of a picture, in pixels
KINDS = {"type-2-x": (1, 2), "type-2-y": (2, 1), "type-3-x": (1, 3), "type-3-y": (3, 1),
         "type-4": (2, 2)}  # fmt: skip
# Name in scikit-image, and how many rectangles a window has down and across.

Pictures = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """How much work a run is.

    Attributes:
        step: Use windows whose place and size are multiples of so many pixels.
        tasks: Tasks of each of the resampling stages.
        draws: Permutations, or samples, that each of them draws.
    """

    step: int
    tasks: int
    draws: int


SIZES = {"small": Size(step=2, tasks=6, draws=50), "full": Size(step=1, tasks=12, draws=100)}


def lay(step: int) -> pd.DataFrame:
    """Lay all windows.

    Args:
        step: Use windows whose place and size are multiples of so many pixels.

    Returns:
        A row a window: `kind`, `top`, `left`, `height` and `width` of one of its rectangles, and
        `y` and `x`, its middle; all in pixels.
    """
    tables = []
    places = np.arange(0, SIDE, step)
    for kind, (down, across) in KINDS.items():
        heights, widths = (np.arange(step, SIDE // n + 1, step) for n in (down, across))
        grid = np.meshgrid(places, places, heights, widths, indexing="ij")
        top, left, height, width = (axis.ravel() for axis in grid)
        inside = (top + down * height <= SIDE) & (left + across * width <= SIDE)
        columns = {"top": top, "left": left, "height": height, "width": width}
        columns |= {"y": top + down * height // 2, "x": left + across * width // 2}
        table = pd.DataFrame({name: values[inside] for name, values in columns.items()})
        tables.append(table.assign(kind=kind))
    return pd.concat(tables, ignore_index=True)


def weigh(table: pd.DataFrame) -> Any:
    """Say how each feature is summed up from an integral image.

    Args:
        table: Windows, as `lay` makes them.

    Returns:
        Sparse matrix of shape (windows, (SIDE + 1) ** 2).
    """
    rows, columns, values = [], [], []
    for kind, (down, across) in KINDS.items():
        windows = table[table.kind == kind]
        index, top, left, height, width = (
            np.asarray(column)
            for column in (windows.index, windows.top, windows.left, windows.height, windows.width)
        )
        # The sum over a rectangle is that of two corners, less the two others.
        for i, j, lower, right in np.ndindex(down, across, 2, 2):
            sign = (-1) ** (i + j) * (-1) ** (lower + right)
            y, x = top + (i + lower) * height, left + (j + right) * width
            rows.append(index)
            columns.append(y * (SIDE + 1) + x)
            values.append(np.full(len(index), sign, np.float32))
    shape = len(table), (SIDE + 1) ** 2
    where = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array((np.concatenate(values), where), shape)
