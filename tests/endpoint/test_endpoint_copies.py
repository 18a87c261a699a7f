"""An object of a peer is fetched once, whoever waits for it, and never out of date."""

from __future__ import annotations

import concurrent.futures
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from uuid import uuid4

import pytest
from proxystore_endpoint.config import write_config

from tests.conftest import wait_until
from tests.endpoint.homes import Home, homes


@pytest.fixture(autouse=True, scope="module")
def no_leaks(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """One pair for all: what it leaves is seen at the end."""
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def pair(no_leaks: None) -> Iterator[tuple[Home, Home, str]]:
    """Two endpoints, and the UUID of the first; the second may do everything there."""
    with homes(2) as (here, there):
        a = here.make("a")
        there.make("b")
        there.run("accept", "b", here.run("share", "a", "--rights", "read,write").strip())
        yield here, there, a


def test_one_transfer(pair: tuple[Home, Home, str]) -> None:
    here, there, a = pair
    key, data = str(uuid4()), os.urandom(1_000_000) * 60
    with here.client("a") as mine, there.client("b") as other:
        mine.put(key, data)
        before = other.status()["counters"]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda _: other.get(key, a), range(8)):
                assert got == data
        counters = other.status()["counters"]
        assert counters["fetched"] - before["fetched"] == 1
        assert sum(counters[name] - before[name] for name in ("shared", "copies")) == 7


def test_out_of_date(pair: tuple[Home, Home, str]) -> None:
    here, there, a = pair
    with here.client("a") as mine, there.client("b") as other:
        mine.put("k", b"first")
        assert bytes(other.get("k", a) or b"") == b"first"
        mine.put("k", b"other")
        assert bytes(other.get("k", a) or b"") == b"other"
        copies = other.status()["storage"]["copies"]
        mine.evict("k")
        assert other.get("k", a) is None
        assert other.status()["storage"]["copies"] == copies - 1


def test_out_of_date_without_a_digest(pair: tuple[Home, Home, str]) -> None:
    """What local processes put has no digest, and may be replaced by as many bytes."""
    here, there, a = pair
    code = """
import sys
from proxystore_endpoint.connector import EndpointConnector, EndpointKey
with EndpointConnector([sys.argv[1]]) as connector:
    connector.set(EndpointKey("k", sys.argv[1]), sys.argv[2].encode() * 500_000)
"""
    with there.client("b") as other:
        before = other.status()["counters"]["fetched"]
        here.python(code, a, "1")
        assert bytes(other.get("k", a) or b"") == b"1" * 500_000
        assert bytes(other.get("k", a) or b"") == b"1" * 500_000
        assert other.status()["counters"]["fetched"] == before + 1
        here.python(code, a, "2")
        assert bytes(other.get("k", a) or b"") == b"2" * 500_000
        assert other.status()["counters"]["fetched"] == before + 2


def test_changed_from_afar(pair: tuple[Home, Home, str]) -> None:
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


def test_not_mixed_up(pair: tuple[Home, Home, str]) -> None:
    """The same key at two endpoints is two objects."""
    here, there, a = pair
    with here.client("a") as mine, there.client("b") as other:
        mine.put("k", b"of a")
        other.put("k", b"of b")
        assert bytes(other.get("k", a) or b"") == b"of a"
        assert bytes(other.get("k") or b"") == b"of b"
        other.evict("k")
        assert bytes(other.get("k", a) or b"") == b"of a"


def test_expiry_travels(pair: tuple[Home, Home, str]) -> None:
    here, there, a = pair
    with here.client("a") as mine, there.client("b") as other:
        mine.put("k", b"x", ttl=1.0)
        info = other.stat("k", a)
        assert info is not None
        assert info.expires_in is not None
        assert info.expires_in <= 1.0
        assert wait_until(lambda: other.get("k", a) is None, 10)


def test_abandoned(pair: tuple[Home, Home, str]) -> None:
    """When nobody waits any more the transfer ends, and gives its memory back."""
    here, there, a = pair
    with here.client("a") as mine, there.client("b") as other:
        mine.put("large", [bytes(1 << 20)] * 200)
        address = there.running("b").url.removeprefix("http://").split(":")
        token = (there.directory("b") / "token").read_text().strip()
        request = f"GET /objects/large?endpoint={a} HTTP/1.1\r\nHost: localhost\r\n"
        for _ in range(3):
            with socket.create_connection((address[0], int(address[1]))) as sock:
                sock.sendall(f"{request}Authorization: Bearer {token}\r\n\r\n".encode())
        assert wait_until(lambda: other.status()["transfers"] == 0)
        assert wait_until(lambda: other.status()["storage"]["in_flight"] == 0)
        assert len(other.get("large", a) or b"") == 200 << 20


def test_kept() -> None:
    """With `keep_copies` a copy is a replica, which outlives its origin."""
    with homes(2) as (here, there):
        a = here.make("a")
        there.make("b", start=False)
        config = there.config("b")
        config.storage.keep_copies = True
        write_config(config, there.directory("b"))
        there.run("start", "b")
        there.run("accept", "b", here.run("share", "a").strip())
        with here.client("a") as mine, there.client("b") as other:
            mine.put("k", b"x")
            assert other.get("k", a) == b"x"
            here.run("stop", "a")
            assert other.get("k", a) == b"x"
