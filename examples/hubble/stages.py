"""What a task does: plain functions on arrays, which know nothing of Globus Compute or proxies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from examples.hubble.scene import WHITE, Exposures

Sky = npt.NDArray[np.float32]
Catalog = npt.NDArray[np.float64]

CLIP = 3.5  # what is further off the median is a cosmic ray, in standard deviations
FAINTEST = 0.12  # brightness of what counts as a source, above the background
SMALLEST = 8  # pixels of a source


def combine(exposures: Exposures) -> Sky:
    """Make one clean tile of its exposures (map).

    Returns:
        Array of shape (2, rows, columns, colours): brightness from 0 to 1, and its uncertainty.
    """
    counts = exposures.astype(np.float32)
    middle = np.median(counts, axis=0)
    spread = 1.4826 * np.median(np.abs(counts - middle), axis=0) + 1
    good = np.abs(counts - middle) <= CLIP * spread
    number = good.sum(axis=0)
    mean = (counts * good).sum(axis=0) / number
    error = np.sqrt(((counts - mean) ** 2 * good).sum(axis=0)) / number
    sky: Sky = np.stack([mean, error]).astype(np.float32) / np.float32(WHITE)
    return sky


def strip(tiles: list[Sky]) -> Sky:
    """Lay the tiles of a row side by side (reduce)."""
    joined: Sky = np.concatenate(tiles, axis=2)
    return joined


def survey(strips: list[Sky]) -> dict[str, Any]:
    """Put the strips together, and list the sources (reduce).

    Returns:
        `sky`, of shape (rows, columns), all colours in one, and `catalog`, a row for each source,
        the brightest first: row, column, pixels, flux.
    """
    from skimage import measure

    label: Any = measure.label  # they have no types
    regionprops: Any = measure.regionprops
    brightness, error = np.concatenate(strips, axis=1).mean(axis=3)
    background = np.median(brightness)
    limit = background + np.maximum(FAINTEST, 5 * error)
    regions = regionprops(label(brightness > limit), brightness - background)
    rows = [
        [*region.centroid, region.area, region.area * region.intensity_mean]
        for region in regions
        if region.area >= SMALLEST
    ]
    catalog = np.array(sorted(rows, key=lambda row: -row[3]), float).reshape(-1, 4)
    return {"sky": brightness.astype(np.float32), "catalog": catalog}
