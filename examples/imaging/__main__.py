"""A mosaic of shaken, noisy frames, made by Parsl, without and with proxies.

Runs one and the same workflow twice on two worker processes: on Parsl's HighThroughputExecutor,
then on ProxyHighThroughputExecutor. Checks that both answer the same to the last bit and that the
camera's shakes were found, prints what each cost and draws the result.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

TOLERANCE = 0.35  # pixels; frames are shaken by up to 8
INSTALL = "python -m pip install -e '.[example]'"


class Parser(argparse.ArgumentParser):
    """Parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read on, and exit with status 2."""
        self.exit(2, f"imaging: {message}; see --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Returns:
        Exit status: 0, or 1 where an answer is wrong or an object is left.
    """
    try:
        from examples.imaging.outcome import MODES, Mode, Outcome
        from examples.imaging.scene import SIZES, plan

        arguments = _parse(argv, list(SIZES), list(MODES))

        from examples.imaging import report
        from examples.imaging.apart import call_apart
        from examples.imaging.picture import draw
        from examples.imaging.run import run
    except ModuleNotFoundError as error:
        print(f"imaging: {error.name} is missing; install it with: {INSTALL}", file=sys.stderr)
        return 2

    size, workers = SIZES[arguments.size], arguments.workers
    fields = plan(size)
    sites = [field for rows in fields.values() for row in rows for field in row]
    megabytes = sum(field.frames * 2 * math.prod(field.frame_shape) for field in sites) / 1e6
    shape = f"{len(sites)} fields x {size.frames} frames = {megabytes:.0f} MB of stacks"
    print(f"{shape}, {workers} workers")

    outcomes: dict[Mode, Outcome] = {}
    for mode in [arguments.only] if arguments.only else MODES:
        # Each has a process of its own, so that neither inherits the other's memory.
        outcomes[mode] = call_apart(run, mode, arguments.size, workers, arguments.threshold)

    picture = arguments.output / "mosaic.png"
    first, *others = outcomes.values()
    draw(picture, fields, first.mosaics)
    print(f"\n{report.table(outcomes)}\n")

    off = max(outcome.shift_error for outcome in outcomes.values())
    identical = all(first.answers_like(other) for other in others)
    left = sum(outcome.objects_left for outcome in outcomes.values())
    good = identical and off <= TOLERANCE and not left
    if others:
        print(f"Same answer to the last bit: {'yes' if identical else 'NO'}")
    verdict = "within" if off <= TOLERANCE else "NOT WITHIN"
    print(f"Shakes of up to 8 pixels found {verdict} {TOLERANCE} pixels (largest error {off:.2f})")
    print(f"The result is drawn in {picture}")
    if arguments.json:
        summary = {
            "size": arguments.size,
            "workers": workers,
            "threshold": arguments.threshold,
            "runs": {mode: report.costs(outcome) for mode, outcome in outcomes.items()},
            "identical": identical if others else None,
            "picture": str(picture),
        }
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if good else 1


def _parse(argv: Sequence[str] | None, sizes: list[str], modes: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m examples.imaging", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=sizes, default="full", help="how much (default: full)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument(
        "--threshold", default="100 kB", help="what is larger goes by reference (default: 100 kB)"
    )
    parser.add_argument("--only", choices=modes, help="run on one executor only")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parents[1] / "output",
        metavar="DIR",
        help="where to write mosaic.png (default: examples/output)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: give 1 or more")
    _check_threshold(parser, arguments.threshold)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: cannot make {arguments.output} ({error.strerror}); name another")
    _check_writable(parser, "--output", arguments.output)
    if arguments.json:
        _check_writable(parser, "--json", arguments.json.parent)
    return arguments


def _check_threshold(parser: Parser, threshold: str) -> None:
    from proxystore_core.utils.data import readable_to_bytes

    try:
        readable_to_bytes(threshold)
    except ValueError:
        parser.error(f"--threshold {threshold}: give a size such as '100 kB' or '2 MiB'")


def _check_writable(parser: Parser, option: str, directory: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        parser.error(f"{option}: cannot write in {directory} ({error.strerror}); name another")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nimaging: interrupted; everything was shut down")
