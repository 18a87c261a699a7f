"""What the runs cost, for people and as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from examples.common.report import Row
from examples.imaging.outcome import Outcome

ROWS = (
    Row[Outcome]("tasks", lambda run: run.tasks),
    Row[Outcome]("bytes through Parsl", lambda run: run.parsl_bytes, "B", compared=True),
    Row[Outcome]("bytes through the store", lambda run: run.store_bytes, "B"),
    Row[Outcome]("wall time", lambda run: run.seconds, "s", compared=True),
    Row[Outcome]("processor time, all processes", lambda run: run.cpu_seconds, "s", compared=True),
    Row[Outcome]("peak memory, all processes", lambda run: run.peak_bytes, "B", compared=True),
    Row[Outcome]("objects left", lambda run: run.objects_left),
)
ANSWERS = ("mosaics", "shifts")


def costs(outcome: Outcome) -> dict[str, Any]:
    """Give an outcome without its pictures, ready for JSON: bytes, seconds, pixels, counts."""
    return {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name not in ANSWERS}
