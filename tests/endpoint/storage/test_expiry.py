"""Objects that expire: never early, soon after, whatever the clocks do."""

from __future__ import annotations

import pytest

from proxystore_core.exceptions import MissingReason

HOUR = 3600.0
LEVELS = ["memory", "spill", "durable"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR, -1e9])
def test_jumps_of_the_wall_clock_change_nothing(make, clock, level, jump) -> None:
    storage = make(persist=True, clock=clock)
    storage.put("key", [b"data"], ttl=60, durability=level)
    storage.put("kept", [b"data"], durability=level)
    clock.ahead += jump
    clock.seconds += 59.9
    assert storage.tick() == pytest.approx(0.1)
    assert storage.open("key").expires_in == pytest.approx(0.1)
    clock.seconds += 0.1
    for _ in range(2):
        assert storage.open("key") is None
        assert not storage.exists("key")
        assert storage.stat("key") is None
        assert "key" not in list(storage.keys())
        assert storage.missing_reason("key") is MissingReason.EXPIRED
        storage.tick()
    assert storage.usage().objects == 1
    assert storage.exists("kept")


@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR])
def test_a_restart_changes_nothing(make, clock, jump) -> None:
    """The clock that counts since the boot outlives the process."""
    storage = make(persist=True, clock=clock)
    storage.put("key", [b"data"], ttl=60)
    storage.put("large", [bytes(100_000)], ttl=60)
    storage.close()
    clock.ahead += jump
    clock.seconds += 30
    storage = make(persist=True, clock=clock)
    assert storage.stat("key").expires_in == pytest.approx(30)
    storage.close()
    clock.seconds += 30
    storage = make(persist=True, clock=clock)
    assert list(storage.keys()) == []
    assert storage.usage().disk == 0


def test_a_reboot_counts_by_the_wall_clock(make, clock) -> None:
    storage = make(persist=True, clock=clock)
    storage.put("key", [b"data"], ttl=60)
    storage.close()
    clock.seconds += 20
    clock.reboot()
    storage = make(persist=True, clock=clock)
    assert storage.stat("key").expires_in == pytest.approx(40)
    storage.close()
    clock.ahead -= HOUR  # set back meanwhile: it lives no longer than it was given
    clock.reboot()
    storage = make(persist=True, clock=clock)
    assert storage.stat("key").expires_in == pytest.approx(60)
    storage.close()
    clock.ahead += 2 * HOUR
    clock.reboot()
    storage = make(persist=True, clock=clock)
    assert storage.stat("key") is None


def test_the_clock_says_when_to_look_again(make, clock) -> None:
    storage = make(clock=clock)
    assert storage.tick() == 1.0
    storage.put("key", [b"data"], ttl=0.25)
    assert storage.tick() == pytest.approx(0.25)
    assert storage.tick(clock.seconds + 0.3) == 1.0
    assert storage.usage().objects == 0


def test_replacing_begins_anew(make, clock) -> None:
    storage = make(clock=clock)
    storage.put("key", [b"first"], ttl=10)
    storage.put("key", [b"second"])
    storage.put("other", [b"first"], ttl=10)
    storage.put("other", [b"second"], ttl=100)
    clock.seconds += 50
    storage.tick()
    assert storage.open("key").view == b"second"
    assert storage.open("other").expires_in == pytest.approx(50)


def test_copies_expire_too(make, clock) -> None:
    storage = make(clock=clock)
    with storage.reserve("key", 4, origin="peer") as room:
        room.buffer[:] = b"copy"
        room.publish(ttl=5)
    clock.seconds += 5
    assert storage.open("key", origin="peer") is None
    storage.tick()
    assert storage.usage().copies == 0


def test_evicting_what_expired(make, clock) -> None:
    storage = make(persist=True, clock=clock)
    storage.put("key", [b"data"], ttl=5)
    clock.seconds += 6
    assert not storage.evict("key")
    assert storage.missing_reason("key") is MissingReason.EXPIRED
    assert storage.usage().disk == 0


def test_many(make, clock) -> None:
    """Those that are replaced again and again take no room in the queue."""
    storage = make(clock=clock)
    for turn in range(5000):
        storage.put(f"key{turn % 3}", [b"data"], ttl=1000 + turn)
    assert len(storage._index._expiring) < 1100
    clock.seconds += 7000
    storage.tick()
    assert storage.usage().objects == 0


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
def test_no_time(make, ttl) -> None:
    storage = make()
    with pytest.raises(ValueError, match="above 0"):
        storage.put("key", [b"data"], ttl=ttl)
    with pytest.raises(ValueError, match="above 0"), storage.reserve("key", 3) as room:
        room.publish(ttl=ttl)
    assert storage.usage().in_flight == 0
    assert not storage.exists("key")
