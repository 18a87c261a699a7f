"""What a large object costs the daemon beside the object itself."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.homes import Home, homes

BESIDE = 16 << 20


def memory_of(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


class Peak:
    """How far a process' memory rose since this was made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak is counted anew
        self.before = memory_of(pid, "VmRSS")

    def rise(self) -> int:
        return memory_of(self.pid, "VmHWM") - self.before


@pytest.fixture
def home() -> Iterator[Home]:
    with homes(1) as (only,):
        yield only


def costs(home: Home, nbytes: int) -> dict[str, float]:
    """Put and get an object; return what it took beside itself, in bytes, and MB/s."""
    home.make("a", "--memory", f"{2 * nbytes}")
    pid = home.running("a").pid
    part = os.urandom(1 << 20)
    parts = [part] * (nbytes >> 20)
    digest = hashlib.sha256()
    for each in parts:
        digest.update(each)
    with home.client("a") as client:
        client.put("warm", os.urandom(1 << 20))
        client.get("warm")
        peak = Peak(pid)
        began = time.perf_counter()
        stored = client.put("k", parts)
        put_s, put_rise = time.perf_counter() - began, peak.rise()
        assert stored.etag == digest.hexdigest()
        peak = Peak(pid)
        began = time.perf_counter()
        got = client.get("k")
        get_s, get_rise = time.perf_counter() - began, peak.rise()
        assert got is not None
        assert hashlib.sha256(got).hexdigest() == digest.hexdigest()
    return {
        "put": put_rise - nbytes,
        "get": get_rise - nbytes,
        "put MB/s": nbytes / put_s / 1e6,
        "get MB/s": nbytes / get_s / 1e6,
    }


def check(home: Home, nbytes: int) -> None:
    measured = costs(home, nbytes)
    print(measured)
    assert measured["put"] <= BESIDE, measured
    assert measured["get"] <= BESIDE, measured


def test_beside_256_mb(home: Home) -> None:
    check(home, 256 << 20)


@pytest.mark.soak
def test_beside_1_gb(home: Home) -> None:
    check(home, 1 << 30)


def check_peers(nbytes: int) -> None:
    """Move an object from endpoint to endpoint; neither takes more than the object."""
    with homes(2) as (here, there):
        a = here.make("a", "--memory", f"{2 * nbytes}")
        there.make("b", "--memory", f"{3 * nbytes}")
        there.run("accept", "b", here.run("share", "a").strip())
        part = os.urandom(1 << 20)
        with here.client("a") as mine, there.client("b") as other:
            mine.put("warm", part)
            assert other.get("warm", a) == part
            stored = mine.put("k", [part] * (nbytes >> 20))
            peaks = [Peak(home.running(name).pid) for home, name in ((here, "a"), (there, "b"))]
            info = other.stat("k", a)  # which brings it
            assert info is not None
            assert info.etag == stored.etag
        rises = [peak.rise() for peak in peaks]
        assert all(rise <= nbytes + BESIDE for rise in rises), rises


def test_beside_256_mb_of_a_peer() -> None:
    check_peers(256 << 20)


@pytest.mark.soak
def test_beside_1_gb_of_a_peer() -> None:
    check_peers(1 << 30)


def test_beside_a_body_of_unknown_length(home: Home) -> None:
    """It waits on disk, not in memory."""
    import http.client

    nbytes = 128 << 20
    home.make("a")
    with home.client("a") as client:
        client.put("warm", bytes(1 << 20))
        peak = Peak(home.running("a").pid)
        address = home.running("a").url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=60)
        token = (home.directory("a") / "token").read_text().strip()
        parts = (bytes(1 << 20) for _ in range(nbytes >> 20))
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("POST", "/set?key=k", parts, headers)
        assert connection.getresponse().status == 200
        connection.close()
        assert peak.rise() <= nbytes + BESIDE
        info = client.stat("k")
        assert info is not None
        assert info.nbytes == nbytes
