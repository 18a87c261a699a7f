"""What every benchmark shares: interleaved rounds, medians, targets and tables."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

KB, MB, GB = 10**3, 10**6, 10**9


@dataclasses.dataclass(frozen=True)
class Options:
    """How a benchmark was asked to run.

    Attributes:
        quick: Only a smoke test: small sizes, few rounds, numbers that mean nothing.
        rounds: Measured rounds of each case, after the warm-up.
        json: Where to write the report, if anywhere.
    """

    quick: bool
    rounds: int
    json: Path | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: one number of ours against a peer or a limit.

    Attributes:
        group: Benchmark that it belongs to.
        name: What was done.
        peer: What it is compared with; empty for a plain limit.
        value: The number that the target is about; `None` if it was not run.
        unit: Unit of `value`: `x` (a ratio), `µs`, `%` or `B`.
        target: Limit of `value`; `None` for a row that only informs.
        at_most: Whether the target is an upper limit; else it is a lower one.
        ours: Our measurement, for people.
        theirs: The peer's measurement, for people.
        note: Why it was not run, or what to know about it.
    """

    group: str
    name: str
    peer: str = ""
    value: float | None = None
    unit: str = "x"
    target: float | None = None
    at_most: bool = False
    ours: str = ""
    theirs: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """`ok`, `behind`, `not run`, or nothing where there is no target."""
        if self.value is None:
            return "not run"
        if self.target is None:
            return ""
        met = self.value <= self.target if self.at_most else self.value >= self.target
        return "ok" if met else "behind"

    @property
    def result(self) -> str:
        """`value` with its unit, for people."""
        return "-" if self.value is None else quantity(self.value, self.unit)

    @property
    def limit(self) -> str:
        """`target` with its direction and unit, for people."""
        if self.target is None:
            return ""
        return f"{'≤' if self.at_most else '≥'} {quantity(self.target, self.unit)}"


class Report:
    """The rows of one benchmark and the samples behind them."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.rows: list[Row] = []
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, **fields: Any) -> None:
        """Add a row of this group; the fields are those of `Row`."""
        self.rows.append(Row(group=self.group, name=name, **fields))

    def faster(
        self, name: str, peer: str, ours: float, theirs: float, target: float | None = None
    ) -> None:
        """Add a row that says how many times faster than a peer we are (both in seconds)."""
        self.add(
            name,
            peer=peer,
            value=theirs / ours,
            target=target,
            ours=seconds(ours),
            theirs=seconds(theirs),
        )

    def within(self, name: str, ours: float, limit_us: float | None) -> None:
        """Add a row that says how long we take (in seconds) against a limit in microseconds."""
        self.add(
            name,
            value=ours * 1e6,
            unit="µs",
            target=limit_us,
            at_most=True,
            ours=seconds(ours),
        )

    def not_run(self, name: str, peer: str, why: str) -> None:
        """Add a row for what could not be measured here."""
        self.add(name, peer=peer, note=why)

    def finish(self, options: Options) -> None:
        """Print the table and write the report; a smoke test has no targets."""
        if options.quick:
            self.rows = [dataclasses.replace(row, target=None) for row in self.rows]
        print(table(self.rows), flush=True)
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(self.as_dict(options), indent=1) + "\n")

    def as_dict(self, options: Options) -> dict[str, Any]:
        """Return the report in JSON types; samples are in seconds."""
        rows = [dataclasses.asdict(row) | {"verdict": row.verdict} for row in self.rows]
        return {
            "benchmark": self.group,
            "quick": options.quick,
            "rounds": options.rounds,
            "machine": machine(),
            "rows": rows,
            "samples": self.samples,
        }


def parse(argv: Sequence[str] | None, description: str | None) -> Options:
    """Read the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smoke test: small sizes, few rounds")
    parser.add_argument("--rounds", type=int, default=None, help="measured rounds (default 9)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the report")
    given = parser.parse_args(argv)
    rounds = given.rounds if given.rounds is not None else (2 if given.quick else 9)
    return Options(quick=given.quick, rounds=max(1, rounds), json=given.json)


def interleave(
    cases: Mapping[str, Callable[[], float]],
    rounds: int,
    warmup: int = 1,
    limit: float = math.inf,
    enough: int = 3,
) -> dict[str, list[float]]:
    """Run all cases in turn, round after round, so that drift hits every one alike.

    Args:
        cases: For each name a call that does one round and returns what it measured.
        rounds: Rounds that count.
        warmup: Rounds before them that do not.
        limit: Seconds after which fewer rounds are enough.
        enough: How many.

    Returns:
        The measurements of each case.
    """
    samples: dict[str, list[float]] = {name: [] for name in cases}
    start = time.perf_counter()
    for number in range(-warmup, rounds):
        if number >= enough and time.perf_counter() - start > limit:
            break
        for name, run in cases.items():
            value = run()
            if number >= 0:
                samples[name].append(value)
    return samples


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def have(module: str) -> bool:
    """Tell whether an optional package is installed."""
    return importlib.util.find_spec(module) is not None


def progress(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe where the numbers come from, as far as they depend on it."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def size(nbytes: int) -> str:
    """Write a number of bytes as people say it."""
    for unit, factor in (("GB", GB), ("MB", MB), ("kB", KB)):
        if nbytes >= factor:
            return f"{nbytes / factor:g} {unit}"
    return f"{nbytes} B"


def seconds(value: float) -> str:
    """Write a duration with the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit."""
    if unit == "µs":
        return seconds(value * 1e-6)
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}"


COLUMNS = ("benchmark", "what", "against", "ours", "theirs", "result", "target", "")


def cells(row: Row) -> tuple[str, ...]:
    """Return what a row shows in each of `COLUMNS`."""
    verdict = f"{row.verdict}: {row.note}" if row.note else row.verdict
    shown = (row.group, row.name, row.peer, row.ours, row.theirs, row.result, row.limit)
    return (*shown, verdict)


def table(rows: Sequence[Row]) -> str:
    """Draw the rows for a terminal."""
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    drawn = ["  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) for line in lines]
    drawn.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(text.rstrip() for text in drawn)


def markdown(rows: Sequence[Row]) -> str:
    """Draw the rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"
