"""The Hubble Deep Field from noisy exposures by map and reduce, without and with proxies.

Runs one and the same workflow twice through Globus Compute, with two workers: with the SDK's
Executor, then with ProxyExecutor. All of Globus Compute is real, but for the cloud's REST service,
for which a local stand-in answers. Checks that both find what a plain Python run finds, to the last
bit, prints what each cost and draws the result. `--size large` is more than the plain one takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from examples.common.command import Parser

INSTALL = "python -m pip install -e '.[example-globus-compute]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Returns:
        Exit status: 0; 1 where an answer is wrong, none came with ours, or an object is left;
        2 where something is missing.
    """
    try:
        from examples.hubble.outcome import MODES
        from examples.hubble.scene import SIZES, observe

        arguments = _parse(argv, list(SIZES), list(MODES))

        from examples.common.apart import call_apart
        from examples.common.report import table
        from examples.compute_stack.processes import StackError
        from examples.hubble import report, workflow
        from examples.hubble.picture import draw
        from examples.hubble.run import run
    except ModuleNotFoundError as error:
        print(f"hubble: {error.name} is missing; install it with: {INSTALL}", file=sys.stderr)
        return 2

    size, workers = SIZES[arguments.size], arguments.workers
    tiles = size.grid[0] * size.grid[1]
    each = f"{size.exposures} exposures = {size.nbytes / 1e6:.1f} MB"
    print(f"{tiles} tiles x {each}, {workers} workers", flush=True)
    rows = list(observe(size))
    expected = workflow.here(rows)

    print("starting broker, stand-in and endpoint", flush=True)
    modes = [arguments.only] if arguments.only else MODES
    try:
        # In a process of its own, so that an interrupt reaches nothing that has to be ended.
        outcomes = call_apart(run, modes, arguments.size, workers, arguments.threshold)
    except StackError as error:
        print(f"hubble: {error}", file=sys.stderr)
        return 2

    finished = {str(mode): done for mode, done in outcomes.items() if not done.refused}
    if finished:
        print(f"\n{table(finished, report.ROWS)}\n")
    picture = arguments.output / "hubble.png"
    draw(picture, rows[0][0], expected)
    right = {mode: o.answers_like(expected) for mode, o in outcomes.items()}
    for mode, outcome in outcomes.items():
        if outcome.refused:
            print(f"{mode}: refused: {outcome.refused}")
        else:
            same = "the same" if right[mode] else "NOT THE SAME"
            print(f"{mode}: {same} as in one process, to the last bit")
    print(f"{len(expected['catalog'])} sources, drawn in {picture}")
    if arguments.json:
        summary = {
            "size": arguments.size,
            "workers": workers,
            "threshold": arguments.threshold,
            "runs": {mode: report.costs(outcome) for mode, outcome in outcomes.items()},
            "right": right,
            "sources": len(expected["catalog"]),
            "picture": str(picture),
        }
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")
    wrong = [m for m, o in outcomes.items() if not right[m] and not (m == "plain" and o.refused)]
    left = sum(outcome.objects_left for outcome in outcomes.values())
    return 1 if wrong or left else 0


def _parse(argv: Sequence[str] | None, sizes: list[str], modes: list[str]) -> argparse.Namespace:
    parser = Parser("hubble", __doc__, "hubble.png")
    parser.add_size(sizes)
    parser.add_threshold("50 kB")
    parser.add_argument("--only", choices=modes, help="run with one executor only")
    arguments = parser.parse_args(argv)
    parser.check(arguments)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nhubble: interrupted; everything was shut down")
