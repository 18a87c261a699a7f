"""Run the tests of Dask, and of what builds on it, with plain clients and with ours.

    python tests/integrations/dask_suite.py [--threshold 1] [--checkout DIRECTORY] [pytest options]

Ours carries everything from one byte on by reference: the configuration entry
`distributed.client.preload` puts it into every client. What ships with Dask and joblib is run,
Dask's tests of `distributed` and joblib's of its Dask backend; with `--checkout` also what lies in
a clone of `distributed`, whose own tests are in none of its packages. Prints a table, each test
that passes plain but not with ours, and what was left in shared memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import dask
import distributed
import joblib  # type: ignore[import-untyped]

OF_DISTRIBUTED = (
    "test_actor.py", "test_as_completed.py", "test_client.py", "test_client_executor.py",
    "test_collections.py", "test_events.py", "test_failed_workers.py", "test_locks.py",
    "test_publish.py", "test_queues.py", "test_resources.py", "test_semaphore.py",
    "test_variable.py", "test_worker_client.py",
)  # fmt: skip
KINDS = ("passed", "skipped", "failure", "error")


class Run(NamedTuple):
    """What came of each test, how long all took, and what was left in shared memory."""

    outcomes: dict[str, str]
    seconds: float
    left: list[str]


def modules(checkout: Path | None) -> list[str]:
    """Return the files with the tests."""
    found = [
        Path(dask.__file__).parent / "tests" / "test_distributed.py",
        Path(joblib.__file__).parent / "test" / "test_dask.py",
    ]
    if checkout is not None:
        directory = checkout.resolve() / "distributed" / "tests"
        if not directory.is_dir():
            sys.exit(
                f"No tests in {directory}. Get them by:\n  git clone --depth 1 --branch "
                f"{distributed.__version__} https://github.com/dask/distributed {checkout}"
            )
        found += [directory / name for name in OF_DISTRIBUTED]
    return [str(path) for path in found if path.exists()]


def run(work: Path, tests: list[str], options: list[str], settings: dict[str, str]) -> Run:
    """Run the tests once, in a directory that is made for it."""
    work.mkdir(parents=True)
    report = work / "report.xml"
    command = [
        sys.executable, "-m", "pytest", *tests, "-c", os.devnull, "--rootdir", str(work), "-q",
        "--tb=short", "-W", "ignore", "-p", "no:cacheprovider", "-p", "distributed.utils_test",
        "--import-mode=importlib", "--timeout", "120", f"--junitxml={report}", *options,
    ]  # fmt: skip
    base = Path("/dev/shm")
    memory = (base if base.is_dir() else work) / f"proxystore-suite-{os.getpid()}"
    environment = {**os.environ, **settings, "PROXYSTORE_SHM_ROOT": str(memory)}
    begin = time.monotonic()
    with open(work / "log", "w") as log:
        subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - begin
    left = sorted(path.name for path in memory.iterdir()) if memory.is_dir() else []
    shutil.rmtree(memory, ignore_errors=True)
    if not report.exists():
        sys.exit((work / "log").read_text())
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & set(KINDS[1:])
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = min(kinds, default="passed")
    return Run(outcomes, seconds, left)


def main() -> int:
    """Run both, and return how many tests ours fails and plain passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threshold", default="1", help="smallest size that goes by reference")
    parser.add_argument("--checkout", type=Path, help="a clone of the repository of distributed")
    parser.add_argument("--keep", type=Path, help="directory for logs, which must not exist")
    arguments, options = parser.parse_known_args()
    tests = modules(arguments.checkout)
    ours = {
        "DASK_DISTRIBUTED__CLIENT__PRELOAD": '["proxystore_dask"]',
        "DASK_PROXYSTORE__THRESHOLD": arguments.threshold,
    }
    with tempfile.TemporaryDirectory() as temporary:
        directory = (arguments.keep or Path(temporary)).resolve()
        runs = {
            name: run(directory / name, tests, options, settings)
            for name, settings in (("plain", {}), ("ours", ours))
        }
    print(f"{'':8}" + "".join(f"{kind:>9}" for kind in (*KINDS, "seconds")))
    for name, (outcomes, seconds, _) in runs.items():
        counts = [sum(found == kind for found in outcomes.values()) for kind in KINDS]
        print(f"{name:8}" + "".join(f"{count:9}" for count in counts) + f"{seconds:9.0f}")
    worse = [
        test
        for test, outcome in runs["plain"].outcomes.items()
        if outcome == "passed" and runs["ours"].outcomes.get(test) != "passed"
    ]
    for test in worse:
        print(f"plain only: {test}")
    for store in runs["ours"].left:
        print(f"left in shared memory: {store}")
    return len(worse)


if __name__ == "__main__":
    sys.exit(main())
