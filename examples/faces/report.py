"""What the runs cost and found, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from examples.common.report import Row
from examples.faces.outcome import Answers, Outcome

STAGES = {
    "measure": "measure, with dask.array",
    "permute": "permute, with Client.map",
    "resample": "resample, with dask.delayed",
    "search": "search, with joblib",
    "rank": "rank, with dask.dataframe",
}
COSTS = (
    Row[Outcome]("wall time", lambda run: run.seconds, "s", compared=True),
    Row[Outcome]("processor time, all processes", lambda run: run.cpu_seconds, "s", compared=True),
    Row[Outcome](
        "bytes sent by client and scheduler", lambda run: run.hub_bytes, "B", compared=True
    ),
    Row[Outcome]("bytes sent by workers", lambda run: run.worker_bytes, "B", compared=True),
    Row[Outcome]("peak memory, all processes", lambda run: run.peak_bytes, "B", compared=True),
    Row[Outcome]("  of it in shared memory", lambda run: run.stored_bytes, "B"),
    Row[Outcome]("warnings of large graphs", lambda run: run.warnings),
    Row[Outcome]("objects in use afterwards", lambda run: run.objects_used),
    Row[Outcome]("files left when closed", lambda run: run.objects_left),
)
SLOWER = 1.1  # times as long, and
LATER = 0.1  # seconds: less than that is chance


def rows() -> Iterator[Row[Outcome]]:
    """Say what the lines of the table are."""
    for name, title in STAGES.items():
        yield Row(title, lambda run, name=name: run.stages[name], "s", compared=True)  # type: ignore[misc]  # mypy does not see the default
    yield from COSTS


def quicker(runs: dict[str, Outcome]) -> list[str]:
    """Say of each stage that another run did quicker than the last."""
    *others, (last, reference) = runs.items()
    return [
        f"{mode} is quicker in {name}: {outcome.stages[name]:.1f} s, and {last} takes {ours:.1f} s"
        for name, ours in reference.stages.items()
        for mode, outcome in others
        if ours > max(SLOWER * outcome.stages[name], outcome.stages[name] + LATER)
    ]


def findings(answers: Answers) -> list[str]:
    """Say what the pictures tell."""
    telling = int(answers.kinds["tells", "sum"].sum())
    count, drawn = len(answers.strength), len(answers.strongest)
    limit = np.quantile(answers.strongest, 0.95)
    accuracy = ", ".join(f"{name} {max(s):.1%}" for name, s in answers.scores.items())
    return [
        f"{telling:,} of {count:,} features tell a face: they correlate with it by more than "
        f"{limit:.2f}, which 5 % of {drawn:,} permutations reach anywhere",
        f"accuracy, cross-validated: {accuracy}",
    ]


def costs(outcome: Outcome) -> dict[str, Any]:
    """Give an outcome without its answers, ready for JSON: bytes, seconds, counts."""
    found = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "answers"}
    return {**found, "seconds": outcome.seconds}
