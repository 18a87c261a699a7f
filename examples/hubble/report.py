"""What the runs cost, for people and as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from examples.common.report import Row
from examples.hubble.outcome import Outcome

ROWS = (
    Row[Outcome]("tasks", lambda run: run.tasks),
    Row[Outcome]("requests that sent them", lambda run: run.requests),
    Row[Outcome]("bytes through the broker", lambda run: run.broker_bytes, "B", compared=True),
    Row[Outcome]("bytes through the store", lambda run: run.store_bytes, "B"),
    Row[Outcome]("wall time", lambda run: run.seconds, "s", compared=True),
    Row[Outcome]("objects left", lambda run: run.objects_left),
)


def costs(outcome: Outcome) -> dict[str, Any]:
    """Give an outcome without its answer, ready for JSON: bytes, seconds, counts."""
    return {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "answer"}
