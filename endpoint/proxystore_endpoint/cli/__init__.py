"""The command `proxystore-endpoint`: everything that is done with endpoints by hand.

```
configure NAME          make an endpoint           share [NAME]            invite a peer
list                    all endpoints              accept [NAME] TICKET    follow an invitation
start, stop NAME        its daemon                 grants, grant, revoke   who may do what
status [NAME]           what it does now           membership              groups
remove NAME             and everything in it       check-nat, doctor       what works from here
test NAME ...           put, get, exists, evict    help, version
```

Exit status: 0 it was done; 1 it failed; 2 the command line makes no sense.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from proxystore_core.exceptions import MissingExtraError, ProxyStoreError
from proxystore_core.utils.imports import import_from_path
from proxystore_endpoint.cli._output import complain
from proxystore_endpoint.cli._parser import make_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments, by default those of the process.

    Returns:
        The exit status.
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=options.log_level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(options.log_level)
    try:
        return _run(parser, options)
    except (ProxyStoreError, FileNotFoundError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.run == "help":
        parser.print_help()
        return 0
    # Imported when needed: no command waits for what another one needs.
    try:
        run = import_from_path(f"proxystore_endpoint.cli.{options.run}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("proxystore"):
            raise
        raise MissingExtraError("endpoint", needed_for="proxystore-endpoint") from error
    return int(run(options))
