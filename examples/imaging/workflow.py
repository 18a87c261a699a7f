"""The workflow as a Parsl user writes it: nothing in this file depends on the executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from parsl import python_app

from examples.imaging import stages
from examples.imaging.scene import Field

acquire = python_app(stages.acquire)
denoise = python_app(stages.denoise)
register = python_app(stages.register)
align = python_app(stages.align)
fuse = python_app(stages.fuse)
strip = python_app(stages.strip)
mosaic = python_app(stages.mosaic)

STAGES = ("acquire", "denoise", "register", "align", "fuse", "strip", "mosaic")


@dataclass(frozen=True)
class Submitted:
    """The futures that the caller wants to look at; Parsl passes all others from task to task.

    Attributes:
        shifts: For each field, the shifts that `register` found.
        mosaics: For each picture, the stitched picture.
    """

    shifts: dict[Field, Future[Any]]
    mosaics: dict[str, Future[Any]]


def submit(
    fields: dict[str, list[list[Field]]], watch: Callable[[str, Future[Any]], None]
) -> Submitted:
    """Submit the whole workflow; return at once.

    Args:
        fields: For each picture its rows of fields.
        watch: Called with the stage's name and the future of every task.
    """

    def task(stage: str, future: Future[Any]) -> Future[Any]:
        watch(stage, future)
        return future

    submitted = Submitted({}, {})
    for picture, rows in fields.items():
        strips = []
        for row in rows:
            images = []
            for field in row:
                frames = task("acquire", acquire(field))
                clean = task("denoise", denoise(frames))
                shifts = task("register", register(clean))
                aligned = task("align", align(clean, shifts))
                images.append(task("fuse", fuse(aligned)))
                submitted.shifts[field] = shifts
            strips.append(task("strip", strip(row, inputs=images)))
        whole = mosaic([row[0] for row in rows], inputs=strips)
        submitted.mosaics[picture] = task("mosaic", whole)
    return submitted


def count(fields: dict[str, list[list[Field]]]) -> dict[str, int]:
    """Count the tasks of each stage."""
    rows = sum(len(picture) for picture in fields.values())
    places = sum(len(row) for picture in fields.values() for row in picture)
    counts = dict.fromkeys(STAGES, places)
    return counts | {"strip": rows, "mosaic": len(fields)}
