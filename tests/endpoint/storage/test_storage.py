"""The storage: what goes in comes out, from where it was said to lie."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import (
    DurabilityUnavailableError,
    EndpointStorageError,
    ObjectLostError,
    ReservationError,
)
from proxystore_endpoint.storage import Provider, Reservation, Storage, memory_name

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import (
    ConnectorConfigError,
    InvalidKeyError,
    MissingReason,
    ObjectTooLargeError,
    StorageFullError,
)
from tests.endpoint.storage.conftest import ENDPOINT

MB = 1_000_000
PEER = "0c6e0d6e-9c52-4a33-9d5e-2f0c9e5b7d11"
SIZES = (0, 1, 1000, 65_536, 65_537, 131_072, 3 * MB)


def read(storage: Storage, key: str, **where: str) -> bytes | None:
    found = storage.open(key, **where)
    return None if found is None else bytes(found.view)


class TestLevels:
    @pytest.mark.parametrize("level", ["memory", "spill", "durable"])
    @pytest.mark.parametrize("size", SIZES)
    def test_keeps_what_it_says(self, make, level, size) -> None:
        storage = make(persist=True)
        data = os.urandom(size)
        half = size // 2
        stored = storage.put("key", [data[:half], bytearray(data[half:])], durability=level)
        assert stored[:2] == (size, level)
        found = storage.open("key")
        assert found.view == data
        assert found.view.readonly
        assert found.nbytes == size
        assert storage.stat("key").durability == level
        assert storage.digest("key") == hashlib.sha256(data).hexdigest()
        assert storage.stat("key").etag == storage.digest("key")
        assert storage.exists("key")
        assert list(storage.keys()) == ["key"]
        assert storage.evict("key")
        assert not storage.evict("key")
        assert read(storage, "key") is None
        assert storage.missing_reason("key") is MissingReason.EVICTED
        assert found.view == data
        assert storage.usage()[:9] == (0, 0, 0, 0, 0, 20 * MB, 0, 0, storage.usage().disk_limit)

    @pytest.mark.parametrize("before", ["memory", "spill", "durable"])
    @pytest.mark.parametrize("after", ["memory", "spill", "durable"])
    def test_replacing_leaves_nothing_of_the_old(self, make, before, after) -> None:
        storage = make(persist=True)
        for size in (10, 2 * MB):
            storage.put("key", [b"b" * size], durability=before)
            old = storage.open("key")
            assert storage.put("key", [b"a" * (size + 1)], durability=after).durability == after
            assert read(storage, "key") == b"a" * (size + 1)
            assert old.view == b"b" * size
            assert storage.usage().objects == 1
            assert storage.usage().nbytes == size + 1
            storage.evict("key")
            assert storage.usage().disk == storage.usage().memory == 0
            del old

    def test_durable_ones_are_there_again(self, make) -> None:
        storage = make(persist=True)
        datas = {f"key{size}": os.urandom(size) for size in SIZES}
        for key, data in datas.items():
            storage.put(key, [data])
        storage.put("gone", [b"x"])
        storage.put("replaced", [b"durable"])
        storage.put("replaced", [b"in memory"], durability="memory")
        storage.put("m", [b"x"], durability="memory")
        storage.put("s", [b"x"], durability="spill")
        storage.evict("gone")
        storage.close()
        storage = make(persist=True)
        assert set(storage.keys()) == set(datas)
        for _ in range(2):
            for key, data in datas.items():
                assert read(storage, key) == data
        assert storage.problems() == []
        assert storage.stat("key1000").durability == "durable"

    def test_small_durable_ones_come_back_into_memory(self, make) -> None:
        storage = make(persist=True)
        storage.put("key", [b"data"])
        storage.close()
        storage = make(persist=True)
        assert storage.usage().memory == 0
        assert storage.open("key").in_memory
        client = SharedMemoryConnector.from_config(storage.memory_config())
        assert client.get(SharedMemoryKey(memory_name(ENDPOINT, "key"))) == b"data"
        client.close()
        storage.evict("key")
        assert storage.usage().memory == 0

    def test_what_cannot_be_had(self, make) -> None:
        storage = make(spill=False)
        for level in ("durable", "spill"):
            with pytest.raises(DurabilityUnavailableError) as caught:
                storage.put("key", [b"data"], durability=level)
            assert caught.value.durability == level
            with pytest.raises(DurabilityUnavailableError), storage.reserve("key", 10) as room:
                room.publish(durability=level)
        with pytest.raises(ValueError, match="durability is"):
            storage.put("key", [b"data"], durability="for ever")
        assert not storage.exists("key")
        assert storage.usage().in_flight == 0
        with pytest.raises(DurabilityUnavailableError):
            make(durability="durable")

    def test_default_level(self, make) -> None:
        assert make(spill=False).put("key", [b""]).durability == "memory"
        assert make(persist=True).put("key", [b""]).durability == "durable"

    def test_one_process_has_the_directories(self, make, tmp_path: Path) -> None:
        make(persist=True)
        for places in ({"persist": True, "spill": False}, {}):
            with pytest.raises(EndpointStorageError, match="Another process"):
                make(**places)
        assert (tmp_path / "persist").stat().st_mode & 0o777 == 0o700

    def test_files_are_private(self, make, tmp_path: Path) -> None:
        storage = make(persist=True)
        for level in ("spill", "durable"):
            for size in (10, MB):
                storage.put(f"{level}{size}", [bytes(size)], durability=level)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 8
        assert {path.stat().st_mode & 0o777 for path in files if path.suffix != ".db-shm"} == {
            0o600
        }


class TestKeys:
    def test_any_name(self, make) -> None:
        storage = make()
        for key in ("a", "A.b_c~d-e", "x" * 128, "5f1de1c2-7c3e-4e0e-8b6d-1f3f2d5f9a01"):
            storage.put(key, [key.encode()])
            assert read(storage, key) == key.encode()

    @pytest.mark.parametrize(
        "key", ["", "../x", "a/b", "a b", ".", "..", "-x", "x" * 129, "\0", "ü", None, 3, b"x"]
    )
    def test_what_is_none(self, make, key) -> None:
        storage = make()
        for act in (
            lambda: storage.put(key, [b""]),
            lambda: storage.open(key),
            lambda: storage.exists(key),
            lambda: storage.evict(key),
            lambda: storage.stat(key),
            lambda: storage.reserve(key, 10),
            lambda: storage.commit(key, 10),
            lambda: storage.missing_reason(key),
        ):
            with pytest.raises(InvalidKeyError):
                act()

    def test_no_key_names_a_copy(self, make) -> None:
        storage = make()
        with storage.reserve("key", 4, origin=PEER) as room:
            room.buffer[:] = b"copy"
            room.publish()
        storage.put("key", [b"own"])
        storage.put(memory_name(PEER, "key"), [b"forged"])
        assert read(storage, "key", origin=PEER) == b"copy"
        assert read(storage, "key") == b"own"

    def test_reasons(self, make) -> None:
        storage = make()
        assert storage.missing_reason("key") is MissingReason.UNKNOWN
        assert not storage.expire("key")
        assert storage.missing_reason("key") is MissingReason.UNKNOWN
        storage.put("key", [b"x"])
        storage.expire("key")
        assert storage.missing_reason("key") is MissingReason.EXPIRED
        storage.put("key", [b"x"])
        storage.evict("key")
        assert storage.missing_reason("key") is MissingReason.EVICTED


class TestRooms:
    def test_follows_the_protocols(self, make) -> None:
        storage = make()
        provider: Provider = storage
        assert isinstance(provider.reserve("key", 1), Reservation)

    @pytest.mark.parametrize("level", ["memory", "durable"])
    @pytest.mark.parametrize("size", [*SIZES, 30 * MB])
    def test_publishes(self, make, level, size) -> None:
        storage = make(persist=True)
        room = storage.reserve("key", size)
        assert storage.usage().in_flight == size
        assert len(room.buffer) == size
        data = os.urandom(size)
        room.buffer[:] = data
        assert not storage.exists("key")
        stored = room.publish(durability=level)
        in_place = level == "durable" or size <= 20 * MB
        assert stored.durability == (level if in_place else "spill")
        assert read(storage, "key") == data
        assert storage.usage().in_flight == 0
        with pytest.raises(ReservationError):
            room.publish()
        room.abandon()
        assert storage.exists("key")

    @pytest.mark.parametrize("size", [10, MB, 30 * MB])
    def test_abandons(self, make, size, tmp_path: Path) -> None:
        storage = make(persist=True)
        storage.put("key", [b"before"])
        for _ in range(2):
            room = storage.reserve("key", size)
            part = room.buffer[:5]
            room.abandon()
            part[:] = b"late!"
            with pytest.raises(ReservationError):
                room.publish()
        storage.reserve("key", size)
        gc.collect()
        assert storage.usage().in_flight == 0
        assert read(storage, "key") == b"before"
        storage.evict("key")
        assert storage.usage().disk == storage.usage().memory == 0
        assert not list(tmp_path.rglob(".partial*"))

    def test_files_for_clients(self, make) -> None:
        storage = make(persist=True)
        for level in ("spill", "durable"):
            room = storage.reserve_file("key", MB, level)
            with open(room.path, "r+b") as file:
                file.write(b"f" * MB)
            assert room.publish(durability=level).durability == level
            assert storage.open("key").path
            assert read(storage, "key") == b"f" * MB
            storage.reserve_file("other", MB, level).abandon()
            assert storage.usage().disk == MB // 4096 * 4096 + 4096

    def test_digests_that_are_given_count(self, make) -> None:
        storage = make()
        with storage.reserve("key", 5) as room:
            room.buffer[:] = b"hello"
            etag = hashlib.sha256(b"hello").hexdigest()
            assert room.publish(etag=etag).etag == etag
        assert storage.open("key").etag == etag

    def test_in_flight(self, make) -> None:
        storage = make(in_flight_limit="4 MB")
        room = storage.reserve("a", 3 * MB)
        with pytest.raises(StorageFullError, match="arriving"):
            storage.reserve("b", 2 * MB)
        room.abandon()
        storage.reserve("b", 5 * MB).abandon()  # larger than all, but alone
        assert storage.usage().in_flight == 0


class TestCommit:
    def test_takes_over_what_a_client_wrote(self, make) -> None:
        storage = make(persist=True)
        client = SharedMemoryConnector.from_config(storage.memory_config())
        for size in (10, 200_000):
            for level in ("memory", "durable"):
                client.set(SharedMemoryKey(memory_name(ENDPOINT, "key")), b"c" * size)
                stored = storage.commit("key", size, durability=level)
                assert stored[:2] == (size, level)
                assert read(storage, "key") == b"c" * size
        client.close()

    def test_what_is_not_there(self, make) -> None:
        storage = make(persist=True)
        for level in ("memory", "durable"):
            with pytest.raises(ObjectLostError):
                storage.commit("key", 10, durability=level)
        assert not storage.exists("key")

    def test_what_is_refused_goes(self, make) -> None:
        storage = make(object_limit=100)
        client = SharedMemoryConnector.from_config(storage.memory_config())
        name = SharedMemoryKey(memory_name(ENDPOINT, "key"))
        client.set(name, bytes(1000))
        with pytest.raises(ObjectTooLargeError):
            storage.commit("key", 1000)
        assert not client.exists(name)
        client.set(name, bytes(10))
        with pytest.raises(DurabilityUnavailableError):
            storage.commit("key", 10, durability="durable")
        assert not client.exists(name)
        client.close()

    def test_what_a_dead_client_left_goes(self, make) -> None:
        storage = make()
        client = SharedMemoryConnector.from_config(storage.memory_config())
        client.set(SharedMemoryKey(memory_name(ENDPOINT, "never told")), bytes(MB))
        client.close()
        storage.put("kept", [b"kept"])
        assert storage.sweep() == 0
        assert storage.sweep() == 1
        assert storage.sweep() == 0
        assert read(storage, "kept") == b"kept"


class TestLimits:
    def test_of_one_object(self, make) -> None:
        storage = make(object_limit="1 MB")
        for act in (
            lambda: storage.put("key", [bytes(MB), b"x"]),
            lambda: storage.reserve("key", MB + 1),
            lambda: storage.reserve_file("key", MB + 1),
        ):
            with pytest.raises(ObjectTooLargeError) as caught:
                act()
            assert (caught.value.nbytes, caught.value.limit) == (MB + 1, MB)
        storage.put("key", [bytes(MB)])

    @pytest.mark.parametrize("name", ["memory_quota", "disk_quota", "object_limit"])
    def test_that_are_none(self, make, name) -> None:
        for value in ("much", -1):
            with pytest.raises(ConnectorConfigError, match=name):
                make(**{name: value})

    def test_four_times_the_quota(self, make) -> None:
        storage = make(memory_quota="10 MB", disk_quota="10 MB")
        data = os.urandom(MB)
        kept, refused = [], 0
        for number in range(80):
            try:
                storage.put(f"key{number}", [data])
                kept.append(f"key{number}")
            except StorageFullError:
                refused += 1
        usage = storage.usage()
        assert usage.memory <= 11 * MB
        assert usage.disk <= 11 * MB
        assert len(kept) >= 17
        assert all(read(storage, key) == data for key in kept)
        for key in kept:
            storage.evict(key)
        assert storage.usage()[:5] == (0, 0, 0, 0, 0)
        assert storage.usage().disk == 0
        storage.put("again", [data])

    def test_four_times_the_quota_durable(self, make, tmp_path: Path) -> None:
        storage = make(memory_quota="10 MB", disk_quota="20 MB", persist=True)
        kept = []
        for number in range(400):
            data = bytes([number % 251]) * (200_000 if number % 2 else 20_000)
            try:
                storage.put(f"key{number}", [data])
                kept.append((f"key{number}", data))
            except StorageFullError:
                pass
        assert len(kept) < 400
        size = sum(path.stat().st_size for path in (tmp_path / "persist" / "files").iterdir())
        size += (tmp_path / "persist" / "objects.db").stat().st_size
        assert size <= 22 * MB
        assert storage.usage().disk <= 20 * MB
        assert all(read(storage, key) == data for key, data in kept)
        assert storage.usage().memory <= 10 * MB

    def test_without_spill(self, make) -> None:
        storage = make(memory_quota="3 MB", spill=False)
        storage.put("a", [bytes(2 * MB)])
        for act in (
            lambda: storage.put("b", [bytes(2 * MB)]),
            lambda: storage.reserve("b", 2 * MB),
        ):
            with pytest.raises(StorageFullError, match="does not spill"):
                act()
        assert read(storage, "a") == bytes(2 * MB)
        assert storage.usage().in_flight == 0


class TestCopies:
    def copy(self, storage: Storage, key: str, nbytes: int) -> None:
        with storage.reserve(key, nbytes, origin=PEER) as room:
            room.buffer[:] = key[:1].encode() * nbytes
            room.publish()

    def test_go_first(self, make) -> None:
        storage = make(memory_quota="10 MB", copies_quota="8 MB", spill=False)
        for key in "abc":
            self.copy(storage, key, 2 * MB)
        storage.open("a", origin=PEER)  # so b is the one that was not used for longest
        storage.put("own", [bytes(5 * MB)])
        assert read(storage, "b", origin=PEER) is None
        assert read(storage, "a", origin=PEER) == b"a" * 2 * MB
        storage.put("own2", [bytes(4 * MB)])
        assert storage.usage().copies == 0
        assert storage.usage().objects == 2
        assert list(storage.keys()) == ["own", "own2"]

    def test_keep_to_their_budget(self, make) -> None:
        storage = make(memory_quota="18 MB", copies_quota="5 MB")
        for number in range(10):
            self.copy(storage, f"{number}", 2 * MB)
            assert storage.usage().copies_nbytes <= 5 * MB
        assert read(storage, "9", origin=PEER) == b"9" * 2 * MB
        self.copy(storage, "large", 7 * MB)  # over the budget, and yet somebody waits for it
        assert read(storage, "large", origin=PEER) == b"l" * 7 * MB

    def test_are_never_durable(self, make) -> None:
        storage = make(persist=True)
        self.copy(storage, "a", 1000)
        assert storage.stat("a", origin=PEER).durability == "memory"
        assert storage.stats()[0].origin == PEER
        assert storage.evict("a", origin=PEER)
        assert list(storage.keys()) == []

    def test_bytes_of_durable_objects_go_before_anything_is_spilled(self, make) -> None:
        storage = make(memory_quota="10 MB", persist=True)
        for number in range(8):
            storage.put(f"{number}", [bytes([number]) * 2 * MB])
        assert storage.usage().memory <= 10 * MB
        assert storage.put("m", [bytes(4 * MB)], durability="memory").durability == "memory"
        for number in range(8):
            assert read(storage, f"{number}") == bytes([number]) * 2 * MB
        assert storage.make_room(5 * MB)
        assert not storage.make_room(11 * MB)


def test_threads(make) -> None:
    storage = make(memory_quota="6 MB", persist=True, disk_quota="100 MB")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(40):
                key = f"key{turn % 5}"
                word = bytes([number * 40 + turn])
                level = ("memory", "spill", "durable")[(turn + number) % 3]
                size = (100, 70_000, 1_000_000)[turn % 3]
                if turn % 7 == 3:
                    storage.evict(key)
                elif turn % 2:
                    storage.put(key, [word * size], durability=level)
                else:
                    with storage.reserve(key, size) as room:
                        room.buffer[:] = word * size
                        room.publish(durability=level)
                found = storage.open(key)
                if found is not None:
                    data = bytes(found.view)
                    assert data == data[:1] * len(data)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    for key in list(storage.keys()):
        storage.evict(key)
    usage = storage.usage()
    assert (usage.objects, usage.nbytes, usage.memory, usage.disk, usage.durable) == (0,) * 5
    assert storage.sweep() == storage.sweep() == 0
