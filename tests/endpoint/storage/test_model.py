"""The storage against a dictionary, through restarts and crashes of the process."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from proxystore_endpoint.storage import Storage

from proxystore_core.exceptions import StorageFullError
from tests.endpoint.storage.conftest import ENDPOINT, FakeClock

KEYS = st.sampled_from("abcde")
SIZES = st.sampled_from([0, 10, 5000, 70_000, 200_000, 600_000])
LEVELS = st.sampled_from([None, "memory", "spill", "durable"])
TTLS = st.sampled_from([None, None, 5.0, 50])


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        # What there is: the bytes, whether they are durable, and when they expire.
        self.objects: dict[str, tuple[bytes, bool, float | None]] = {}
        self.words = 0
        self.open()

    def open(self) -> None:
        self.storage = Storage(
            ENDPOINT,
            memory_quota="1 MB",
            disk_quota="2 MB",
            spill_dir=str(self.directory / "spill"),
            persist_dir=str(self.directory / "persist"),
            durability="memory",
            clock=self.clock,
        )

    def data(self, size: int) -> bytes:
        self.words += 1
        return (self.words.to_bytes(2, "big") * (size // 2 + 1))[:size]

    def stored(self, key: str, data: bytes, durability: str, ttl: float | None) -> None:
        expires = None if ttl is None else self.clock.now() + ttl
        self.objects[key] = data, durability == "durable", expires

    @rule(key=KEYS, size=SIZES, level=LEVELS, ttl=TTLS)
    def put(self, key: str, size: int, level: str | None, ttl: float | None) -> None:
        data = self.data(size)
        try:
            done = self.storage.put(key, [data[:100], data[100:]], ttl=ttl, durability=level)
        except StorageFullError:
            return
        assert level in (None, "memory", done.durability)
        self.stored(key, data, done.durability, ttl)

    @rule(key=KEYS, size=SIZES, level=LEVELS, ttl=TTLS, publish=st.booleans())
    def reserve(
        self, key: str, size: int, level: str | None, ttl: float | None, publish: bool
    ) -> None:
        data = self.data(size)
        try:
            with self.storage.reserve(key, size) as room:
                room.buffer[:] = data
                if publish:
                    done = room.publish(ttl=ttl, durability=level)
                    self.stored(key, data, done.durability, ttl)
        except StorageFullError:
            return

    @rule(key=KEYS, size=SIZES)
    def copy(self, key: str, size: int) -> None:
        try:
            with self.storage.reserve(key, size, origin="peer") as room:
                room.buffer[:] = b"c" * size
                room.publish()
        except StorageFullError:
            return
        found = self.storage.open(key, origin="peer")
        assert found is None or found.view == b"c" * size

    @rule(key=KEYS)
    def evict(self, key: str) -> None:
        assert self.storage.evict(key) == (key in self.objects)
        self.objects.pop(key, None)

    @rule(nbytes=st.sampled_from([1, 300_000, 1_000_000]))
    def make_room(self, nbytes: int) -> None:
        self.storage.make_room(nbytes)

    @rule(seconds=st.sampled_from([0.5, 10, 100]), jump=st.sampled_from([0.0, 3600, -3600]))
    def time_passes(self, seconds: float, jump: float) -> None:
        self.clock.seconds += seconds
        self.clock.ahead += jump
        now = self.clock.now()
        self.objects = {
            key: one for key, one in self.objects.items() if one[2] is None or one[2] > now
        }

    @rule()
    def tick(self) -> None:
        self.storage.tick()

    @precondition(lambda self: self.objects)
    @rule()
    def restart(self) -> None:
        self.storage.close()
        self.objects = {key: one for key, one in self.objects.items() if one[1]}
        self.open()
        assert self.storage.problems() == []

    @invariant()
    def agrees(self) -> None:
        assert set(self.storage.keys()) == set(self.objects)
        for key in "abcde":
            found = self.storage.open(key)
            expected = self.objects.get(key)
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                assert found.view == expected[0]
                assert (found.stat.durability == "durable") == expected[1]
        usage = self.storage.usage()
        assert usage.memory <= 1_000_000
        assert usage.disk <= 2_000_000
        assert usage.in_flight == 0

    def teardown(self) -> None:
        self.storage.tick()
        for key in "abcde":
            self.storage.evict(key)
            self.storage.evict(key, origin="peer")
        usage = self.storage.usage()
        assert (usage.objects, usage.memory, usage.disk, usage.durable) == (0, 0, 0, 0)
        self.storage.close()
        shutil.rmtree(self.directory)


Model.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestModel = Model.TestCase
