"""A picture of the result: the sky, with the sources that were found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.hubble.scene import WHITE, Exposures

EDGE, GAP, HEAD, ZOOM = 40, 16, 84, 220
BACK, FRONT, DIM, MARK = (16, 18, 24), (236, 238, 242), (148, 155, 168), (255, 196, 61)


def draw(path: Path, first: Exposures, answer: dict[str, Any]) -> None:
    """Write a PNG: all of the sky with its sources, and a detail before and after.

    Args:
        path: File to write.
        first: The exposures of the first tile.
        answer: What the workflow made.
    """
    sky, catalog = answer["sky"], answer["catalog"]
    height, width = sky.shape
    low = max(height, 2 * ZOOM + GAP)
    canvas = Image.new("RGB", (width + ZOOM + GAP + 2 * EDGE, low + HEAD + 2 * EDGE), BACK)
    pen = ImageDraw.Draw(canvas)
    pen.text((EDGE, EDGE - 10), "The Hubble Deep Field, put together", FRONT, _font(32))
    text = f"{len(catalog)} sources in {first.shape[0]} exposures a tile, on Globus Compute"
    pen.text((EDGE, EDGE + 34), text, DIM, _font(19))
    top = EDGE + HEAD
    canvas.paste(_pixels(sky), (EDGE, top))
    for row, column, area, _ in catalog:
        radius = max(4.0, 1.3 * float(np.sqrt(area)))
        x, y = EDGE + column, top + row
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=MARK)
    rows, columns = (min(ZOOM // 2, n) for n in first.shape[1:3])
    before = first[0, :rows, :columns].mean(axis=2) / WHITE
    left = EDGE + width + GAP
    for number, detail in enumerate((before, sky[:rows, :columns])):
        place = (left, top + number * (ZOOM + GAP))
        shown = _pixels(detail).resize((ZOOM, ZOOM), Image.Resampling.NEAREST)
        canvas.paste(shown, place)
    pen.text((left, top + 2 * ZOOM + GAP + 8), "a corner: one exposure, all", DIM, _font(15))
    canvas.save(path)


def _pixels(brightness: Any) -> Image.Image:
    grey = (255 * np.sqrt(np.clip(brightness, 0, 1))).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, axis=2))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
