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
from collections.abc import Sequence

from examples.common.command import Parser

TOLERANCE = 0.35  # pixels; frames are shaken by up to 8
INSTALL = "python -m pip install -e '.[example]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Returns:
        Exit status: 0, or 1 where an answer is wrong or an object is left.
    """
    try:
        from examples.imaging.outcome import MODES, Outcome
        from examples.imaging.scene import SIZES, plan

        arguments = _parse(argv, list(SIZES), list(MODES))

        from examples.common.apart import call_apart
        from examples.common.report import table
        from examples.imaging import report
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

    outcomes: dict[str, Outcome] = {}
    for mode in [arguments.only] if arguments.only else MODES:
        # Each has a process of its own, so that neither inherits the other's memory.
        outcomes[mode] = call_apart(run, mode, arguments.size, workers, arguments.threshold)

    picture = arguments.output / "mosaic.png"
    first, *others = outcomes.values()
    draw(picture, fields, first.mosaics)
    print(f"\n{table(outcomes, report.ROWS)}\n")

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
    parser = Parser("imaging", __doc__, "mosaic.png")
    parser.add_size(sizes)
    parser.add_threshold("100 kB")
    parser.add_argument("--only", choices=modes, help="run on one executor only")
    arguments = parser.parse_args(argv)
    parser.check(arguments)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nimaging: interrupted; everything was shut down")
