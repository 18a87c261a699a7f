"""A table of what runs cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Row(Generic[R]):
    """A line of the table.

    Attributes:
        title: What it is about.
        value: Takes the quantity from what a run gave.
        unit: "B", "s", or nothing for a number.
        compared: Whether to say how many times less the last run took than the first.
    """

    title: str
    value: Callable[[R], float]
    unit: str = ""
    compared: bool = False


def table(runs: dict[str, R], rows: Sequence[Row[R]]) -> str:
    """Lay out what runs cost, a column a run, and how many times less the last took."""
    several = len(runs) > 1
    first, last = next(iter(runs)), next(reversed(runs))
    lines = [["", *runs, *([f"{first} / {last}"] if several else [])]]
    for row in rows:
        values = [row.value(outcome) for outcome in runs.values()]
        cells = [row.title, *(quantity(value, row.unit) for value in values)]
        if several:
            ratio = f"{short(values[0] / values[-1])} x" if row.compared and values[-1] else ""
            cells.append(ratio)
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


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit: "12.5 s", "1.2 GB", "7"."""
    if unit == "s":
        return f"{value:.1f} s"
    if unit != "B":
        return str(value)
    for name in ("B", "kB", "MB"):
        if value < 1000:
            return f"{short(value)} {name}"
        value /= 1000
    return f"{short(value)} GB"


def short(value: float) -> str:
    """Write a number with two or three digits that mean something."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
