"""`status`: what an endpoint does now."""

from __future__ import annotations

import argparse
from typing import Any

from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.cli._find import Found, connect, find, home, running_of
from proxystore_endpoint.cli._output import say, say_json, say_table, seconds
from proxystore_endpoint.config import read_token
from proxystore_endpoint.running import get_status


def status(options: argparse.Namespace) -> int:
    """Say all about an endpoint; exit with 1 where it does not run."""
    found = find(options.name)
    running = running_of(found)
    if running is None:
        state = get_status(found.directory.name, home()).name
        if options.json:
            say_json({"name": found.config.name, "uuid": found.config.uuid, "status": state})
        else:
            say(f"{found.config.name} <{found.config.uuid}>: {state}")
        return 1
    if options.page:
        say(f"{running.url}/#token={read_token(found.directory)}")
        return 0
    with connect(found) as client:
        told = client.status()
    if options.json:
        say_json({"status": "RUNNING", **told})
    else:
        _print(found, told)
    return 0


def _print(found: Found, told: dict[str, Any]) -> None:
    storage = told["storage"]
    say(f"{told['name']} <{told['uuid']}>: RUNNING")
    say(f"  process    {told['pid']}, up {seconds(told['uptime'])}, {told['version']}")
    say(f"  REST       {told['url']} (web page: proxystore-endpoint status --page)")
    say(f"  directory  {found.directory}")
    say(f"  addresses  {', '.join(told['addresses']) or 'none'}")
    say(f"  relay      {_relay(told['relay'])}")
    say(
        f"  memory     {_of(storage['memory'], storage['memory_limit'])}, "
        f"{bytes_to_readable(storage['warm'], 1)} of it kept for reuse"
    )
    say(
        f"  disk       {_of(storage['disk'], storage['disk_limit'])}, "
        f"{bytes_to_readable(storage['durable'], 1)} of it durable"
    )
    say(
        f"  objects    {storage['objects']} ({bytes_to_readable(storage['nbytes'], 1)}), and "
        f"{storage['copies']} copies of peers' ({bytes_to_readable(storage['copies_nbytes'], 1)})"
    )
    for problem in told["problems"]:
        say(f"  damaged    {problem}")
    if not told["peers"]:
        say("  peers      none (proxystore-endpoint share invites one)")
        return
    say()
    say_table(
        ("PEER", "NAME", "PATH", "RTT", "IN", "OUT", "RECEIVED", "SENT", "VERSION"),
        [
            (
                peer["uuid"],
                peer["name"] or "-",
                peer["path"] or "none",
                seconds(peer["rtt"]),
                f"{bytes_to_readable(int(peer['rate_in']), 1)}/s",
                f"{bytes_to_readable(int(peer['rate_out']), 1)}/s",
                bytes_to_readable(peer["bytes_received"], 1),
                bytes_to_readable(peer["bytes_sent"], 1),
                peer["agent"] or "-",
            )
            for peer in told["peers"]
        ],
    )
    for peer in told["peers"]:
        if not peer["path"]:
            tried = "; ".join(f"{kind}: {how}" for kind, how in peer["paths"].items())
            say(f"  {peer['uuid']} is not connected. Tried {tried or 'nothing yet'}.")


def _of(used: int, limit: int) -> str:
    return f"{bytes_to_readable(used, 1)} of {bytes_to_readable(limit, 1)}"


def _relay(relay: dict[str, Any] | None) -> str:
    if relay is None:
        return "none"
    if relay["connected"]:
        return f"{relay['address']}, connected"
    return f"{relay['address']}, not connected: {relay['error'] or 'connecting'}"
