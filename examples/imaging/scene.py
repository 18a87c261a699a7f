"""What is photographed: pictures, the fields they are cut into, and how the camera shook.

The pictures ship inside the scikit-image wheel, so nothing is downloaded. A camera with a small
sensor visits each field of a picture and takes a few frames of it; between frames it shakes by a
known, random, sub-pixel amount.
"""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Shifts = npt.NDArray[np.float64]

JITTER = 8.0  # largest shake, in pixels, along each axis
MARGIN = 12  # what a frame shows beyond its field on each side; more than JITTER
OVERLAP = 40  # neighbouring fields share at least so many pixels


@dataclass(frozen=True)
class Size:
    """How much work a run is.

    Attributes:
        pictures: Names of functions of `skimage.data`, each with the corner (rows, columns) up to
            which the picture is used.
        side: Largest side of a field, in pixels.
        frames: Frames taken of each field.
    """

    pictures: dict[str, tuple[int, int]]
    side: int
    frames: int


SIZES = {
    "small": Size({"hubble_deep_field": (420, 600)}, side=240, frames=4),
    "full": Size({"retina": (1411, 1411), "hubble_deep_field": (872, 1000)}, side=384, frames=8),
}


@dataclass(frozen=True)
class Field:
    """A rectangle of a picture that the camera visits.

    Attributes:
        picture: Name of the picture.
        row: Which row of fields this is in.
        column: Which column of fields this is in.
        top: First row of pixels.
        left: First column of pixels.
        height: Rows of pixels.
        width: Columns of pixels.
        frames: Frames taken.
    """

    picture: str
    row: int
    column: int
    top: int
    left: int
    height: int
    width: int
    frames: int

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Rows, columns and colours of a frame, which shows the field and a margin around it."""
        return self.height + 2 * MARGIN, self.width + 2 * MARGIN, 3

    @property
    def seed(self) -> int:
        """A number of this field alone, the same in every process."""
        return zlib.crc32(repr(self).encode())

    def shifts(self) -> Shifts:
        """How far each frame is off the first one: the truth that alignment has to find.

        Returns:
            Array of shape (frames, 2): rows down and columns right, in pixels. The first is 0, 0.
        """
        shifts = np.random.default_rng(self.seed).uniform(-JITTER, JITTER, (self.frames, 2))
        shifts[0] = 0
        return shifts


def _starts(length: int, side: int) -> tuple[int, list[int]]:
    """Cut `length` pixels into evenly spaced pieces; return their size and where each begins."""
    if length <= side:
        return length, [0]
    count = math.ceil((length - OVERLAP) / (side - OVERLAP))
    return side, [round(i * (length - side) / (count - 1)) for i in range(count)]


def plan(size: Size) -> dict[str, list[list[Field]]]:
    """Lay the fields of every picture: for each picture its rows of fields."""
    fields = {}
    for picture, (rows, columns) in size.pictures.items():
        height, tops = _starts(rows, size.side)
        width, lefts = _starts(columns, size.side)
        fields[picture] = [
            [
                Field(picture, row, column, top, left, height, width, size.frames)
                for column, left in enumerate(lefts)
            ]
            for row, top in enumerate(tops)
        ]
    return fields


@functools.lru_cache(maxsize=2)
def load(picture: str) -> Image:
    """Load a whole picture.

    Returns:
        Array of shape (rows, columns, 3), values 0 to 1.
    """
    from skimage import data

    pixels: npt.NDArray[np.uint8] = getattr(data, picture)()
    return pixels.astype(np.float32) / np.float32(255)
