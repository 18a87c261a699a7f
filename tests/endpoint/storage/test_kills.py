"""Daemons killed while clients put and evict durable objects: what was acknowledged holds."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import EndpointUnreachableError
from proxystore_endpoint.local.client import LocalClient
from proxystore_endpoint.storage import Storage

from tests.endpoint.local.solo import Solo

SIZES = (8, 1000, 5000, 60_000, 70_000, 200_000, 400_000)
THREADS = 4


def content(key: str, version: int) -> bytes:
    """One word, repeated, so that a torn object shows."""
    word = hashlib.sha256(f"{key} {version}".encode()).digest()[:8]
    return word * (SIZES[version % len(SIZES)] // 8)


class Worker:
    """A client with keys of its own, which knows in what state each of them may be.

    A state is the version that is stored, or `None` for nothing; of a key that was being
    changed when the daemon was killed there are two.
    """

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.states: dict[str, set[int | None]] = {f"{number}-{n}": {None} for n in range(12)}
        self.acknowledged = self.versions = 0

    def work(self, client: LocalClient) -> None:
        while True:
            key = self.chance.choice(list(self.states))
            evict = self.chance.random() < 0.3
            self.versions += 1
            after = None if evict else self.versions
            self.states[key].add(after)
            try:
                if evict:
                    client.evict(key, client.endpoint_id)
                else:
                    stored = client.put(key, [content(key, self.versions)])
                    assert stored.durability == "durable"
            except EndpointUnreachableError:
                return
            self.states[key] = {after}
            self.acknowledged += 1

    def check(self, client: LocalClient) -> None:
        for key, states in self.states.items():
            found = client.get(key, client.endpoint_id)
            allowed = {None if one is None else content(key, one) for one in states}
            assert (None if found is None else bytes(found)) in allowed, (key, states)
            if found is None:
                self.states[key] = {None}
            else:
                self.states[key] = {
                    one for one in states if one is not None and content(key, one) == bytes(found)
                }


def survive(home: Path, kills: int) -> int:
    """Kill a daemon so many times; return how many changes were acknowledged."""
    workers = [Worker(number) for number in range(THREADS)]
    chance = random.Random(kills)
    solo = Solo(home, memory_quota="20 MB", persist_dir=str(home / "persist"))
    try:
        for _ in range(kills):
            with LocalClient(solo.socket) as client:
                for worker in workers:
                    worker.check(client)
                threads = [
                    threading.Thread(target=worker.work, args=(client,)) for worker in workers
                ]
                for thread in threads:
                    thread.start()
                threading.Event().wait(chance.uniform(0, 0.4))  # to kill anywhere
                solo.kill()
                for thread in threads:
                    thread.join(30)
                assert not any(thread.is_alive() for thread in threads)
            solo.start()
        with LocalClient(solo.socket) as client:
            for worker in workers:
                worker.check(client)
            status = client.status()["storage"]
            assert status["damaged"] == 0
            kept = sum(
                None not in states for worker in workers for states in worker.states.values()
            )
            assert status["objects"] == kept
            files = {path.name for path in (home / "persist" / "files").iterdir()}
            assert len(files - {".lock"}) <= kept
    finally:
        solo.clean_up()
    with Storage(solo.uuid, memory_quota="20 MB", persist_dir=str(home / "persist")) as storage:
        assert storage.problems() == []
    return sum(worker.acknowledged for worker in workers)


def test_ten_kills(tmp_path: Path) -> None:
    assert survive(tmp_path, kills=10) > 50


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_kills(tmp_path: Path) -> None:
    assert survive(tmp_path, kills=200) > 2000
