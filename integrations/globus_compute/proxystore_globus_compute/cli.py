"""The command line: `proxystore-globus-compute configure`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxystore_core import __version__
from proxystore_core.exceptions import ProxyStoreError
from proxystore_globus_compute.config import endpoint_config

_FILE = "user_config_template.yaml.j2"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Its arguments; `None` for those of the process.

    Returns:
        Exit status: 0 if all went well, 1 with a message if not, 2 for wrong arguments.
    """
    options = _parser().parse_args(arguments)
    try:
        return _configure(options)
    except (ProxyStoreError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxystore-globus-compute",
        description="Large arguments and results of Globus Compute functions travel by reference.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    configure = commands.add_parser(
        "configure",
        help="write the configuration of an endpoint whose workers find this package",
        description=f"Write a {_FILE}, to standard output if no endpoint is named.",
    )
    add = configure.add_argument
    add("name", nargs="?", metavar="ENDPOINT", help="endpoint of globus-compute-endpoint to change")
    add("--init", action="append", default=[], metavar="COMMAND", help="command for each worker")
    add("--no-install", action="store_true", help="the workers have the package")
    add("--peer", metavar="NAME", help="peer endpoint to start on the login node")
    add("--workers-per-node", type=int, metavar="N", help="by default one on each core")
    add("--retries", type=int, default=1, metavar="N", help="tries after a node is lost")
    add("--provider", default="LocalProvider", metavar="TYPE", help="as SlurmProvider")
    add(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="option of the provider, as partition=gpu",
    )
    add("--force", action="store_true", help="replace a configuration, which is kept as .bak")
    return parser


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _configure(options: argparse.Namespace) -> int:
    text = endpoint_config(
        init="\n".join(options.init),
        install=not options.no_install,
        peer=options.peer,
        workers_per_node=options.workers_per_node,
        retries=options.retries,
        provider={"type": options.provider, **dict(options.option)},
    )
    if options.name is None:
        sys.stdout.write(text)
        return 0
    home = os.environ.get("GLOBUS_COMPUTE_USER_DIR") or Path.home() / ".globus_compute"
    directory = Path(home, options.name)
    if not directory.is_dir():
        sys.stderr.write(
            f"There is no {directory}. Make it with: globus-compute-endpoint configure "
            f"{options.name}\n"
        )
        return 1
    path = directory / _FILE
    if path.exists():
        if not options.force:
            sys.stderr.write(f"{path} is there: add --force to replace it; it is kept as .bak.\n")
            return 1
        path.replace(path.with_name(f"{_FILE}.bak"))
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"Wrote {path}\n")
    if options.peer is not None:
        sys.stdout.write(
            f"Configure the peer once, if you did not: proxystore-endpoint configure "
            f"{options.peer}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
