"""Two connectors to one directory against a dictionary, in any order of calls."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import MissingReason, StorageFullError

QUOTA = 4_000_000
SIZES = st.sampled_from([0, 1, 5000, 131_008, 131_072, 200_000, 400_000, 1_000_000, 5_000_000])


class SharedDirectory(RuleBasedStateMachine):
    keys = Bundle("keys")
    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        owner = SharedMemoryConnector(quota=QUOTA, recycle=QUOTA // 2, spill=False)
        self.stores = [owner, SharedMemoryConnector.from_config(owner.config())]
        self.model: dict[SharedMemoryKey, bytes] = {}
        self.why: dict[SharedMemoryKey, MissingReason] = {}
        self.turn = 0

    def teardown(self) -> None:
        for store in reversed(self.stores):
            store.close()

    def data(self, size: int) -> bytes:
        self.turn += 1
        return self.turn.to_bytes(2, "big") * (size // 2) + b"x" * (size % 2)

    @rule(target=keys, by=st.integers(0, 1), size=SIZES)
    def put(self, by: int, size: int):
        data = self.data(size)
        try:
            key = self.stores[by].put(data)
        except StorageFullError:
            assert sum(map(len, self.model.values())) + size > QUOTA / 3
            return multiple()
        assert key not in self.model
        assert key not in self.why
        self.model[key] = data
        return key

    @rule(target=keys, by=st.integers(0, 1))
    def new_key(self, by: int):
        key = self.stores[by].new_key()
        self.why[key] = MissingReason.NEVER_STORED
        return key

    @rule(by=st.integers(0, 1), key=keys, size=SIZES)
    def set(self, by: int, key: SharedMemoryKey, size: int) -> None:
        data = self.data(size)
        try:
            self.stores[by].set(key, data)
        except StorageFullError:
            return
        self.model[key] = data
        self.why.pop(key, None)

    @rule(by=st.integers(0, 1), key=keys)
    def evict(self, by: int, key: SharedMemoryKey) -> None:
        self.stores[by].evict(key)
        if self.model.pop(key, None) is not None:
            self.why[key] = MissingReason.EVICTED

    @rule(by=st.integers(0, 1), key=keys)
    def expire(self, by: int, key: SharedMemoryKey) -> None:
        self.stores[by].expire(key)
        if self.model.pop(key, None) is not None:
            self.why[key] = MissingReason.EXPIRED

    @rule(target=views, by=st.integers(0, 1), key=keys, private=st.booleans())
    def get(self, by: int, key: SharedMemoryKey, private: bool):
        store = self.stores[by]
        found = store.get_view(key) if private else store.get(key)
        assert (found is not None) == store.exists(key) == (key in self.model)
        if found is None:
            assert store.missing_reason(key) is self.why[key]
            return multiple()
        assert found == self.model[key]
        return found, self.model[key]

    @rule(view=consumes(views))
    def let_go(self, view) -> None:
        found, data = view
        assert found == data

    @rule(view=views)
    def look_again(self, view) -> None:
        found, data = view
        assert found == data

    @invariant()
    def both_count_the_same(self) -> None:
        for store in self.stores:
            usage = store.usage()
            assert usage.objects == len(self.model)
            assert usage.nbytes == sum(map(len, self.model.values()))
            assert usage.nbytes + usage.reserved <= QUOTA
            assert set(store.keys()) == set(self.model)


TestSharedDirectory = SharedDirectory.TestCase
TestSharedDirectory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
