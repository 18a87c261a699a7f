"""What tells a face? Nearly 200,000 features of 200 pictures, on Dask, without and with proxies.

Runs one and the same workflow on two worker processes: on plain Dask; with the matrix scattered by
hand, as Dask advises; and plain, but after `proxystore_dask.enable(client)`. Checks that all answer
the same to the last bit and that nothing is left, prints what each cost and draws the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from examples.common.command import Parser

INSTALL = "python -m pip install -e '.[example-dask]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Returns:
        Exit status: 0, or 1 where answers differ or an object is left.
    """
    try:
        from examples.faces.outcome import MODES, Outcome
        from examples.faces.windows import SIZES, lay

        arguments = _parse(argv, list(SIZES), list(MODES))

        from examples.common.apart import call_apart
        from examples.common.report import table
        from examples.faces import report
        from examples.faces.picture import draw
        from examples.faces.run import run
        from examples.faces.stages import load
    except ModuleNotFoundError as error:
        print(f"faces: {error.name} is missing; install it with: {INSTALL}", file=sys.stderr)
        return 2

    workers, count = arguments.workers, len(load()[0])
    features = len(lay(SIZES[arguments.size].step))
    shape = f"{count} pictures x {features:,} features = {count * features * 4 / 1e6:.0f} MB"
    print(f"{shape}, {workers} workers")

    outcomes: dict[str, Outcome] = {}
    for mode in (mode for mode in MODES if mode in (arguments.only or MODES)):
        # Each has a process of its own, so that neither inherits the other's memory.
        outcomes[mode] = call_apart(run, mode, arguments.size, workers, arguments.threshold)

    picture = arguments.output / "faces.png"
    first, *others = outcomes.values()
    draw(picture, first.answers)
    print(f"\n{table(outcomes, list(report.rows()))}\n")
    for line in [*report.quicker(outcomes), *report.findings(first.answers)]:
        print(line)

    identical = all(first.answers.like(other.answers) for other in others)
    left = sum(outcome.objects_used + outcome.objects_left for outcome in outcomes.values())
    if others:
        print(f"same answers to the last bit: {'yes' if identical else 'NO'}")
    print(f"objects left: {left}")
    print(f"the result is drawn in {picture}")
    if arguments.json:
        summary = {
            "size": arguments.size,
            "workers": workers,
            "threshold": arguments.threshold,
            "features": features,
            "runs": {mode: report.costs(outcome) for mode, outcome in outcomes.items()},
            "identical": identical if others else None,
            "picture": str(picture),
        }
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if identical and not left else 1


def _parse(argv: Sequence[str] | None, sizes: list[str], modes: list[str]) -> argparse.Namespace:
    parser = Parser("faces", __doc__, "faces.png")
    parser.add_size(sizes)
    parser.add_threshold("1 MB")
    parser.add_argument(
        "--only", nargs="+", choices=modes, help="leave out the other runs (default: all three)"
    )
    arguments = parser.parse_args(argv)
    parser.check(arguments)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nfaces: interrupted; everything was shut down")
