"""Run the test suite that ships with Parsl, with the plain executor and with ours.

    python tests/integrations/parsl_suite.py [--threshold 1] [--local] [pytest options]

Ours carries everything from one byte on by reference. `--local` also runs the tests that make
their own configurations, with every HighThroughputExecutor in them replaced by ours (a quarter
of an hour each). The suite needs an older pytest, which is fetched from PyPI into a temporary
directory. Prints a table, and each test that passes plain but not with ours. One is expected:
`test_proxystore_via_apps` of `--local`, in which another serializer should get at the arguments.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import parsl.tests

CONFIG = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider
{imports}

def fresh_config():
    executor = HighThroughputExecutor(
        label="htex_local",
        address="127.0.0.1",
        cores_per_worker=0.1,
        max_workers_per_node=2,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    return Config(executors=[{executor}], strategy="none", strategy_period=0.5)
"""

PLUGIN = """
import inspect
import parsl, parsl.executors
from parsl.executors.high_throughput import executor as module
from proxystore_parsl import ProxyHighThroughputExecutor

class HighThroughputExecutor(ProxyHighThroughputExecutor):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{{"threshold": {threshold}, **kwargs}})

# Some tests look at these.
HighThroughputExecutor.__init__.__signature__ = inspect.signature(
    module.HighThroughputExecutor.__init__
)
HighThroughputExecutor.__module__ = module.__name__
for place in (parsl, parsl.executors, module):
    place.HighThroughputExecutor = HighThroughputExecutor
"""


def run(directory: Path, name: str, config: str, options: list[str]) -> dict[str, str]:
    """Run the suite once; return the outcome of each test."""
    work = directory / name
    work.mkdir()
    report = work / "report.xml"
    path = [str(directory / "pytest"), str(directory), *os.environ.get("PYTHONPATH", "").split(":")]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        sys.executable, "-m", "pytest", str(Path(parsl.tests.__file__).parent),
        "--config", config, "-c", os.devnull, "--rootdir", str(work), "-q", "--tb=short",
        "-p", "no:cacheprovider", "-m", "not cleannet", f"--junitxml={report}", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, path)), "PATH": binaries}
    with open(work / "log", "w") as log:
        subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = min(kinds, default="passed")
    return outcomes


def main() -> int:
    """Run what was asked for; return how many tests ours fails and plain passes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threshold", default="1")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--keep", type=Path, help="directory for logs, which must not exist")
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target",
             str(directory / "pytest"), "pytest>=8,<9"],
            check=True,
        )  # fmt: skip
        (directory / "plain.py").write_text(CONFIG.format(imports="", executor="executor"))
        (directory / "ours.py").write_text(
            CONFIG.format(
                imports="from proxystore_parsl import proxied",
                executor=f"proxied(executor, threshold={arguments.threshold})",
            )
        )
        (directory / "parsl_suite_plugin.py").write_text(
            PLUGIN.format(threshold=arguments.threshold)
        )
        runs = {}
        for name in ("plain", "ours"):
            runs[name] = run(directory, name, str(directory / f"{name}.py"), options)
            if arguments.local:
                plugin = ["-p", "parsl_suite_plugin"] if name == "ours" else []
                runs[name] |= run(directory, f"{name}-local", "local", [*plugin, *options])
        kinds = ("passed", "skipped", "failure", "error")
        print(f"{'':8}" + "".join(f"{kind:>9}" for kind in kinds))
        for name, outcomes in runs.items():
            counts = [sum(found == kind for found in outcomes.values()) for kind in kinds]
            print(f"{name:8}" + "".join(f"{count:9}" for count in counts))
        worse = [
            test
            for test, outcome in runs["plain"].items()
            if outcome == "passed" and runs["ours"].get(test) != "passed"
        ]
        for test in worse:
            print(f"plain only: {test}")
    return len(worse)


if __name__ == "__main__":
    sys.exit(main())
