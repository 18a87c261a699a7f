"""What is concluded from the answers of STUN servers; real NATs are in `test_nat_lab`."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxystore_endpoint import nat
from proxystore_endpoint.nat import Filtering, Mapping, NatReport, check_nat

HERE = Path(__file__).resolve().parent
LOOPBACK = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def server() -> Iterator[str]:
    """A STUN server with a second address; both are on loopback."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "stun_server.py"), *LOOPBACK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield "stun:127.0.0.1:3478"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=10)


def test_no_nat_on_loopback(server: str) -> None:
    report = asyncio.run(check_nat([server], source_ip="127.0.0.1"))
    assert report.mapping is Mapping.NONE
    assert report.filtering is Filtering.ENDPOINT_INDEPENDENT
    assert report.local == report.external
    assert report.hole_punching is True
    assert report.old_name == ""
    assert not any("cone" in line for line in report.lines())


def test_silence_is_told_and_not_guessed() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"stun:127.0.0.1:{silent.getsockname()[1]}"
        report = asyncio.run(check_nat([url, "stun:no..name"], timeout=0.3))
    assert not report.udp_works
    assert report.hole_punching is False
    assert report.mapping is Mapping.UNKNOWN
    assert report.unresolved == ("stun:no..name",)
    text = "\n".join(report.lines())
    assert "0 of 1 answered" in text
    assert "no..name" in text
    assert "blocked" in text


def test_no_servers() -> None:
    for servers in ([], ["stun:no..name"]):
        report = asyncio.run(check_nat(servers, timeout=0.3))
        assert report.hole_punching is False
        assert "not tested" in "\n".join(report.lines())


def test_bad_url_is_told() -> None:
    with pytest.raises(ValueError, match="STUN server"):
        asyncio.run(check_nat(["turn:x"]))


Answers = Callable[[bool, bool], tuple[str, int] | None]


class Translator:
    """Servers and a NAT between, as the answers that come through.

    Args:
        outside: Gives our address outside for a destination.
        lets_in: Tells whether an answer comes in, by how it was asked for.
        rfc5780: Whether the servers have a second address.
    """

    def __init__(
        self,
        outside: Callable[[tuple[str, int]], tuple[str, int]],
        lets_in: Callable[[bool, bool], bool],
        *,
        rfc5780: bool,
    ) -> None:
        self.outside = outside
        self.lets_in = lets_in
        self.rfc5780 = rfc5780
        self.address = ("192.168.1.2", 40000)

    async def ask(
        self,
        server: tuple[str, int],
        timeout: float,
        *,
        change_ip: bool = False,
        change_port: bool = False,
    ) -> nat.Answer | None:
        if not self.lets_in(change_ip, change_port):
            return None
        source = ("203.0.113.99" if change_ip else server[0], server[1] + change_port)
        if not self.rfc5780 and (change_ip or change_port):
            source = server  # such servers ignore the wish
        other = ("203.0.113.99", 3479) if self.rfc5780 else None
        return nat.Answer(self.outside(server), other, source, 0.01)

    def close(self) -> None:
        """Nothing to close."""


SERVERS = ["stun:203.0.113.1:3478", "stun:203.0.113.2:3478"]
HERE_OUTSIDE = ("198.51.100.7", 1)

MAPPINGS = {
    Mapping.NONE: lambda _: ("192.168.1.2", 40000),
    Mapping.ENDPOINT_INDEPENDENT: lambda _: HERE_OUTSIDE,
    Mapping.ADDRESS_DEPENDENT: lambda to: (HERE_OUTSIDE[0], int(to[0].rpartition(".")[2])),
    Mapping.ADDRESS_AND_PORT_DEPENDENT: lambda to: (
        HERE_OUTSIDE[0],
        int(to[0].rpartition(".")[2]) + to[1],
    ),
}
FILTERS: dict[Filtering, Callable[[bool, bool], bool]] = {
    Filtering.ENDPOINT_INDEPENDENT: lambda ip, port: True,
    Filtering.ADDRESS_DEPENDENT: lambda ip, port: not ip,
    Filtering.ADDRESS_AND_PORT_DEPENDENT: lambda ip, port: not ip and not port,
}
OLD_NAMES = {
    Filtering.ENDPOINT_INDEPENDENT: "full cone",
    Filtering.ADDRESS_DEPENDENT: "restricted cone",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "port-restricted cone",
}


def check(monkeypatch: pytest.MonkeyPatch, translator: Translator, servers: list[str]) -> NatReport:
    async def open_socket(*_: object) -> Translator:
        return translator

    monkeypatch.setattr(nat.StunSocket, "open", open_socket)
    return asyncio.run(check_nat(servers, source_ip="192.168.1.2"))


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("filtering", FILTERS)
def test_every_kind_is_told_with_a_full_server(
    mapping: Mapping, filtering: Filtering, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator(MAPPINGS[mapping], FILTERS[filtering], rfc5780=True)
    for servers in (SERVERS, SERVERS[:1]):
        report = check(monkeypatch, translator, servers)
        assert (report.mapping, report.filtering) == (mapping, filtering)
        symmetric = mapping in (Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT)
        assert report.hole_punching is not symmetric
        old = {
            Mapping.NONE: "",
            Mapping.ENDPOINT_INDEPENDENT: OLD_NAMES[filtering],
        }.get(mapping, "symmetric")
        assert report.old_name == old
        text = "\n".join(report.lines())
        assert mapping.value in text
        assert filtering.value in text


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_plain_servers_say_nothing_of_filtering(
    mapping: Mapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator(MAPPINGS[mapping], lambda ip, port: True, rfc5780=False)
    report = check(monkeypatch, translator, SERVERS)
    symmetric = mapping in (Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT)
    assert report.mapping is (Mapping.DEPENDENT if symmetric else mapping)
    assert report.filtering is Filtering.UNKNOWN
    assert "cone" not in "\n".join(report.lines())


def test_one_plain_server_says_nothing_of_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = Translator(lambda _: HERE_OUTSIDE, lambda ip, port: True, rfc5780=False)
    report = check(monkeypatch, translator, SERVERS[:1])
    assert report.mapping is Mapping.UNKNOWN
    assert report.hole_punching is None
    text = "\n".join(report.lines())
    assert "two servers" in text
    assert "cone" not in text
