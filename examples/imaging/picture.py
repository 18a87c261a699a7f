"""A picture of the result: what the camera saw, what the workflow made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from examples.imaging import stages
from examples.imaging.scene import MARGIN, Field, Image, load

SIDE, GAP, EDGE = 560, 14, 44  # of a panel, between panels, around all, in pixels
ZOOM = 96  # side of what is shown enlarged, in pixels of the picture
SPOTS = {"retina": (300, 640), "hubble_deep_field": (60, 260)}  # its corner: row, column
BACK, FRONT, DIM, MARK = (16, 18, 24), (236, 238, 242), (148, 155, 168), (255, 196, 61)
LINE = 26


def draw(path: Path, fields: dict[str, list[list[Field]]], mosaics: dict[str, Image]) -> None:
    """Write a PNG: for each picture one raw frame a field, the mosaic, and a detail of both.

    Args:
        path: File to write.
        fields: The fields of each picture.
        mosaics: The result for each picture.
    """
    small = (SIDE - GAP) // 2
    width = 2 * EDGE + 2 * SIDE + 2 * GAP + small
    head, row_height = EDGE + 92, SIDE + LINE + 38
    canvas = Pillow.new("RGB", (width, head + row_height * len(mosaics) + EDGE - 24), BACK)
    pen = ImageDraw.Draw(canvas)
    pen.text((EDGE, EDGE - 8), "Shaken, noisy frames, made one picture", FRONT, _font(34))
    count = sum(len(row) for rows in fields.values() for row in rows)
    frames = next(iter(fields.values()))[0][0].frames
    pen.text(
        (EDGE, EDGE + 40),
        f"{count} fields x {frames} frames: denoise, register, align, fuse, stitch, on Parsl",
        DIM,
        _font(20),
    )
    for index, (name, mosaic) in enumerate(mosaics.items()):
        top = head + index * row_height
        before = _raw(fields[name], mosaic.shape)
        spot = SPOTS[name]
        left = EDGE
        for image in (before, mosaic):
            _place(canvas, pen, image, (left, top), spot)
            left += SIDE + GAP
        for number, image in enumerate((before, mosaic)):
            y, x = spot
            detail = _pillow(image[y : y + ZOOM, x : x + ZOOM])
            at = (left, top + number * (small + GAP))
            canvas.paste(detail.resize((small, small), Pillow.Resampling.NEAREST), at)
            pen.rectangle((*at, at[0] + small - 1, at[1] + small - 1), outline=MARK, width=2)
        under = top + SIDE + 10
        original = load(name)[: mosaic.shape[0], : mosaic.shape[1]]
        title = name.replace("_", " ")
        size = f"{mosaic.shape[1]} x {mosaic.shape[0]}"
        raw, made = (f"PSNR {_psnr(i, original):.1f} dB" for i in (before, mosaic))
        pen.text((EDGE, under), f"{title}: one raw frame a field, {raw}", DIM, _font(18))
        text = f"the mosaic, {size}, {made}"
        pen.text((EDGE + SIDE + GAP, under), text, FRONT, _font(18))
        pen.text((left, under), "the marked detail, before and after", DIM, _font(16))
    canvas.save(path)


def _raw(rows: list[list[Field]], shape: tuple[int, ...]) -> Image:
    """Lay one frame of each field, as it was taken, side by side."""
    out = np.zeros(shape, np.float32)
    for field in (field for row in rows for field in row):
        frame = stages.acquire(field)[field.frames // 2] / np.float32(stages.WHITE)
        place = np.s_[field.top : field.top + field.height, field.left : field.left + field.width]
        out[place] = frame[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return out


def _place(
    canvas: Pillow.Image,
    pen: ImageDraw.ImageDraw,
    image: Image,
    at: tuple[int, int],
    spot: tuple[int, int],
) -> None:
    """Paste the square that holds most of the image, and mark the spot that is shown enlarged."""
    side = min(image.shape[:2])
    middle = (at + ZOOM // 2 - side // 2 for at in spot)
    top, left = (min(max(0, m), n - side) for m, n in zip(middle, image.shape[:2], strict=True))
    square = _pillow(image[top : top + side, left : left + side])
    canvas.paste(square.resize((SIDE, SIDE), Pillow.Resampling.LANCZOS), at)
    scale = SIDE / side
    x, y = at[0] + (spot[1] - left) * scale, at[1] + (spot[0] - top) * scale
    pen.rectangle((x, y, x + ZOOM * scale, y + ZOOM * scale), outline=MARK, width=2)


def _pillow(image: Image) -> Pillow.Image:
    return Pillow.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8))


def _psnr(image: Image, original: Image) -> float:
    return float(-10 * np.log10(np.mean((image - original) ** 2)))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
