"""Processes killed while they map, write and evict: nothing torn, nothing leaked."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxystore_core.connectors.shared_memory import SharedMemoryConnector

ACTOR = Path(__file__).with_name("actor.py")
ROLES = ("write", "write", "read", "evict")


@contextmanager
def actors(store: SharedMemoryConnector, chance: random.Random) -> Iterator[list]:
    running: list[subprocess.Popen[str]] = []

    def start(role: str) -> None:
        command = [
            sys.executable,
            str(ACTOR),
            role,
            json.dumps(store.config()),
            str(chance.random()),
        ]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    try:
        for role in ROLES:
            start(role)
        for process in running:
            assert process.stdout.readline() == "ready\n"
        yield running, start
    finally:
        for process in running:
            process.kill()
            process.communicate()


def survive(store: SharedMemoryConnector, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with actors(store, chance) as (running, start):
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.05))  # not to wait for anything: to kill anywhere
            number = chance.randrange(len(running))
            victim = running.pop(number)
            assert victim.poll() is None, victim.communicate()
            role = victim.args[2]
            victim.kill()
            assert victim.communicate()[0] == ""
            assert victim.returncode == -signal.SIGKILL
            start(role)
            assert running[-1].stdout.readline() == "ready\n"
        for process in running:
            assert process.poll() is None, process.communicate()


def empty(store: SharedMemoryConnector) -> None:
    """Look whether all that is left is whole, and evict it."""
    for key in store.keys():
        data = bytes(store.get(key))
        assert data == data[:8] * (len(data) // 8)
        store.evict(key)
    assert store.usage()[:2] == (0, 0)
    with store._channel._ledger as books:
        books.recount()
        assert books.used == books.free == store.usage().reserved


def limited(**options) -> SharedMemoryConnector:
    return SharedMemoryConnector(quota="40 MB", recycle="16 MB", **options)


@pytest.mark.parametrize("spill", [True, False])
def test_kills(spill: bool, tmp_path: Path, check_books) -> None:
    with limited(spill=spill, spill_dir=str(tmp_path)) as store:
        survive(store, kills=4, seed=spill)
        empty(store)
        check_books(store)


def test_kills_on_disk(tmp_path: Path, check_books) -> None:
    with limited(directory=str(tmp_path / "store")) as store:
        survive(store, kills=4, seed=7)
        empty(store)
        check_books(store)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_kills(tmp_path: Path, check_books) -> None:
    with limited(spill_dir=str(tmp_path)) as store:
        survive(store, kills=200, seed=2)
        empty(store)
        check_books(store)
