"""`check-nat` and `doctor`: which paths to peers work from here, and why not."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import platform
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from proxystore_core import __version__
from proxystore_core.exceptions import ProxyStoreError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.cli._find import Found, connect, find, running_of
from proxystore_endpoint.cli._output import complain, say, say_json
from proxystore_endpoint.config import (
    ENDPOINT_CONFIG_FILE,
    ENDPOINT_IDENTITY_FILE,
    ENDPOINT_TOKEN_FILE,
    read_token,
    split_address,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.nat import NatReport
from proxystore_endpoint.nat import check_nat as ask_stun
from proxystore_endpoint.relay.auth import make_credentials
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.running import make_runtime_dir
from proxystore_endpoint.service import relay_context
from proxystore_endpoint.transports.tcp import own_addresses

_CONNECT_S = 3.0
_RELAY_S = 8.0
_LOOK_S = 0.1
_SMALL = 1_000_000_000


class Check(NamedTuple):
    """What one check found.

    Attributes:
        name: What was looked at.
        verdict: `ok`, `warning` or `failed`.
        found: What was found.
        advice: What to do about it, if anything.
    """

    name: str
    verdict: str
    found: str
    advice: str = ""


def check_nat(options: argparse.Namespace) -> int:
    """Say what NAT this machine is behind; fail where no server answers."""
    try:
        report = asyncio.run(
            ask_stun(options.server, source_ip=options.host, source_port=options.port)
        )
    except (ValueError, OSError) as error:
        complain(str(error))
        return 1
    for line in report.lines():
        say(line)
    return 0 if report.udp_works else 1


def doctor(options: argparse.Namespace) -> int:
    """Run all checks; fail if one of them does."""
    found = find(options.name)
    checks = asyncio.run(_all(found))
    if options.json:
        say_json([check._asdict() for check in checks])
    else:
        for check in checks:
            say(f"{check.verdict:<8} {check.name}: {check.found}")
            if check.advice:
                say(f"{'':<8} -> {check.advice}")
    return int(any(check.verdict == "failed" for check in checks))


async def _all(found: Found) -> list[Check]:
    return [check async for check in run_checks(found)]


async def run_checks(found: Found) -> AsyncIterator[Check]:
    """Yield what every check found; a check that breaks has failed."""
    yield Check(
        "versions",
        "ok",
        f"proxystore-core {__version__}, Python {platform.python_version()}, {platform.platform()}",
    )
    yield _tried("files", _files, found)
    yield _tried("runtime directory", _runtime, found)
    yield _tried("memory", _memory, found)
    try:
        told = _ask_daemon(found)
    except ProxyStoreError as error:
        told = None
        yield Check("daemon", "failed", str(error), "Restart it; its log says more.")
    else:
        yield _daemon(found, told)
    if not found.config.peering.enabled:
        yield Check("peers", "ok", "none wanted (peering.enabled = false)")
        return
    direct, tcp = await _tcp(found, told)
    yield direct
    nat, report = await _udp(found)
    yield nat
    relay = await _relay(found, told)
    yield relay
    yield _summary(found, tcp, report, relay)
    for peer in (told or {}).get("peers", ()):
        yield _peer(peer)


def _tried(name: str, check: Any, found: Found) -> Check:
    try:
        made: Check = check(found)
    except (ProxyStoreError, OSError) as error:
        return Check(name, "failed", str(error))
    return made


def _files(found: Found) -> Check:
    identity = Identity.load(found.directory / ENDPOINT_IDENTITY_FILE)
    if str(identity.uuid) != found.config.uuid:
        return Check(
            "files",
            "failed",
            f"the key is that of {identity.uuid}, the configuration {found.config.uuid}'s",
            "Copy both files of an endpoint, or none.",
        )
    read_token(found.directory)
    wide = [
        str(path)
        for path in (found.directory, found.directory / ENDPOINT_CONFIG_FILE)
        if path.stat().st_mode & 0o022
    ]
    if wide:
        advice = f"Close it with: chmod go-w {' '.join(wide)}"
        return Check("files", "failed", f"others may change {', '.join(wide)}", advice)
    names = f"{ENDPOINT_IDENTITY_FILE} and {ENDPOINT_TOKEN_FILE}"
    return Check("files", "ok", f"{found.directory}; only this user may read {names}")


def _runtime(found: Found) -> Check:
    directory = make_runtime_dir(found.config.uuid)
    return Check("runtime directory", "ok", f"{directory}, of this user alone")


def _memory(found: Found) -> Check:
    base = Path(os.environ.get("PROXYSTORE_SHM_ROOT") or "/dev/shm")  # noqa: S108 - looked at only
    while not base.is_dir():
        base = base.parent
    status = os.statvfs(base)
    free = status.f_bavail * status.f_frsize
    text = f"{bytes_to_readable(free, 1)} free in {base}"
    if free < _SMALL:
        return Check(
            "memory",
            "warning",
            text,
            "Large objects will go to disk. In a container, start it with --shm-size=8g.",
        )
    return Check("memory", "ok", text)


def _ask_daemon(found: Found) -> dict[str, Any] | None:
    if running_of(found) is None:
        return None
    with connect(found) as client:
        return client.status()


def _daemon(found: Found, told: dict[str, Any] | None) -> Check:
    if told is None:
        start = f"Start it: proxystore-endpoint start {found.config.name}"
        return Check("daemon", "warning", "it does not run", start)
    return Check("daemon", "ok", f"process {told['pid']} serves at {told['url']}")


async def _tcp(found: Found, told: dict[str, Any] | None) -> tuple[Check, bool]:
    """Look at direct ways to this endpoint; tell whether there is one, as far as is known."""
    peering = found.config.peering
    if told is None:
        addresses = own_addresses(peering.host, peering.port) if peering.port else []
        if not addresses:
            return Check("direct TCP", "warning", "the port is chosen at each start"), True
        free = _is_free(peering.host, peering.port)
        text = f"would listen on {', '.join(addresses)}"
        if not free:
            advice = "Another port will be used; change peering.port."
            return Check("direct TCP", "warning", f"{text}, but the port is taken", advice), True
        return Check("direct TCP", "ok", text), True
    addresses = told["addresses"]
    results = await asyncio.gather(*(_reaches(address) for address in addresses))
    good = [address for address, error in zip(addresses, results, strict=True) if not error]
    bad = [f"{a} ({error})" for a, error in zip(addresses, results, strict=True) if error]
    if not good:
        check = Check(
            "direct TCP",
            "warning",
            f"this machine does not reach {', '.join(bad) or 'any address of its own'}",
            "See peering.host, peering.port and peering.advertise in config.toml, and the "
            "firewall. (A router may also not lead its own address back inside.)",
        )
        return check, False
    public = [address for address in good if _is_public(address)]
    where = "from everywhere, unless a firewall is between" if public else "from this network"
    check = Check(
        "direct TCP",
        "warning" if bad else "ok",
        f"peers connect {where}: {', '.join(good)}" + (f"; not {', '.join(bad)}" if bad else ""),
        ""
        if public
        else "Peers at other sites need an open port (peering.advertise), hole punching, or a "
        "relay. It suffices that one of two peers is reachable.",
    )
    return check, True


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def _reaches(address: str) -> str:
    """Connect to an address; return why it does not work, or nothing."""
    try:
        host, port = split_address(address)
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(split_address(address)[0]).is_global
    except ValueError:
        return True  # a name, which somebody has written down


async def _udp(found: Found) -> tuple[Check, NatReport | None]:
    servers = found.config.relay.ice_servers
    if not found.config.peering.webrtc:
        return Check("UDP", "ok", "not wanted (peering.webrtc = false)"), None
    urls = None
    if servers is not None:
        listed = [[s.urls] if isinstance(s.urls, str) else s.urls for s in servers]
        urls = [url for some in listed for url in some if url.startswith("stun:")]
        if not urls:
            text = "no STUN servers are configured: hole punching works within a network only"
            return Check("UDP", "warning", text), None
    try:
        report = await ask_stun(urls)
    except (ValueError, OSError) as error:
        return Check("UDP", "failed", str(error), "See relay.ice_servers in config.toml."), None
    text = "; ".join(" ".join(line.split()) for line in report.lines())
    if report.hole_punching:
        return Check("UDP", "ok", text), report
    return (
        Check("UDP", "warning", text, "Use a relay, or a TURN server, or open a TCP port."),
        report,
    )


async def _relay(found: Found, told: dict[str, Any] | None) -> Check:
    relay = found.config.relay
    daemon = (told or {}).get("relay")
    if daemon is not None:
        address = daemon["address"]
        if daemon["connected"]:
            rtt = "" if daemon["rtt"] is None else f", round trip {daemon['rtt'] * 1e3:.1f} ms"
            return Check("relay", "ok", f"registered at {address}{rtt}")
        return Check("relay", "failed", daemon["error"] or f"{address} does not answer", _RELAY)
    if relay.address is None:
        return Check(
            "relay",
            "warning",
            "none is configured",
            "Peers that cannot reach each other directly need one: relay.address in config.toml, "
            "and `proxystore-relay` runs one.",
        )
    client = RelayClient(
        relay.address,
        Identity.generate(),  # with its own it would take the place of a daemon elsewhere
        auth=make_credentials(relay.auth.method, relay.auth.kwargs),
        ssl_context=relay_context(found.config),
    )
    async with client:
        deadline = asyncio.get_running_loop().time() + _RELAY_S
        while client.last_error is None and asyncio.get_running_loop().time() < deadline:
            if await client.wait_connected(_LOOK_S):
                break
        if client.connected:
            return Check("relay", "ok", f"{relay.address} lets endpoints of this user register")
        return Check("relay", "failed", str(client.last_error or "no answer"), _RELAY)


_RELAY = "See relay.address and relay.auth in config.toml; direct paths work without it."


def _summary(found: Found, tcp: bool, nat: NatReport | None, relay: Check) -> Check:
    """Say which paths work, in one line."""
    has_relay = relay.verdict == "ok"
    punching = nat is not None and nat.hole_punching
    works = [
        *(["tcp"] if tcp else []),
        *(["webrtc"] if found.config.peering.webrtc and punching and has_relay else []),
        *(["relay"] if has_relay else []),
    ]
    why = []
    if "webrtc" not in works:
        if not found.config.peering.webrtc:
            why.append("webrtc: switched off")
        elif not has_relay:
            why.append("webrtc: needs a relay to arrange it")
        else:
            why.append("webrtc: hole punching is unlikely behind this NAT")
    if not has_relay:
        why.append("relay: none" if relay.verdict == "warning" else "relay: not reached")
    text = f"{', '.join(works) or 'none'}" + (f" ({'; '.join(why)})" if why else "")
    if has_relay:
        return Check("paths", "ok", f"{text}: every peer at this relay can be reached")
    return Check("paths", "warning" if works else "failed", f"{text}: not every peer is reached")


def _peer(peer: dict[str, Any]) -> Check:
    name = f"peer {peer['name'] or peer['uuid']}"
    tried = "; ".join(f"{kind}: {how}" for kind, how in peer["paths"].items())
    if peer["path"]:
        return Check(name, "ok", f"connected by {peer['path']} ({tried})")
    return Check(name, "warning", f"not connected ({tried or 'nothing was tried yet'})")
