"""Which paths to peers work from here, one by one."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from proxystore_core.cli._doctor import Check
from proxystore_endpoint.cli._find import Found
from proxystore_endpoint.config import split_address
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.nat import NatReport
from proxystore_endpoint.nat import check_nat as ask_stun
from proxystore_endpoint.relay.auth import make_credentials
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.service import relay_context
from proxystore_endpoint.transports.tcp import own_addresses

_CONNECT_S = 3.0
_RELAY_S = 8.0
_LOOK_S = 0.1


async def check_tcp(found: Found, told: dict[str, Any] | None) -> tuple[Check, bool]:
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


async def check_udp(found: Found) -> tuple[Check, NatReport | None]:
    """Look at UDP and the NAT, as far as STUN servers tell."""
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


async def check_relay(found: Found, told: dict[str, Any] | None) -> Check:
    """Look at the relay; where a daemon runs, it knows."""
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


def check_summary(found: Found, tcp: bool, nat: NatReport | None, relay: Check) -> Check:
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


def check_peer(peer: dict[str, Any]) -> Check:
    """Say how a peer of a running daemon is connected."""
    name = f"peer {peer['name'] or peer['uuid']}"
    tried = "; ".join(f"{kind}: {how}" for kind, how in peer["paths"].items())
    if peer["path"]:
        return Check(name, "ok", f"connected by {peer['path']} ({tried})")
    return Check(name, "warning", f"not connected ({tried or 'nothing was tried yet'})")
