"""What kind of NAT this host is behind, as far as STUN servers can tell: `check-nat`, `doctor`.

In the terms of RFC 5780 (and RFC 4787) a NAT has two properties that have nothing to do
with each other. Its *mapping* says whether all destinations see the same address of ours: only
then can a peer be told where to send, and holes can be punched. Its *filtering* says who may
send to that address unasked. Mapping is seen with any two servers at different addresses;
filtering only with a server that answers from a second address (OTHER-ADDRESS), which few
public ones do. What was not seen is `UNKNOWN`: a "full cone" is claimed only if an unasked packet
came through.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from proxystore_endpoint.stun import Address, Answer, StunSocket, parse_url, resolve

PUBLIC_STUN_SERVERS = (
    "stun:stun.l.google.com:19302",
    "stun:stun.cloudflare.com:3478",
    "stun:stun.nextcloud.com:3478",
)
"""Asked where nothing is configured; run by different organisations."""

TIMEOUT = 3.0  # seconds for a server to answer, with repetitions
FILTER_TIMEOUT = 1.5  # the same for answers that most NATs do not let in
_ANY = "0.0.0.0"  # noqa: S104 - asks only


class Mapping(Enum):
    """How a NAT chooses the address outside (RFC 5780 section 4.3)."""

    NONE = "no NAT"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address- and port-dependent"
    DEPENDENT = "dependent on the destination"
    UNKNOWN = "unknown"


class Filtering(Enum):
    """Whose packets a NAT or firewall lets in (RFC 5780 section 4.4)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address- and port-dependent"
    UNKNOWN = "unknown"


_OLD_NAMES = {
    Filtering.ENDPOINT_INDEPENDENT: "full cone",
    Filtering.ADDRESS_DEPENDENT: "restricted cone",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "port-restricted cone",
}
_SYMMETRIC = (Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT, Mapping.DEPENDENT)


@dataclass(frozen=True)
class NatReport:
    """What was found.

    Attributes:
        mapping: How the address outside is chosen.
        filtering: Whose packets come in.
        local: Our address inside, or `None` if there is no route.
        external: Our address outside as the first server saw it; the port is that of a socket
            that is closed again.
        answers: What each server answered, `None` for nothing.
        unresolved: Servers whose names have no address.
    """

    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    local: Address | None = None
    external: Address | None = None
    answers: dict[Address, Answer | None] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()

    @property
    def udp_works(self) -> bool:
        """Whether any server answered."""
        return self.external is not None

    @property
    def hole_punching(self) -> bool | None:
        """Whether WebRTC can reach a peer behind another such NAT; `None` if unknown."""
        if not self.udp_works:
            return False
        if self.mapping is Mapping.UNKNOWN:
            return None
        return self.mapping not in _SYMMETRIC

    @property
    def old_name(self) -> str:
        """Name of RFC 3489 for it, where what was seen suffices to say so; else empty."""
        if self.mapping in _SYMMETRIC:
            return "symmetric"
        if self.mapping is Mapping.ENDPOINT_INDEPENDENT:
            return _OLD_NAMES.get(self.filtering, "")
        return ""

    def lines(self) -> list[str]:
        """Return the report for people, line by line."""
        answered = sum(answer is not None for answer in self.answers.values())
        lines = [f"STUN servers:  {answered} of {len(self.answers)} answered"]
        if self.unresolved:
            lines.append(f"               no address for {', '.join(self.unresolved)}")
        if not self.udp_works or self.external is None:
            return [*lines, f"UDP:           {self._why_silent()}"]
        old = f' (in RFC 3489 "{self.old_name}")' if self.old_name else ""
        what = self.mapping.value
        if self.mapping is Mapping.UNKNOWN and answered < 2:
            what += ": it takes two servers with different addresses"
        seen = self.filtering.value
        if self.filtering is Filtering.UNKNOWN:
            seen += ": no server here answers from a second address (RFC 5780)"
        host = self.local[0] if self.local else "unknown"
        return [
            *lines,
            f"Address:       {host} here, {self.external[0]} outside",
            f"Mapping:       {what}{old}",
            f"Filtering:     {seen}",
            f"Hole punching: {self._advice()}",
        ]

    def _why_silent(self) -> str:
        if not self.answers:
            return "not tested: no STUN server has an address here (no DNS, or none configured)"
        return (
            "blocked, or no server runs: peers connect by TCP where NATs and firewalls let them, "
            "else through the relay"
        )

    def _advice(self) -> str:
        if self.hole_punching is None:
            return "unknown"
        if self.filtering in (Filtering.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT):
            return "works with every peer that may send UDP"
        if self.hole_punching:
            return "works, except with peers whose mapping depends on the destination"
        return (
            "works only with peers that let in packets from everywhere; others are reached "
            "through the relay or a TURN server"
        )


async def check_nat(
    servers: Sequence[str] | None = None,
    *,
    timeout: float = TIMEOUT,
    source_ip: str = _ANY,
    source_port: int = 0,
) -> NatReport:
    """Find out about the NAT between this host and some STUN servers (IPv4).

    Args:
        servers: `stun:host[:port]`; by default public ones.
        timeout: Seconds for each of four phases, of which most take a round trip.
        source_ip: Local address to ask from.
        source_port: Local port; 0 for any.

    Raises:
        ValueError: A server's URL is malformed.
        OSError: The source address is not ours, or taken.
    """
    wanted = PUBLIC_STUN_SERVERS if servers is None else servers
    urls = {url: parse_url(url) for url in wanted}
    resolved = await resolve(urls.values(), timeout)
    unresolved = tuple(url for url, server in urls.items() if resolved[server] is None)
    found = list(dict.fromkeys(address for address in resolved.values() if address is not None))
    if not found:
        return NatReport(unresolved=unresolved)
    asking = await StunSocket.open(source_ip, source_port)
    try:
        got = await asyncio.gather(*(asking.ask(server, timeout) for server in found))
        answers = dict(zip(found, got, strict=True))
        host, port = asking.address
        local = (_route(found[0]) or host, port) if host == _ANY else (host, port)
        first = next((answer for answer in got if answer is not None), None)
        if first is None:
            return NatReport(local=local, answers=answers, unresolved=unresolved)
        mapping = await _mapping(asking, local, answers, timeout)
    finally:
        asking.close()
    filtering = await _filtering(answers, min(timeout, FILTER_TIMEOUT), source_ip)
    return NatReport(mapping, filtering, local, first.mapped, answers, unresolved)


async def _mapping(
    asking: StunSocket, local: Address, answers: dict[Address, Answer | None], timeout: float
) -> Mapping:
    """Compare what servers see of one socket, first those given, then their other addresses."""
    seen = {server: answer.mapped for server, answer in answers.items() if answer is not None}
    if set(seen.values()) == {local}:
        return Mapping.NONE
    for (host, port), answer in answers.items():
        if answer is None or answer.other is None or answer.other[0] == host:
            continue
        first, second = await asyncio.gather(
            asking.ask((answer.other[0], port), timeout), asking.ask(answer.other, timeout)
        )
        if first is None or second is None:
            continue
        if first.mapped == second.mapped != answer.mapped:
            return Mapping.ADDRESS_DEPENDENT
        if first.mapped != second.mapped:
            return Mapping.ADDRESS_AND_PORT_DEPENDENT
        seen[answer.other] = second.mapped
    if len(set(seen.values())) > 1:
        return Mapping.DEPENDENT
    if len({host for host, _ in seen}) > 1:
        return Mapping.ENDPOINT_INDEPENDENT
    return Mapping.UNKNOWN


async def _filtering(
    answers: dict[Address, Answer | None], timeout: float, source_ip: str
) -> Filtering:
    """Ask a server to answer from where nothing was sent to, with a socket that is new."""
    for server, answer in answers.items():
        if answer is None or answer.other is None or answer.other[0] == server[0]:
            continue
        asking = await StunSocket.open(source_ip)
        try:
            if await asking.ask(server, timeout) is None:
                continue
            whole, port = await asyncio.gather(
                asking.ask(server, timeout, change_ip=True, change_port=True),
                asking.ask(server, timeout, change_port=True),
            )
        finally:
            asking.close()
        if whole is not None and whole.source[0] != server[0]:
            return Filtering.ENDPOINT_INDEPENDENT
        if port is not None and port.source[1] != server[1]:
            return Filtering.ADDRESS_DEPENDENT
        if whole is None and port is None:
            return Filtering.ADDRESS_AND_PORT_DEPENDENT
    return Filtering.UNKNOWN


def _route(server: Address) -> str | None:
    """Return the local address that packets to a server leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(server)  # sends nothing, but asks for the route
        except OSError:
            return None
        return str(probe.getsockname()[0])
