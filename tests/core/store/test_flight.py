from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxystore_core.store._flight import SingleFlight

DEADLINE = 10


class Source:
    """Something to load from, which waits until it is told to go on."""

    def __init__(self) -> None:
        self.loads: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.error: BaseException | None = None
        self.kept: dict[str, str] = {}

    def load(self, keys: list[str]) -> list[str | None]:
        self.loads.append(keys)
        self.started.release()
        assert self.go_on.wait(DEADLINE)
        if self.error is not None:
            raise self.error
        return [None if key == "missing" else key.upper() for key in keys]

    def keep(self, key: str, value: str) -> None:
        self.kept[key] = value


def wait_for_followers(flights: SingleFlight, key: str, number: int) -> None:
    flight = flights._flights[key]
    deadline = threading.Event()
    while len(flight.done._cond._waiters) < number:  # type: ignore[attr-defined]
        assert not deadline.wait(0.005)


def test_fetches_and_keeps_what_was_found() -> None:
    source = Source()
    source.go_on.set()
    flights: SingleFlight[str, str] = SingleFlight()
    found = flights.fetch(["a", "missing", "a"], source.load, source.keep)
    assert found == {"a": "A", "missing": None}
    assert source.kept == {"a": "A"}
    assert source.loads == [["a", "missing"]]


def test_threads_that_want_one_key_load_it_once() -> None:
    source = Source()
    flights: SingleFlight[str, str] = SingleFlight()
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(flights.fetch, ["a"], source.load, source.keep) for _ in range(5)]
        assert source.started.acquire(timeout=DEADLINE)
        wait_for_followers(flights, "a", 4)
        source.go_on.set()
        assert [future.result(DEADLINE) for future in futures] == [{"a": "A"}] * 5
    assert source.loads == [["a"]]


def test_a_failure_is_shared_and_not_remembered() -> None:
    source = Source()
    source.error = OSError("down")
    flights: SingleFlight[str, str] = SingleFlight()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(flights.fetch, ["a"], source.load, source.keep) for _ in range(2)]
        assert source.started.acquire(timeout=DEADLINE)
        wait_for_followers(flights, "a", 1)
        source.go_on.set()
        for future in futures:
            with pytest.raises(OSError, match="down"):
                future.result(DEADLINE)
    source.error = None
    assert flights.fetch(["a"], source.load, source.keep) == {"a": "A"}


def test_an_interrupted_leader_leaves_the_load_to_a_follower() -> None:
    source = Source()
    source.error = KeyboardInterrupt()
    flights: SingleFlight[str, str] = SingleFlight()

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.fetch(["a"], source.load, source.keep)
        source.error = None

    def follow() -> dict[str, str | None]:
        return flights.fetch(["a"], lambda keys: ["again"], source.keep)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(lead)
        assert source.started.acquire(timeout=DEADLINE)
        follower = pool.submit(follow)
        wait_for_followers(flights, "a", 1)
        source.go_on.set()
        leader.result(DEADLINE)
        assert follower.result(DEADLINE) == {"a": "again"}


def test_a_forgotten_flight_is_neither_kept_nor_joined() -> None:
    source = Source()
    flights: SingleFlight[str, str] = SingleFlight()
    with ThreadPoolExecutor(2) as pool:
        old = pool.submit(flights.fetch, ["a"], source.load, source.keep)
        assert source.started.acquire(timeout=DEADLINE)
        flights.forget("a")
        new = flights.fetch(["a"], lambda keys: ["new"], source.keep)
        assert new == {"a": "new"}
        source.go_on.set()
        assert old.result(DEADLINE) == {"a": "A"}
    assert source.kept == {"a": "new"}


def test_batches_that_lead_each_other_do_not_deadlock() -> None:
    barrier = threading.Barrier(2)
    flights: SingleFlight[str, str] = SingleFlight()

    def load(keys: list[str]) -> list[str]:
        barrier.wait(DEADLINE)
        return keys

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.fetch, ["a", "x"], load, lambda key, value: None)
        while "x" not in flights._flights:
            pass
        second = pool.submit(flights.fetch, ["b", "x"], load, lambda key, value: None)
        assert first.result(DEADLINE) == {"a": "a", "x": "x"}
        assert second.result(DEADLINE) == {"b": "b", "x": "x"}
