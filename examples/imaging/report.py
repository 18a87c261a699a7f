"""The table of what the runs cost, for people and as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from examples.imaging.outcome import Mode, Outcome

Row = tuple[str, str, str]  # title, field of Outcome, unit
ROWS: tuple[Row, ...] = (
    ("tasks", "tasks", ""),
    ("bytes through Parsl", "parsl_bytes", "B"),
    ("bytes through the store", "store_bytes", "B"),
    ("wall time", "seconds", "s"),
    ("processor time, all processes", "cpu_seconds", "s"),
    ("peak memory, all processes", "peak_bytes", "B"),
    ("objects left", "objects_left", ""),
)
ANSWERS = ("mosaics", "shifts")
COMPARED = ("parsl_bytes", "seconds", "cpu_seconds", "peak_bytes")


def table(runs: dict[Mode, Outcome]) -> str:
    """Lay out the costs, a column a run, and how many times less the second took."""
    both = len(runs) == 2
    lines = [["", *runs, *(["plain / proxied"] if both else [])]]
    for title, name, unit in ROWS:
        values = [getattr(outcome, name) for outcome in runs.values()]
        cells = [title, *(_quantity(value, unit) for value in values)]
        if both:
            cells.append(f"{_short(values[0] / values[1])} x" if name in COMPARED else "")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w + 2) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    ]
    rule = "-" * len(texts[0])
    return "\n".join(text.rstrip() for text in [texts[0], rule, *texts[1:]])


def costs(outcome: Outcome) -> dict[str, Any]:
    """Give an outcome without its pictures, ready for JSON: bytes, seconds, pixels, counts."""
    return {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name not in ANSWERS}


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.1f} s"
    if unit != "B":
        return str(value)
    for name in ("B", "kB", "MB"):
        if value < 1000:
            return f"{_short(value)} {name}"
        value /= 1000
    return f"{_short(value)} GB"


def _short(value: float) -> str:
    """Write a number with two or three digits that mean something."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
