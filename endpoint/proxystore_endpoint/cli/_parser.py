"""The command line."""

from __future__ import annotations

import argparse
import re

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_RIGHTS = "read, write and list, with commas between; or none"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; `options.run` names the function that does what was asked."""
    parser = argparse.ArgumentParser(
        prog="proxystore-endpoint",
        description="Make, run and connect endpoints.",
        epilog="Endpoints live in $PROXYSTORE_HOME, else in $XDG_DATA_HOME/proxystore, else in "
        "~/.local/share/proxystore. Exit status: 0 it was done; 1 it failed; 2 the command line "
        "makes no sense.",
    )
    parser.add_argument(
        "--log-level",
        default="WARNING",
        type=str.upper,
        choices=("ERROR", "WARNING", "INFO", "DEBUG"),
        help="least level of messages; an endpoint that is started logs INFO unless told otherwise",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_manage(commands)
    _add_status(commands)
    _add_test(commands)
    _add_grants(commands)
    _add_doctor(commands)
    help_ = commands.add_parser("help", help="show this")
    help_.set_defaults(run="help")
    version = commands.add_parser("version", help="show the version")
    version.set_defaults(run="_manage.version")
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add_manage(commands: Commands[argparse.ArgumentParser]) -> None:
    configure = commands.add_parser("configure", help="make an endpoint")
    configure.set_defaults(run="_manage.configure")
    configure.add_argument("name", metavar="NAME", nargs="?")
    add = configure.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address of the REST API: an address, 'ip' or 'fqdn' of the machine; by default "
        "only this machine reaches it",
    )
    add("--port", type=int, help="port of the REST API; by default a free one")
    add("--relay-address", metavar="ADDR", help="wss://host[:port] of a relay; by default none")
    add(
        "--relay-server",
        nargs="?",
        const="",
        metavar="ADDR",
        help="the same; without an address it changes nothing",
    )
    add("--no-relay-server", action="store_true", help="use no relay, whatever else is said")
    add(
        "--relay-auth",
        nargs="?",
        const="globus",
        choices=("globus", "secret", "none"),
        help="how to authenticate with the relay",
    )
    add("--no-relay-auth", action="store_true", help="do not authenticate with the relay")
    add("--relay-secret-file", metavar="FILE", help="the relay's shared secret")
    add("--relay-ca-file", metavar="FILE", help="certificate of a relay that made its own")
    add("--ice-server", action="append", metavar="URL", help="STUN server; 'none' for no servers")
    add(
        "--peer-host", default=None, metavar="ADDR", help="address to take peers on; by default all"
    )
    add(
        "--peer-port", type=int, metavar="PORT", help="port to take peers on; by default a free one"
    )
    add("--advertise", action="append", metavar="HOST:PORT", help="tell peers of this address")
    add("--solo", action="store_true", help="have no peers")
    add("--peer-channels", type=int, default=1, metavar="COUNT", help="taken for ProxyStore's sake")
    add("--memory", metavar="SIZE", help="memory for objects, as '4 GB'; by default half of it")
    add("--max-object-size", metavar="SIZE", help="largest object")
    add(
        "--persist",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep objects on disk, safe from crashes, unless a put says otherwise",
    )
    add("--force", action="store_true", help="replace an endpoint that is configured already")

    listing = commands.add_parser("list", help="list all endpoints")
    listing.set_defaults(run="_manage.list_endpoints")
    _add_json(listing)

    remove = commands.add_parser("remove", help="remove an endpoint, its key and its objects")
    remove.set_defaults(run="_manage.remove")
    remove.add_argument("name", metavar="NAME")

    start = commands.add_parser("start", help="start an endpoint")
    start.set_defaults(run="_manage.start")
    start.add_argument("name", metavar="NAME", nargs="?")
    start.add_argument(
        "--detach",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run in the background",
    )
    start.add_argument(
        "--watch-parent",
        type=int,
        default=0,
        metavar="PID",
        help="stop when this process is gone",
    )
    start.add_argument(
        "--idle-exit",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="stop after so long without objects, clients or requests, as 10m",
    )

    stop = commands.add_parser("stop", help="stop an endpoint")
    stop.set_defaults(run="_manage.stop")
    stop.add_argument("name", metavar="NAME", nargs="?")


def _add_status(commands: Commands[argparse.ArgumentParser]) -> None:
    status = commands.add_parser("status", help="say what an endpoint does")
    status.set_defaults(run="_status.status")
    status.add_argument("name", metavar="NAME", nargs="?")
    status.add_argument(
        "--page", action="store_true", help="print the address of the web page, with the token"
    )
    _add_json(status)


def _add_test(commands: Commands[argparse.ArgumentParser]) -> None:
    test = commands.add_parser("test", help="put, get, look for and evict objects")
    test.add_argument("--remote", metavar="UUID", help="endpoint to use through this one")
    test.add_argument("name", metavar="NAME")
    actions = test.add_subparsers(required=True, metavar="ACTION")
    for name, argument, run, said in (
        ("evict", "key", "_objects.evict", "remove an object"),
        ("exists", "key", "_objects.exists", "tell whether there is an object"),
        ("get", "key", "_objects.get", "print an object"),
        ("put", "data", "_objects.put", "store a text, and print its key"),
    ):
        action = actions.add_parser(name, help=said)
        action.add_argument(argument, metavar=argument.upper())
        action.set_defaults(run=run)


def _add_grants(commands: Commands[argparse.ArgumentParser]) -> None:
    share = commands.add_parser("share", help="print a ticket that lets one other endpoint in")
    share.set_defaults(run="_grants.share")
    share.add_argument("name", metavar="NAME", nargs="?")
    share.add_argument("--rights", default="read", type=rights, help=_RIGHTS)
    share.add_argument("--lifetime", default=86400.0, type=duration, help="as 2h or 7d")
    share.add_argument("--label", default="", help="who it is for, for your own eyes")
    share.add_argument(
        "--address", action="append", metavar="HOST:PORT", help="where you can be reached"
    )

    accept = commands.add_parser("accept", help="connect to whoever gave you a ticket")
    accept.set_defaults(run="_grants.accept")
    accept.add_argument("name", metavar="NAME", nargs="?")
    accept.add_argument("ticket", metavar="TICKET")
    accept.add_argument("--rights", default="read", type=rights, help=f"in return: {_RIGHTS}")
    accept.add_argument("--label", default="", help="who it is from, for your own eyes")

    grants = commands.add_parser("grants", help="list who may do what")
    grants.set_defaults(run="_grants.grants")
    grants.add_argument("name", metavar="NAME", nargs="?")
    _add_json(grants)

    grant = commands.add_parser("grant", help="let an endpoint or a group in")
    grant.set_defaults(run="_grants.grant")
    grant.add_argument("name", metavar="NAME")
    grant.add_argument("uuid", metavar="UUID")
    grant.add_argument("--rights", default="read", type=rights, help=_RIGHTS)
    grant.add_argument("--group", action="store_true", help="the UUID is that of a group's owner")
    grant.add_argument("--address", action="append", metavar="HOST:PORT", help="where it is")
    grant.add_argument("--label", default="", help="for your own eyes")

    revoke = commands.add_parser("revoke", help="let an endpoint or a group in no more")
    revoke.set_defaults(run="_grants.revoke")
    revoke.add_argument("name", metavar="NAME")
    revoke.add_argument("uuid", metavar="UUID")
    revoke.add_argument("--group", action="store_true", help="the UUID is that of a group's owner")

    membership = commands.add_parser("membership", help="make or keep a membership of a group")
    actions = membership.add_subparsers(required=True, metavar="ACTION")
    issue = actions.add_parser("issue", help="sign a membership of the group that NAME owns")
    issue.set_defaults(run="_grants.issue")
    issue.add_argument("name", metavar="NAME")
    issue.add_argument("uuid", metavar="UUID")
    issue.add_argument("--rights", default="read", type=rights, help=_RIGHTS)
    issue.add_argument("--lifetime", default=30 * 86400.0, type=duration, help="at most 30d")
    add = actions.add_parser("add", help="keep a membership that somebody signed for NAME")
    add.set_defaults(run="_grants.add_membership")
    add.add_argument("name", metavar="NAME")
    add.add_argument("membership", metavar="MEMBERSHIP")


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    nat = commands.add_parser("check-nat", help="find out what NAT this machine is behind")
    nat.set_defaults(run="_doctor.check_nat")
    nat.add_argument("--host", default="0.0.0.0", metavar="ADDR", help="address to ask from")  # noqa: S104 - asks only
    nat.add_argument("--port", type=int, default=0, help="port to ask from; by default any")
    nat.add_argument("--server", action="append", metavar="URL", help="STUN server, stun:host:port")

    doctor = commands.add_parser("doctor", help="say which paths to peers work, and why not")
    doctor.set_defaults(run="_doctor.doctor")
    doctor.add_argument("name", metavar="NAME", nargs="?")
    _add_json(doctor)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def duration(text: str) -> float:
    """Read a time such as `90`, `10m`, `2h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 90, 10m, 2h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def rights(text: str) -> str:
    """Check a list of rights."""
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return ""
    if not set(words) <= {"read", "write", "list"}:
        raise argparse.ArgumentTypeError(f"{text!r}: use {_RIGHTS}")
    return ",".join(words)
