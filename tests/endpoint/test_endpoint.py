"""Two sites, as their users see them: commands, proxies, and real daemons between."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxystore_endpoint.config import write_config
from proxystore_endpoint.exceptions import PeerRefusedError, PeerUnreachableError

from tests.conftest import wait_until
from tests.endpoint.homes import Home, homes

PRODUCE = """
import pickle, sys
import numpy as np
from proxystore_core.store import Store
from proxystore_endpoint.connector import EndpointConnector
store = Store("sites", EndpointConnector(sys.argv[2:]))
data = np.random.default_rng(7).bytes(30_000_000)
proxies = [store.proxy(data), store.proxy({"small": [1, 2, 3]})]
with open(sys.argv[1], "wb") as file:
    pickle.dump(proxies, file)
store.close()
"""
CONSUME = """
import hashlib, pickle, sys
from proxystore_core.proxy import resolve
from proxystore_core.store import get_store
with open(sys.argv[1], "rb") as file:
    large, small = pickle.load(file)
resolve(large)
store = get_store(large)
print(store.connector.endpoint_uuid)
print(hashlib.sha256(bytes(large)).hexdigest())
print(small["small"])
store.close()
"""


def digest() -> str:
    np = pytest.importorskip("numpy")  # part of what tests install
    return hashlib.sha256(np.random.default_rng(7).bytes(30_000_000)).hexdigest()


@pytest.fixture
def sites() -> Iterator[list[Home]]:
    with homes(2) as two:
        yield two


def carry(here: Home, there: Home, first: str, second: str) -> None:
    """Make proxies here, resolve them there, in processes that know only their own home."""
    path = str(here.path / "proxies")
    here.python(PRODUCE, path, first, second)
    used, seen, small = there.python(CONSUME, path).splitlines()
    assert used == second
    assert seen == digest()
    assert small == "[1, 2, 3]"


@contextmanager
def relay(*options: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("proxystore-relay")), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port), *options], stderr=subprocess.DEVNULL)

    def up() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    try:
        assert wait_until(up, 20)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def cut_direct_ways(home: Home, name: str, *, webrtc: bool = False) -> None:
    """Let an endpoint tell everybody an address that leads nowhere."""
    config = home.config(name)
    config.peering.advertise = ["127.0.0.1:9"]
    config.peering.webrtc = webrtc
    write_config(config, home.directory(name))


class TestTwoSites:
    def test_by_ticket(self, sites: list[Home]) -> None:
        """Two commands a site: configure and start; then one each to connect."""
        here, there = sites
        for home, name in ((here, "a"), (there, "b")):
            home.command("configure", name, "--peer-host", "127.0.0.1", "--ice-server", "none")
            home.command("start", name)
        a, b = here.config("a").uuid, there.config("b").uuid
        ticket = here.command("share").strip()
        assert "Connected, by tcp." in there.command("accept", ticket)
        carry(here, there, a, b)
        carry(there, here, b, a)  # what `accept` allows in return
        told = there.json("status", "b")
        (peer,) = told["peers"]
        assert (peer["uuid"], peer["path"]) == (a, "tcp")
        assert peer["bytes_received"] > 30_000_000
        assert told["counters"]["fetched"] == 2

    def test_ticket_before_anything_runs(self, sites: list[Home]) -> None:
        here, there = sites
        a, b = here.make("a", start=False), there.make("b", start=False)
        there.run("accept", here.run("share").strip())
        there.run("start")
        here.run("start")
        carry(here, there, a, b)

    def test_strangers_get_nothing(self, sites: list[Home]) -> None:
        here, there = sites
        a, b = here.make("a"), there.make("b")
        address = here.json("status", "a")["addresses"][0]
        there.run("grant", "b", a, "--address", address)  # b would let a in, not a b
        with here.client("a") as mine, there.client("b") as stranger:
            mine.put("secret", b"secret")
            for ask in (stranger.get, stranger.exists, stranger.evict, stranger.stat):
                with pytest.raises((PeerRefusedError, PeerUnreachableError)):
                    ask("secret", a)
            assert bytes(mine.get("secret") or b"") == b"secret"
        assert b not in here.run("grants", "a")

    def test_rights(self, sites: list[Home]) -> None:
        here, there = sites
        a, b = here.make("a"), there.make("b")
        there.run("accept", "b", here.run("share", "a", "--rights", "read").strip())
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"x")
            assert bytes(other.get("k", a) or b"") == b"x"
            with pytest.raises(PeerRefusedError, match="no right to write"):
                other.evict("k", a)
            with pytest.raises(PeerRefusedError, match="no right to write"):
                other.put("new", b"y", a)
            assert mine.exists("k")
            here.run("grant", "a", b, "--rights", "read,write")
            assert wait_until(lambda: evicted(other, "k", a), 10)
            assert not mine.exists("k")
            other.put("new", b"y", a)
            assert bytes(mine.get("new") or b"") == b"y"
            here.run("revoke", "a", b)

            def revoked() -> bool:
                try:
                    other.get("new", a)
                except (PeerRefusedError, PeerUnreachableError):
                    return True
                return False

            assert wait_until(revoked, 10)

    def test_group(self, sites: list[Home]) -> None:
        here, there = sites
        a, b = here.make("a"), there.make("b")
        owner = there.make("lab", start=False)
        address = here.json("status", "a")["addresses"][0]
        here.run("grant", "a", owner, "--group", "--rights", "read")
        there.run("membership", "add", "b", there.run("membership", "issue", "lab", b).strip())
        there.run("grant", "b", a, "--rights", "none", "--address", address)
        with here.client("a") as mine, there.client("b") as member:
            mine.put("k", b"x")
            assert bytes(member.get("k", a) or b"") == b"x"

    def test_a_peer_that_is_gone(self, sites: list[Home]) -> None:
        here, there = sites
        a = here.make("a")
        there.make("b")
        there.run("accept", "b", here.run("share", "a").strip())
        with there.client("b") as other:
            assert other.get("never", a) is None
            os.kill(here.running("a").pid, signal.SIGKILL)
            with pytest.raises((PeerUnreachableError, ConnectionError)):
                other.get("k", a, timeout=20)
            other.put("mine", b"x")
            assert bytes(other.get("mine") or b"") == b"x"


def evicted(client: object, key: str, owner: str) -> bool:
    try:
        client.evict(key, owner)  # type: ignore[attr-defined]  # an EndpointClient
    except PeerRefusedError:
        return False
    return True


class TestRelay:
    def test_only_way(self, sites: list[Home]) -> None:
        here, there = sites
        with relay() as address:
            a = here.make("a", "--relay-address", address, start=False)
            b = there.make("b", "--relay-server", address, start=False)
            for home, name in ((here, "a"), (there, "b")):
                cut_direct_ways(home, name)
                home.run("start", name)
            said = there.run("accept", "b", here.run("share", "a").strip())
            assert "Connected, by relay." in said
            carry(here, there, a, b)
            assert there.json("status", "b")["relay"]["connected"]
            said = there.run("doctor", "b")
            assert "registered at" in said
            assert "this machine does not reach 127.0.0.1:9 (refused)" in said
            assert "paths: relay (webrtc: switched off)" in said

    def test_taken_from_the_ticket(self, sites: list[Home]) -> None:
        here, there = sites
        with relay() as address:
            a = here.make("a", "--relay-address", address, start=False)
            cut_direct_ways(here, "a")
            here.run("start", "a")
            b = there.make("b", start=False)
            cut_direct_ways(there, "b")
            there.run("start", "b")
            said = there.run("accept", "b", here.run("share", "a").strip())
            assert "Connected, by relay." in said
            carry(here, there, a, b)

    def test_absent(self, sites: list[Home]) -> None:
        """A relay that is not there delays nothing and ends nothing."""
        here, there = sites
        a = here.make("a", "--relay-address", "ws://127.0.0.1:9")
        b = there.make("b", "--relay-address", "ws://127.0.0.1:9")
        there.run("accept", "b", here.run("share", "a").strip())
        carry(here, there, a, b)
        assert "not connected" in there.run("status", "b")

    def test_secret(self, sites: list[Home]) -> None:
        here, there = sites
        secret = here.path / "secret"
        secret.write_text("a secret of enough bytes")
        secret.chmod(0o600)
        with relay("--auth", "secret", "--secret-file", str(secret)) as address:
            here.make("a", "--relay-address", address, "--relay-secret-file", str(secret))
            there.make("b", "--relay-address", address)
            assert wait_until(lambda: here.json("status", "a")["relay"]["connected"], 15)
            assert not there.json("status", "b")["relay"]["connected"]
            assert "relay.auth" in there.run("status", "b")
