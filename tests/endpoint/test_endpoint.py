"""Two sites, as their users see them: commands, proxies, and real daemons between."""

from __future__ import annotations

import concurrent.futures
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
from uuid import uuid4

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
        a, b = here.make("a"), there.make("b")
        ticket = here.run("share", "a").strip()
        assert "Connected, by tcp." in there.run("accept", "b", ticket)
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


class TestCopies:
    """An object of a peer is fetched once, whoever waits for it, and never out of date."""

    @pytest.fixture
    def pair(self, sites: list[Home]) -> tuple[Home, Home, str]:
        here, there = sites
        a = here.make("a")
        there.make("b")
        there.run("accept", "b", here.run("share", "a", "--rights", "read,write").strip())
        return here, there, a

    def test_one_transfer(self, pair: tuple[Home, Home, str]) -> None:
        here, there, a = pair
        key, data = str(uuid4()), os.urandom(1_000_000) * 60
        with here.client("a") as mine, there.client("b") as other:
            mine.put(key, data)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for got in pool.map(lambda _: other.get(key, a), range(8)):
                    assert got == data
            counters = other.status()["counters"]
            assert counters["fetched"] == 1
            assert counters["shared"] + counters["copies"] == 7
            assert other.status()["storage"]["copies"] == 1

    def test_out_of_date(self, pair: tuple[Home, Home, str]) -> None:
        here, there, a = pair
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"first")
            assert bytes(other.get("k", a) or b"") == b"first"
            mine.put("k", b"other")
            assert bytes(other.get("k", a) or b"") == b"other"
            mine.evict("k")
            assert other.get("k", a) is None
            assert other.status()["storage"]["copies"] == 0

    def test_out_of_date_without_a_digest(self, pair: tuple[Home, Home, str]) -> None:
        """What local processes put has no digest, and may be replaced by as many bytes."""
        here, there, a = pair
        code = """
import sys
from proxystore_endpoint.connector import EndpointConnector, EndpointKey
with EndpointConnector([sys.argv[1]]) as connector:
    connector.set(EndpointKey("k", sys.argv[1]), sys.argv[2].encode() * 500_000)
"""
        with there.client("b") as other:
            here.python(code, a, "1")
            assert bytes(other.get("k", a) or b"") == b"1" * 500_000
            assert bytes(other.get("k", a) or b"") == b"1" * 500_000
            assert other.status()["counters"]["fetched"] == 1
            here.python(code, a, "2")
            assert bytes(other.get("k", a) or b"") == b"2" * 500_000
            assert other.status()["counters"]["fetched"] == 2

    def test_changed_from_afar(self, pair: tuple[Home, Home, str]) -> None:
        here, there, a = pair
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"first")
            assert bytes(other.get("k", a) or b"") == b"first"
            other.put("k", b"other", a)
            assert bytes(mine.get("k") or b"") == b"other"
            assert bytes(other.get("k", a) or b"") == b"other"
            other.evict("k", a)
            assert mine.get("k") is None
            assert other.get("k", a) is None

    def test_not_mixed_up(self, pair: tuple[Home, Home, str]) -> None:
        """The same key at two endpoints is two objects."""
        here, there, a = pair
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"of a")
            other.put("k", b"of b")
            assert bytes(other.get("k", a) or b"") == b"of a"
            assert bytes(other.get("k") or b"") == b"of b"
            other.evict("k")
            assert bytes(other.get("k", a) or b"") == b"of a"

    def test_expiry_travels(self, pair: tuple[Home, Home, str]) -> None:
        here, there, a = pair
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"x", ttl=1.0)
            info = other.stat("k", a)
            assert info is not None
            assert info.expires_in is not None
            assert info.expires_in <= 1.0
            assert wait_until(lambda: other.get("k", a) is None, 10)
