"""The command `proxystore`: look at shared-memory stores, clean up, find out what is wrong.

```
proxystore ls [--json]                       the stores of this user on this node
proxystore stat [DIRECTORY ...] [--json]     all about some stores, or about all
proxystore gc [DIRECTORY ...] [--dry-run]    remove what processes that are gone left behind
proxystore doctor [--json]                   check this machine, and say what to do
```

Exit status: 0 all is well; 1 a check failed, or a directory holds no store;
2 the command line makes no sense.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from proxystore_core import __version__
from proxystore_core.cli import _doctor, _stores
from proxystore_core.exceptions import ProxyStoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments, by default those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except ProxyStoreError as error:
        print(f"proxystore: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxystore",
        description="Look at shared-memory stores, clean up, find out what is wrong.",
        epilog="Exit status: 0 all is well; 1 a check failed, or a directory holds no store; "
        "2 the command line makes no sense. The stores of this user are in "
        "$PROXYSTORE_SHM_ROOT, else in /dev/shm/proxystore-<uid>.",
    )
    parser.add_argument("--version", action="version", version=f"proxystore-core {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ls = commands.add_parser("ls", help="list the stores of this user on this node")
    ls.set_defaults(run=_stores.ls)

    stat = commands.add_parser("stat", help="say all about some stores, or about all")
    stat.add_argument("directory", nargs="*", help="directory of a store")
    stat.set_defaults(run=_stores.stat)

    gc = commands.add_parser("gc", help="remove what processes that are gone left behind")
    gc.add_argument("directory", nargs="*", help="directory of a store that was named by hand")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.set_defaults(run=_stores.gc)

    doctor = commands.add_parser("doctor", help="check this machine, and say what to do")
    doctor.set_defaults(run=_doctor.doctor)

    for command in (ls, stat, gc, doctor):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser
