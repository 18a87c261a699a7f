"""How the command talks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str = "") -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Print what went wrong."""
    sys.stderr.write(f"proxystore-endpoint: {text}\n")


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=2, default=str))


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def seconds(value: float | None) -> str:
    """Write a time for people."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.3g} s"
