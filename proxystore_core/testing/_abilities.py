"""What only some connectors do, tested on those that do."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from proxystore_core.connectors.protocols import (
    AccountingConnector,
    DeferrableConnector,
    EnumerableConnector,
    ExplainingConnector,
    ReservingConnector,
    VectoredConnector,
    VectoredDeferrableConnector,
    VersionedConnector,
    ZeroCopyConnector,
)
from proxystore_core.exceptions import MissingReason, ReservationError
from proxystore_core.testing._basic import BasicConformance
from proxystore_core.testing._helpers import ability, in_threads, same, some_parts


class ConnectorConformance(BasicConformance):
    """What holds for a connector and for each further ability it has.

    Override the fixture `connector`, and the sizes where need be.

    Attributes:
        sizes: Object sizes to try, in bytes.
        large: Size of one larger object, in bytes.
    """

    # Keys before objects.

    def test_deferred(self, connector: Any, other: Any) -> None:
        first, second = (ability(one, DeferrableConnector) for one in (connector, other))
        for size in (0, 10, self.large):
            key = first.new_key()
            assert other.get(key) is None
            assert not other.exists(key)
            data = os.urandom(size)
            second.set(key, data)
            assert same(connector.get(key), data)
            assert key != first.new_key(b"a hint")

    def test_set_replaces(self, connector: Any) -> None:
        deferred = ability(connector, DeferrableConnector)
        key = deferred.new_key()
        for size in (10, self.large, 200_000, self.large, 0, 5):
            before = connector.get(key)
            copy = None if before is None else bytes(before)
            data = os.urandom(size)
            deferred.set(key, data)
            assert same(connector.get(key), data)
            assert copy is None or same(before, copy)
        connector.evict(key)
        assert connector.get(key) is None

    def test_set_is_never_seen_half_done(self, connector: Any) -> None:
        deferred = ability(connector, DeferrableConnector)
        key, size = deferred.new_key(), 300_000
        deferred.set(key, bytes(size))
        done = threading.Event()

        def work(number: int) -> None:
            if number:
                while not done.is_set():
                    found = connector.get(key)
                    assert found is not None
                    assert same(found, bytes([found[0]]) * size)
            else:
                try:
                    for turn in range(60):
                        deferred.set(key, bytes([turn]) * size)
                finally:
                    done.set()

        in_threads(work, 2)

    # Versions.

    def test_version_changes_with_the_object(self, connector: Any, other: Any) -> None:
        versioned = ability(connector, VersionedConnector)
        deferred = ability(other, DeferrableConnector)
        key = deferred.new_key()
        assert versioned.version(key) is None
        seen: list[object] = []
        for number in range(4):
            deferred.set(key, bytes([number]) * 10)
            assert versioned.version(key) == versioned.version(key)
            assert versioned.version(key) != (seen[-1] if seen else None)
            seen.append(versioned.version(key))
        deferred.set(key, bytes(self.large))
        assert versioned.version(key) not in seen
        connector.evict(key)
        assert versioned.version(key) is None

    # Parts in place.

    def test_parts(self, connector: Any) -> None:
        vectored = ability(connector, VectoredConnector)
        for parts in some_parts(self.large):
            key = vectored.put_parts(parts)
            assert same(connector.get(key), b"".join(map(bytes, parts)))

    def test_deferred_parts(self, connector: Any) -> None:
        deferred = ability(connector, DeferrableConnector)
        vectored = ability(connector, VectoredDeferrableConnector)
        for parts in some_parts(self.large):
            key = deferred.new_key()
            vectored.set_parts(key, parts)
            assert same(connector.get(key), b"".join(map(bytes, parts)))

    # Room before bytes.

    def test_reserves(self, connector: Any, other: Any) -> None:
        reserving = ability(connector, ReservingConnector)
        for size in (*self.sizes, self.large):
            key, data = connector.new_key(), os.urandom(size)
            room = reserving.reserve(key, size)
            assert (room.buffer.format, room.buffer.ndim, room.buffer.nbytes) == ("B", 1, size)
            assert not room.buffer.readonly
            room.buffer[: size // 2] = data[: size // 2]
            assert other.get(key) is None
            room.buffer[size // 2 :] = data[size // 2 :]
            room.publish()
            for reader in (connector, other):
                assert same(reader.get(key), data)
            with pytest.raises(ReservationError):
                room.publish()
            room.abandon()
            assert same(other.get(key), data)

    def test_reserving_replaces(self, connector: Any) -> None:
        reserving = ability(connector, ReservingConnector)
        key = connector.new_key()
        connector.set(key, b"before")
        for size in (10, self.large, 200_000, self.large, 5):
            before = connector.get(key)
            copy, data = bytes(before), os.urandom(size)
            with reserving.reserve(key, size) as room:
                room.buffer[:] = data
                assert same(connector.get(key), copy)
                room.publish()
            assert same(connector.get(key), data)
            assert same(before, copy)
        connector.evict(key)
        assert connector.get(key) is None

    def test_abandoning_leaves_nothing(self, connector: Any, other: Any) -> None:
        reserving = ability(connector, ReservingConnector)
        for size in (10, self.large):
            key = connector.new_key()
            room = reserving.reserve(key, size)
            part = room.buffer[:5]
            part[:] = b"wrote"
            room.abandon()
            room.abandon()
            part[:] = b"again"  # late, as of a thread that still receives: it hits nobody
            with reserving.reserve(key, size) as dropped:
                dropped.buffer[:5] = b"wrote"
            for late in (room, dropped):
                with pytest.raises(ReservationError):
                    late.publish()
            assert reserving.reserve(key, size).buffer.nbytes == size  # and collected
            assert other.get(key) is None
            assert not connector.exists(key)
            other.set(key, b"data")
            assert same(connector.get(key), b"data")
            connector.evict(key)
        if isinstance(connector, AccountingConnector):
            assert connector.usage()[:2] == (0, 0)

    # Mapping.

    def test_views_are_private(self, connector: Any, other: Any) -> None:
        mapped, alike = (ability(one, ZeroCopyConnector) for one in (connector, other))
        for size in (10, self.large):
            data = os.urandom(size)
            key = connector.put(data)
            view, seen = mapped.get_view(key), alike.get_view(key)
            assert view is not None
            assert not view.readonly
            assert (view.format, view.ndim, view.nbytes) == ("B", 1, size)
            view[:5] = b"wrote"
            assert same(view, b"wrote" + data[5:])
            assert same(seen, data)
            assert same(other.get(key), data)

    def test_views_outlive_the_connector(self, connector: Any, other: Any) -> None:
        mapped = ability(other, ZeroCopyConnector)
        data = os.urandom(self.large)
        key = connector.put(data)
        view = mapped.get_view(key)
        other.close()
        connector.evict(key)
        connector.evict(connector.put(bytes(self.large)))
        assert same(view, data)

    def test_no_view_of_nothing(self, connector: Any) -> None:
        mapped = ability(connector, ZeroCopyConnector)
        key = connector.put(b"")
        assert same(mapped.get_view(key), b"")
        connector.evict(key)
        assert mapped.get_view(key) is None

    # Counting.

    def test_lists_its_keys(self, connector: Any, other: Any) -> None:
        listed = ability(other, EnumerableConnector)
        assert list(listed.keys()) == []
        keys = {connector.put(bytes(size)) for size in self.sizes}
        assert set(listed.keys()) == keys
        connector.evict(gone := keys.pop())
        assert set(listed.keys()) == keys
        assert gone not in set(listed.keys())

    def test_counts_what_it_holds(self, connector: Any, other: Any) -> None:
        counting = ability(other, AccountingConnector)
        assert counting.usage()[:2] == (0, 0)
        keys = [connector.put(bytes(size)) for size in self.sizes]
        usage = counting.usage()
        assert (usage.objects, usage.nbytes) == (len(self.sizes), sum(self.sizes))
        for key in keys:
            connector.evict(key)
        assert counting.usage()[:2] == (0, 0)

    # Explaining.

    def test_explains_what_is_gone(self, connector: Any, other: Any) -> None:
        here, there = (ability(one, ExplainingConnector) for one in (connector, other))
        evicted, expired = connector.put(b"evicted"), connector.put(b"expired")
        connector.evict(evicted)
        there.expire(expired)
        for reader in (here, there):
            assert reader.get(expired) is None
            assert reader.missing_reason(evicted) is MissingReason.EVICTED
            assert reader.missing_reason(expired) is MissingReason.EXPIRED

    def test_explains_what_never_was(self, connector: Any) -> None:
        explaining = ability(connector, ExplainingConnector)
        deferred = ability(connector, DeferrableConnector)
        key = deferred.new_key()
        unknown = {MissingReason.NEVER_STORED, MissingReason.UNKNOWN}
        assert explaining.missing_reason(key) in unknown
        explaining.expire(key)
        assert explaining.missing_reason(key) in unknown
