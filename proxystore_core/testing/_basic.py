"""What every connector does."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest

from proxystore_core.connectors.protocols import Connector, EnumerableConnector
from proxystore_core.testing._helpers import ability, in_threads, refusing, same


class BasicConformance:
    """What holds for every connector.

    Attributes:
        sizes: Object sizes to try, in bytes.
        large: Size of one larger object, in bytes.
    """

    sizes: ClassVar[Sequence[int]] = (0, 1, 1000, 32_700, 65_536, 131_008, 131_072, 1_048_577)
    large: ClassVar[int] = 5_000_000

    @pytest.fixture
    def connector(self) -> Any:
        """Return an open connector to an empty channel; override this."""
        pytest.fail("Override the fixture `connector`.")

    @pytest.fixture
    def other(self, connector: Any) -> Iterator[Any]:
        """Yield a second connector to the same channel, as a consumer makes it."""
        made = type(connector).from_config(connector.config())
        yield made
        made.close()

    def test_follows_the_protocol(self, connector: Any) -> None:
        assert isinstance(connector, Connector)

    def test_returns_what_was_put(self, connector: Any, other: Any) -> None:
        for size in (*self.sizes, self.large):
            data = os.urandom(size)
            key = connector.put(data)
            for reader in (connector, other):
                assert reader.exists(key)
                assert same(reader.get(key), data)

    def test_takes_every_kind_of_buffer(self, connector: Any) -> None:
        data = os.urandom(4096)
        wide = memoryview(data).cast("d")
        table = memoryview(data).cast("B", (64, 64))
        for buffer in (data, bytearray(data), memoryview(data), memoryview(bytearray(data)), wide):
            assert same(connector.get(connector.put(buffer)), data)
        assert same(connector.get(connector.put(table)), data)
        assert same(connector.get(connector.put(memoryview(data)[10:20])), data[10:20])

    def testrefusing_what_is_no_buffer(self, connector: Any) -> None:
        for wrong in ("text", 3, None, [1, 2], memoryview(b"abcdef")[::2]):
            with pytest.raises(TypeError):
                connector.put(wrong)

    def test_keeps_its_own_copy(self, connector: Any) -> None:
        for size in (10, self.large):
            data = bytearray(size)
            key = connector.put(data)
            data[:] = b"x" * size
            assert same(connector.get(key), bytes(size))

    def test_hands_out_read_only_bytes(self, connector: Any) -> None:
        for size in (10, self.large):
            found = connector.get(connector.put(bytes(size)))
            assert found is not None
            assert memoryview(found).readonly

    def test_keys_travel(self, connector: Any) -> None:
        keys = [connector.put(b"data") for _ in range(100)]
        assert len(set(keys)) == 100
        for key in keys:
            assert isinstance(key, tuple)
            assert all(isinstance(field, str | int) for field in key)
            again = pickle.loads(pickle.dumps(key))
            assert again == key
            assert type(again) is type(key)
            assert hash(again) == hash(key)
            assert type(key)(*key) == key

    def test_evicts(self, connector: Any, other: Any) -> None:
        for size in (10, self.large):
            key, kept = connector.put(bytes(size)), connector.put(b"kept")
            other.evict(key)
            for reader in (connector, other):
                assert reader.get(key) is None
                assert not reader.exists(key)
                assert same(reader.get(kept), b"kept")
            connector.evict(key)
            other.evict(key)

    def test_what_was_got_survives_evict(self, connector: Any) -> None:
        for size in (10, self.large):
            data = os.urandom(size)
            key = connector.put(data)
            found = connector.get(key)
            connector.evict(key)
            later = [connector.put(os.urandom(size)) for _ in range(3)]
            assert same(found, data)
            for one in later:
                connector.evict(one)

    def test_batches(self, connector: Any) -> None:
        assert connector.put_batch([]) == []
        assert connector.get_batch([]) == []
        objs = [b"a", b"", os.urandom(self.large), bytearray(b"d")]
        keys = connector.put_batch(objs)
        assert all(map(same, connector.get_batch(keys), map(bytes, objs)))
        connector.evict(keys[1])
        found = connector.get_batch([keys[3], keys[1], keys[0], keys[0]])
        assert [None if one is None else bytes(one) for one in found] == [b"d", None, b"a", b"a"]

    def test_batch_is_all_or_nothing(self, connector: Any) -> None:
        counted = ability(connector, EnumerableConnector)
        before = set(counted.keys())
        with pytest.raises(TypeError):
            connector.put_batch([b"a", "text"])
        assert set(counted.keys()) == before

    def test_config_is_small_and_plain(self, connector: Any, other: Any) -> None:
        config = connector.config()
        text = json.dumps(config)
        assert json.loads(text) == config
        assert len(text) < 1000
        assert other.config() == config

    def test_consumers_share_the_channel(self, connector: Any, other: Any) -> None:
        key = other.put(b"from the other")
        assert same(connector.get(key), b"from the other")
        other.close()
        assert same(connector.get(key), b"from the other")
        third = type(connector).from_config(connector.config())
        assert same(third.get(key), b"from the other")
        third.close()

    def test_closes_twice(self, other: Any) -> None:
        other.close()
        other.close()

    def test_keys_stay_inside(self, connector: Any) -> None:
        key = connector.put(b"inside")
        for name in ("../secret", "/etc/passwd", "a/../../b", "", ".", "..", "x\0y", "x" * 5000):
            forged = type(key)(*(name if isinstance(field, str) else field for field in key))
            for act in (connector.get, connector.exists, connector.evict):
                assert not refusing(partial(act, forged))

    def test_threads_do_not_disturb_each_other(self, connector: Any) -> None:
        def work(number: int) -> None:
            for turn in range(12):
                size = (100, 70_000, 200_000)[turn % 3]
                data = bytes([number]) * size
                key = connector.put(data)
                assert same(connector.get(key), data)
                connector.evict(key)
                assert connector.get(key) is None

        in_threads(work, 4)

    def test_get_racing_evict_is_whole_or_nothing(self, connector: Any) -> None:
        rounds, size = 30, 300_000
        keys = [connector.put(bytes([turn]) * size) for turn in range(rounds)]
        start = threading.Barrier(2)

        def work(number: int) -> None:
            start.wait(30)
            for turn, key in enumerate(keys):
                if number:
                    connector.evict(key)
                    connector.evict(connector.put(b"\xff" * size))
                else:
                    found = connector.get(key)
                    assert found is None or same(found, bytes([turn]) * size)

        in_threads(work, 2)
