r"""The stages of the workflow: plain functions on NumPy arrays that know nothing of Parsl.

    acquire -> denoise -> register -> align -> fuse    for every field
                     \_____________/
    strip    for every row of fields, mosaic    for every picture

Shapes: `n` frames of `h` rows and `w` columns, 3 colours. A frame shows its field and `MARGIN`
pixels around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # it has no annotations
from skimage.filters import window
from skimage.registration import phase_cross_correlation

from examples.imaging.scene import MARGIN, Field, Image, Shifts, load

WHITE = 4095  # of a 12-bit camera
ELECTRONS = 200.0  # that a white pixel collects: few, so the frames are noisy
SPECKS = 0.001  # part of the values that a cosmic ray saturates

Frames = npt.NDArray[np.uint16]


def acquire(field: Field) -> Frames:
    """Take the frames of a field: shaken, noisy, specked.

    Returns:
        Array of shape (n, h, w, 3), 12-bit values.
    """
    generator = np.random.default_rng(field.seed + 1)
    around = 2 * MARGIN
    picture = np.pad(load(field.picture), [(around, around), (around, around), (0, 0)], "reflect")
    below, right = field.top + field.height + 2 * around, field.left + field.width + 2 * around
    patch = picture[field.top : below, field.left : right]
    frames = np.empty((field.frames, *field.frame_shape), np.uint16)
    for frame, shift in zip(frames, field.shifts(), strict=True):
        light = ELECTRONS * _shifted(patch, shift)
        light += np.sqrt(light) * generator.standard_normal(light.shape, np.float32)
        light.flat[generator.integers(light.size, size=int(SPECKS * light.size))] = ELECTRONS
        frame[...] = np.clip(light * (WHITE / ELECTRONS), 0, WHITE)
    return frames


def _shifted(patch: Image, shift: Shifts) -> Image:
    """Move the content of a patch by a sub-pixel shift and cut `MARGIN` off each side."""
    down, right = (int(s) for s in np.floor(-shift))
    y, x = (np.float32(f) for f in -shift - np.floor(-shift))
    height, width = patch.shape[0] - 2 * MARGIN, patch.shape[1] - 2 * MARGIN

    def cut(dy: int, dx: int) -> Image:
        top, left = MARGIN + down + dy, MARGIN + right + dx
        return patch[top : top + height, left : left + width]

    upper = (1 - x) * cut(0, 0) + x * cut(0, 1)
    lower = (1 - x) * cut(1, 0) + x * cut(1, 1)
    return np.asarray((1 - y) * upper + y * lower, np.float32)


def denoise(frames: Frames) -> Image:
    """Soften the noise of every frame by a small Gaussian.

    Returns:
        Array of shape (n, h, w, 3), values 0 to 1.
    """
    light = frames.astype(np.float32) / np.float32(WHITE)
    return np.asarray(ndimage.gaussian_filter(light, sigma=(0, 0.7, 0.7, 0)), np.float32)


def register(frames: Image) -> Shifts:
    """Find how far each frame is off the first one, by cross-correlation of their spectra.

    Returns:
        Array of shape (n, 2): rows down and columns right, in pixels.
    """
    grey = frames.mean(axis=3)
    # Only detail tells a shift: noise is finer, and shading, which stays in place, is coarser.
    detail = ndimage.gaussian_filter(grey, (0, 1, 1)) - ndimage.gaussian_filter(grey, (0, 8, 8))
    taper = window(("tukey", 0.15), grey.shape[1:])  # type: ignore[no-untyped-call]  # as above
    detail *= taper.astype(np.float32)
    shifts = np.zeros((len(frames), 2))
    for frame, shift in zip(detail, shifts, strict=True):
        shift[:], *_ = phase_cross_correlation(  # type: ignore[no-untyped-call]  # as above
            frame, detail[0], upsample_factor=20, normalization=None
        )
    return shifts


def align(frames: Image, shifts: Shifts) -> Image:
    """Move each frame back onto the first one, by cubic splines.

    Returns:
        Array of shape (n, h, w, 3).
    """
    aligned = np.empty_like(frames)
    for frame, shift, out in zip(frames, shifts, aligned, strict=True):
        for colour in range(3):
            ndimage.shift(frame[..., colour], -shift, out[..., colour], order=3, mode="nearest")
    return aligned


def fuse(frames: Image) -> Image:
    """Make one image of aligned frames, their median, and cut the margin off.

    Returns:
        Array of shape (h - 2 MARGIN, w - 2 MARGIN, 3): the field and nothing else.
    """
    return np.median(frames[:, MARGIN:-MARGIN, MARGIN:-MARGIN], axis=0)


def strip(fields: Sequence[Field], inputs: Sequence[Image]) -> Image:
    """Stitch the images of one row of fields, side by side.

    Returns:
        Array of shape (height of a field, width of the picture, 3).
    """
    return _blend(inputs, [field.left for field in fields], axis=1)


def mosaic(rows: Sequence[Field], inputs: Sequence[Image]) -> Image:
    """Stitch the strips of a picture, one below the other.

    Args:
        rows: One field of each row.
        inputs: The strips.

    Returns:
        Array of shape (rows of the picture, columns of the picture, 3), values 0 to 1.
    """
    return np.clip(_blend(inputs, [field.top for field in rows], axis=0), 0, 1)


def _blend(images: Sequence[Image], starts: Sequence[int], axis: int) -> Image:
    """Lay images along an axis; where two overlap, fade one into the other."""
    length = images[0].shape[axis]
    shape, weights_shape = list(images[0].shape), [1, 1, 1]
    shape[axis] = weights_shape[axis] = starts[-1] + length
    total, weights = np.zeros(shape, np.float32), np.zeros(weights_shape, np.float32)
    ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
    # The middle of the overlap decides; a ramp as long as the field would mix in too much blur.
    fade = np.minimum(ramp, 24).reshape([-1 if i == axis else 1 for i in range(3)])
    for image, start in zip(images, starts, strict=True):
        place = tuple(slice(start, start + length) if i == axis else slice(None) for i in range(3))
        total[place] += image * fade
        weights[place] += fade
    return total / weights
