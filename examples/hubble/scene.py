"""What the telescope saw: the Hubble Deep Field, tile by tile, in many noisy exposures.

The picture ships inside the scikit-image wheel, so nothing is downloaded. The exposures are made
of it: each has noise of its own, and specks where cosmic rays hit the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Exposures = npt.NDArray[np.uint16]
Picture = npt.NDArray[np.uint8]

WHITE = 40_000  # counts of the brightest pixel
NOISE = 1_500  # counts, standard deviation
RAYS = 2e-4  # part of the pixels that a cosmic ray hits in one exposure


@dataclass(frozen=True)
class Size:
    """How much work a run is.

    Attributes:
        grid: Rows and columns of tiles.
        exposures: Exposures of each tile.
        colors: How many of the picture's three colours are used.
        corner: Rows and columns of the picture that are used.
    """

    grid: tuple[int, int]
    exposures: int
    colors: int
    corner: tuple[int, int]

    @property
    def tile(self) -> tuple[int, int, int]:
        """Rows, columns and colours of a tile."""
        return self.corner[0] // self.grid[0], self.corner[1] // self.grid[1], self.colors

    @property
    def nbytes(self) -> int:
        """Bytes of the exposures of a tile."""
        rows, columns, colors = self.tile
        return self.exposures * rows * columns * colors * 2


SIZES = {
    "small": Size((2, 2), 8, 1, (400, 400)),
    "full": Size((4, 4), 16, 1, (872, 1000)),  # the largest that plain Globus Compute takes
    "large": Size((4, 4), 32, 3, (872, 1000)),
}


def picture(size: Size) -> Picture:
    """Load the picture, without the exposures' noise.

    Returns:
        Array of shape (rows, columns, 3).
    """
    from skimage import data

    load: Any = data.hubble_deep_field  # it has no types
    whole: Picture = load()
    return whole[: size.corner[0], : size.corner[1]]


def observe(size: Size) -> Iterator[list[Exposures]]:
    """Expose the tiles, row by row of the grid.

    Yields:
        The tiles of a row; each of shape (exposures, rows, columns, colours).
    """
    truth = picture(size)[:, :, : size.colors].astype(np.float32) * (WHITE / 255)
    height, width, colors = size.tile
    for i in range(size.grid[0]):
        row = []
        for j in range(size.grid[1]):
            tile = truth[i * height : (i + 1) * height, j * width : (j + 1) * width]
            rng = np.random.default_rng((i, j))
            shape = (size.exposures, height, width, colors)
            counts = tile + NOISE * rng.standard_normal(shape, dtype=np.float32)
            counts[rng.random(shape, dtype=np.float32) < RAYS] = WHITE
            row.append(np.clip(counts, 0, WHITE).astype(np.uint16))
        yield row
