"""WebRTC and the NAT check between real NATs, in network namespaces.

Needs root, or user namespaces, and iptables; without them it fails and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks._webrtc_peer import OURS, Ends
from tests.endpoint.nat_lab import KINDS, STUN_URL, Kind, NatLab

SITES: dict[str, Kind] = {f"{side}-{kind}": kind for side in "ab" for kind in KINDS}
PUNCHABLE = [("cone", "cone"), ("open", "cone"), ("symmetric", "open")]
CHECK = f"""
import asyncio
from proxystore_endpoint.nat import check_nat
report = asyncio.run(check_nat([{STUN_URL!r}], timeout=1.0))
print(report.mapping.name, report.filtering.name, report.udp_works, report.external)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with NatLab(SITES) as made:
        made.start_stun()
        yield made


@pytest.fixture(scope="module")
def lab_without_udp() -> Iterator[NatLab]:
    with NatLab(SITES, udp=False) as made:
        made.start_stun()
        yield made


@pytest.mark.parametrize(
    ("kind", "mapping", "filtering"),
    [
        ("open", "NONE", "ENDPOINT_INDEPENDENT"),
        ("cone", "ENDPOINT_INDEPENDENT", "ADDRESS_AND_PORT_DEPENDENT"),
        ("symmetric", "ADDRESS_AND_PORT_DEPENDENT", "ADDRESS_AND_PORT_DEPENDENT"),
    ],
)
def test_check_nat_tells_each_kind(lab: NatLab, kind: str, mapping: str, filtering: str) -> None:
    told = lab.hosts[f"a-{kind}"].run(sys.executable, "-c", CHECK)
    assert told.startswith(f"{mapping} {filtering} True ('203.0.113.")


@pytest.mark.parametrize("kind", KINDS)
def test_check_nat_tells_that_udp_is_blocked(lab_without_udp: NatLab, kind: str) -> None:
    told = lab_without_udp.hosts[f"a-{kind}"].run(sys.executable, "-c", CHECK)
    assert told == "UNKNOWN UNKNOWN False None\n"


@pytest.mark.parametrize(("here", "there"), PUNCHABLE)
def test_webrtc_gets_through(lab: NatLab, here: str, there: str) -> None:
    hosts = lab.hosts[f"a-{here}"], lab.hosts[f"b-{there}"]
    with Ends(*hosts, OURS, [STUN_URL]) as ends:
        assert ends.connected is not None, ends.error
        ends.carry(300_000)
        assert ends.close() == [0, 0]
