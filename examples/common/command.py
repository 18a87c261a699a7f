"""Command lines whose complaints are one line."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NoReturn

OUTPUT = Path(__file__).parents[1] / "output"


class Parser(argparse.ArgumentParser):
    """Parser whose complaints are one line.

    Args:
        name: Name of the example, and of its module below `examples`.
        description: What it does.
        picture: Name of the file that it draws.
    """

    def __init__(self, name: str, description: str | None, picture: str) -> None:
        super().__init__(
            prog=f"python -m examples.{name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.name = name
        self.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
        self.add_argument(
            "--output",
            type=Path,
            default=OUTPUT,
            metavar="DIR",
            help=f"where to write {picture} (default: examples/output)",
        )
        self.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")

    def add_size(self, sizes: list[str]) -> None:
        """Add the option that says how much work there is, of which "full" is the default."""
        self.add_argument("--size", choices=sizes, default="full", help="how much (default: full)")

    def add_threshold(self, default: str) -> None:
        """Add the option that says what is large."""
        self.add_argument(
            "--threshold",
            default=default,
            help=f"what is larger goes by reference (default: {default})",
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read on, and exit with status 2."""
        self.exit(2, f"{self.name}: {message}; see --help\n")

    def check(self, arguments: argparse.Namespace) -> None:
        """Complain where a run could not even start, and make the output directory."""
        if arguments.workers < 1:
            self.error(f"--workers {arguments.workers}: give 1 or more")
        self._check_threshold(arguments.threshold)
        try:
            arguments.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.error(f"--output: cannot make {arguments.output} ({error.strerror}); name another")
        self._check_writable("--output", arguments.output)
        if arguments.json:
            self._check_writable("--json", arguments.json.parent)

    def _check_threshold(self, threshold: str) -> None:
        from proxystore_core.utils.data import readable_to_bytes

        try:
            readable_to_bytes(threshold)
        except ValueError:
            self.error(f"--threshold {threshold}: give a size such as '100 kB' or '2 MiB'")

    def _check_writable(self, option: str, directory: Path) -> None:
        try:
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError as error:
            self.error(f"{option}: cannot write in {directory} ({error.strerror}); name another")
