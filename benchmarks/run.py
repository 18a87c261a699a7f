"""Run every benchmark, each in a process of its own, and print one table.

    python -m benchmarks.run [--quick] [--rounds N] [--only store,parsl] [--output DIR]

Writes `results.json` and `results.md` to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._harness import Row, machine, markdown, progress, table

HERE = Path(__file__).resolve().parent

# name -> module; in the order of the table
PARTS = {
    "store": "store",
    "memory": "memory",
    "parsl": "parsl_roundtrip",
    "dask": "dask_roundtrip",
    "globus": "globus_compute",
    "endpoint": "endpoint",
    "peers": "endpoint_peers",
    "relay": "endpoint_relay",
    "webrtc": "endpoint_webrtc",
    "proxy": "proxy_ops",
    "serialize": "serialize",
    "shared_memory": "shared_memory",
    "autoproxy": "autoproxy",
}


def run_part(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark; return its report, with an `error` if it failed."""
    progress(f"== {name}")
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory, "report.json")
        command = [sys.executable, "-m", f"benchmarks.{PARTS[name]}"]
        command += ["--json", str(written), *arguments]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False
        )
        report: dict[str, Any] = json.loads(written.read_text()) if written.exists() else {}
    report["seconds"] = time.perf_counter() - start
    if done.returncode != 0 or not report.get("rows"):
        report["error"] = f"benchmarks.{PARTS[name]} ended with status {done.returncode}"
    return report


def rows_of(name: str, report: dict[str, Any]) -> list[Row]:
    """Return a part's rows for the table."""
    fields = {field.name for field in dataclasses.fields(Row)}
    rows = [
        Row(**{key: value for key, value in row.items() if key in fields})
        for row in report.get("rows", [])
    ]
    if "error" in report:
        rows.append(Row(group=name, name="failed", note=report["error"]))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, help="measured rounds of each case")
    parser.add_argument("--only", help=f"comma-separated, of: {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR")
    options = parser.parse_args(argv)
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    arguments = ["--quick"] if options.quick else []
    if options.rounds is not None:
        arguments += ["--rounds", str(options.rounds)]

    # A smoke test measures nothing, so its parts may disturb each other.
    with ThreadPoolExecutor((os.cpu_count() or 1) if options.quick else 1) as pool:
        done = pool.map(lambda name: run_part(name, arguments), wanted)
        reports = dict(zip(wanted, done, strict=True))
    rows = [row for name, report in reports.items() for row in rows_of(name, report)]
    behind = [row for row in rows if row.verdict == "behind"]
    failed = [name for name, report in reports.items() if "error" in report]
    targets = [row for row in rows if row.target is not None and row.value is not None]
    summary = f"{len(targets) - len(behind)} of {len(targets)} targets met"
    if options.quick:
        summary = "a smoke test: the numbers above mean nothing"
    if failed:
        summary += f"; failed: {', '.join(failed)}"

    options.output.mkdir(parents=True, exist_ok=True)
    whole = {"quick": options.quick, "machine": machine(), "parts": reports}
    (options.output / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    (options.output / "results.md").write_text(f"{markdown(rows)}\n{summary}\n")
    print(table(rows))
    print(f"\n{summary}\nwritten to {options.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
