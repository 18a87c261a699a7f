"""The benchmarks run; what they measure is nobody's assertion."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_quick_run_measures_every_part(tmp_path: Path) -> None:
    done = run("--quick", "--output", str(tmp_path))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    results = json.loads((tmp_path / "results.json").read_text())
    for name, part in results["parts"].items():
        assert part["rows"], name
        for row in part["rows"]:
            assert row["value"] is not None or row["note"], row
    assert (tmp_path / "results.md").read_text().count("|") > 20


def test_unknown_part_is_refused() -> None:
    done = run("--only", "stoer")
    assert done.returncode == 2
    assert "there are: store, memory" in done.stderr
