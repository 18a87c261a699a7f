"""Workers of another site: what is large goes from endpoint to endpoint, the rest by the cloud."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from proxystore_endpoint.connector import EndpointConnector
from proxystore_globus_compute import ProxyExecutor

from examples.compute_stack.stack import Stack
from proxystore_core.proxy import is_proxy, is_resolved
from proxystore_core.store import Store
from tests.conftest import wait_until
from tests.endpoint.homes import Home, homes
from tests.integrations.globus_kit import PATIENCE, portable

pytest_plugins = ["tests.integrations.globus_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the endpoint runs on Linux only")

MB = 1_000_000


class Sites(NamedTuple):
    """Two sites that know each other."""

    here: Home
    there: Home
    uuids: list[str]

    def objects(self) -> list[int]:
        """Count what the endpoints store, copies of the other's not counted."""
        found = ((self.here, "here"), (self.there, "there"))
        return [home.json("status", name)["storage"]["objects"] for home, name in found]


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """Start an endpoint at each of two sites, connected as two people would."""
    with homes(2) as (here, there):
        uuids = [here.make("here"), there.make("there")]
        ticket = there.run("share", "there", "--rights", "read,write").split()[0]
        here.run("accept", "here", ticket, "--rights", "read,write")
        yield Sites(here, there, uuids)


@pytest.fixture
def store(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store[Any]]:
    """Make a store of the client's site, which is empty at the end, as is the other."""
    for name in ("PROXYSTORE_HOME", "PROXYSTORE_RUNTIME_DIR"):
        monkeypatch.setenv(name, sites.here.env[name])
    with Store("sites", EndpointConnector(sites.uuids), cache_size=0) as made:
        yield made
        assert wait_until(lambda: sites.objects() == [0, 0], 20.0), sites.objects()


@pytest.fixture(scope="module")
def remote(stack: Stack, sites: Sites) -> Iterator[str]:
    """Start a Globus Compute endpoint at the other site."""
    names = ("PROXYSTORE_HOME", "PROXYSTORE_RUNTIME_DIR")
    endpoint = stack.user_endpoint("htex", environment={n: sites.there.env[n] for n in names})
    yield endpoint.id
    endpoint.close()


@portable
def doubled(array: Any) -> Any:
    return array * 2


@portable
def total(array: Any) -> float:
    return float(array.sum())


def test_large_objects_go_from_site_to_site(
    stack: Stack, store: Store[Any], sites: Sites, remote: str
) -> None:
    array = np.arange(20 * MB / 8)
    before = stack.traffic()
    with stack.executor(remote, ProxyExecutor, store=store) as executor:
        result = executor.submit(doubled, array).result(PATIENCE)
        assert is_proxy(result)
        assert executor.submit(total, result).result(PATIENCE) == float(array.sum()) * 2
        assert not is_resolved(result), "it stayed at the other site"
        np.testing.assert_array_equal(result, array * 2)
        del result
    after = stack.traffic()
    assert after.task_bytes - before.task_bytes < MB
    assert after.result_bytes - before.result_bytes < MB
    (peer,) = sites.there.json("status", "there")["peers"]
    assert peer["bytes_received"] >= array.nbytes
    assert peer["bytes_sent"] >= array.nbytes
