"""A picture of the result: what is shown to the workflow, and what it finds telling."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.faces.outcome import Answers
from examples.faces.stages import Values, load
from examples.faces.windows import KINDS, SIDE

PANEL, GAP, EDGE, SHOWN = 200, 14, 44, 7  # pixels, and pictures in a row
BACK, FRONT, DIM = (16, 18, 24), (236, 238, 242), (148, 155, 168)
LIGHT, DARK = (255, 196, 61), (64, 120, 255)


def draw(path: Path, answers: Answers) -> None:
    """Write a PNG: some of the pictures, and on the mean face where and what tells.

    Args:
        path: File to write.
        answers: What the workflow found out.
    """
    pictures, labels = load()
    width = 2 * EDGE + SHOWN * PANEL + (SHOWN - 1) * GAP
    canvas = Image.new("RGB", (width, 2 * EDGE + 3 * (PANEL + 52) + 60), BACK)
    pen = ImageDraw.Draw(canvas)
    pen.text((EDGE, EDGE - 8), "What tells a face?", FRONT, ImageFont.load_default(34))
    mean = pictures[labels == 1].mean(axis=0)
    best = answers.best.to_dict("records")
    strongest = [_window(mean, row) for row in best]
    titles = [f"{row['kind']}, r {row['sign'] * row['strength']:+.2f}" for row in best]
    glance = _scaled(answers.glance)
    lines = [
        ([_panel(face) for face in pictures[labels == 1][:SHOWN]], ["faces"]),
        ([_panel(other) for other in pictures[labels == 0][:SHOWN]], ["other pictures"]),
        ([_panel(mean), _panel(glance), *strongest], ["mean face", "where it tells", *titles]),
    ]
    for number, (panels, texts) in enumerate(lines):
        top = EDGE + 60 + number * (PANEL + 52)
        for place, panel in enumerate(panels):
            canvas.paste(panel, (EDGE + place * (PANEL + GAP), top))
        for place, text in enumerate(texts):
            at = EDGE + place * (PANEL + GAP), top + PANEL + 8
            pen.text(at, text, DIM, ImageFont.load_default(18))
    canvas.save(path)


def _scaled(values: Values) -> Values:
    seen = values[values > 0]
    return np.asarray(np.clip((values - seen.min()) / (seen.max() - seen.min()), 0, 1))


def _panel(picture: Values) -> Image.Image:
    pixels = Image.fromarray((255 * picture).astype(np.uint8))
    return pixels.resize((PANEL, PANEL), Image.Resampling.NEAREST).convert("RGB")


def _window(mean: Values, row: dict[Hashable, Any]) -> Image.Image:
    """Draw the light and the dark rectangles of a feature on the mean face."""
    panel = _panel(mean)
    colours = Image.new("RGB", panel.size)
    mask = Image.new("L", panel.size)
    scale = PANEL / SIDE
    height, width = row["height"], row["width"]
    for i, j in np.ndindex(*KINDS[row["kind"]]):
        top, left = row["top"] + i * height, row["left"] + j * width
        corners = left, top, left + width, top + height
        place = [round(scale * corner) for corner in corners]
        ImageDraw.Draw(colours).rectangle(place, DARK if (i + j) % 2 else LIGHT)
        ImageDraw.Draw(mask).rectangle(place, 120)
    panel.paste(colours, mask=mask)
    return panel
