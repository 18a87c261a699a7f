"""Two endpoints behind any NATs connect, and by the best path that there is."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import EndpointError
from proxystore_endpoint.storage.names import new_key

from tests.conftest import wait_until
from tests.endpoint.lab_endpoints import LabEndpoints, running
from tests.endpoint.nat_lab import KINDS, Kind, NatLab

CONNECT = 5.0  # seconds in which any pair has to be connected
UPGRADE = 20.0  # seconds in which the best path is found
BACK = 30.0  # seconds in which all is well again once the relay is back
SITES: dict[str, Kind] = {f"{side}-{kind}": kind for side in "ab" for kind in KINDS}
NO_UDP: dict[str, Kind] = {"a-open": "open", "a-cone": "cone", "b-cone": "cone"}


def best_path(*kinds: str, udp: bool = True) -> str:
    if "open" in kinds:  # that side is reachable, whichever of both dials
        return "tcp"
    return "webrtc" if udp and kinds == ("cone", "cone") else "relay"


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabEndpoints]:
    with NatLab(SITES) as lab:
        lab.start_stun()
        with running(lab, tmp_path_factory.mktemp("lab")) as made:
            yield made


@pytest.fixture(scope="module")
def endpoints_without_udp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabEndpoints]:
    with NatLab(NO_UDP, udp=False) as lab:
        lab.start_stun()
        with running(lab, tmp_path_factory.mktemp("lab")) as made:
            yield made


def fetch(
    endpoints: LabEndpoints,
    here: str,
    there: str,
    nbytes: int = 200_000,
    *,
    timeout: float = CONNECT,
) -> None:
    """Let one endpoint fetch a new object from another."""
    key, data = new_key(), os.urandom(nbytes)
    endpoints.clients[there].put(key, [data])
    got = endpoints.clients[here].get(key, endpoints.ids[there], timeout=timeout)
    assert got is not None
    assert bytes(got) == data


def check(
    endpoints: LabEndpoints, here: str, there: str, path: str, *, connect: float = CONNECT
) -> None:
    fetch(endpoints, here, there, timeout=connect)
    found = wait_until(lambda: endpoints.peer(here, there).get("path") == path, UPGRADE)
    assert found, endpoints.peer(here, there)
    fetch(endpoints, here, there, 2_000_000, timeout=60.0)
    assert endpoints.peer(here, there)["path"] == path


@pytest.mark.parametrize(("here", "there"), list(itertools.product(KINDS, KINDS)))
def test_every_pair_connects_by_its_best_path(
    endpoints: LabEndpoints, here: Kind, there: Kind
) -> None:
    check(endpoints, f"a-{here}", f"b-{there}", best_path(here, there))


@pytest.mark.parametrize(("here", "there"), list(itertools.permutations(NO_UDP, 2)))
def test_without_udp_there_is_tcp_or_the_relay(
    endpoints_without_udp: LabEndpoints, here: str, there: str
) -> None:
    path = best_path(NO_UDP[here], NO_UDP[there], udp=False)
    check(endpoints_without_udp, here, there, path)


def test_tcp_from_both_sides_needs_no_udp(tmp_path: Path) -> None:
    sites: dict[str, Kind] = {"a-cone": "cone", "b-cone": "cone"}
    with NatLab(sites, udp=False, punch=True) as lab, running(lab, tmp_path) as endpoints:
        check(endpoints, "a-cone", "b-cone", "tcp")
        check(endpoints, "b-cone", "a-cone", "tcp")
        assert endpoints.peer("a-cone", "b-cone")["paths"]["punch"] == "connected"


def test_live_links_outlive_the_relay(endpoints: LabEndpoints) -> None:
    """After all pairs are connected: the relay dies, and comes back."""
    check(endpoints, "a-cone", "b-cone", "webrtc")
    check(endpoints, "a-open", "b-cone", "tcp")
    endpoints.kill_relay()
    fetch(endpoints, "a-cone", "b-cone")
    fetch(endpoints, "a-open", "b-cone")
    endpoints.start_relay()

    def relayed() -> bool:
        try:
            fetch(endpoints, "a-symmetric", "b-symmetric")
        except EndpointError:
            return False
        return True

    assert wait_until(relayed, BACK)
    for name, client in endpoints.clients.items():
        assert client.status()["uuid"] == endpoints.ids[name]
    endpoints.kill_relay()  # started in this test, so it ends here


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_pair_connects_though_packets_get_lost(tmp_path: Path) -> None:
    with NatLab(SITES, loss=0.01) as lab:
        lab.start_stun()
        with running(lab, tmp_path) as endpoints:
            for here, there in itertools.product(KINDS, KINDS):
                path = best_path(here, there)
                check(endpoints, f"a-{here}", f"b-{there}", path, connect=15.0)
