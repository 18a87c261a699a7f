"""Stores, caches, proxies and lifetimes against a dictionary."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import (
    LifetimeClosedError,
    MissingReason,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
)
from proxystore_core.proxy import extract
from proxystore_core.store import Store
from proxystore_core.store.lifetimes import ContextLifetime, LeaseLifetime
from proxystore_core.store.ref import borrow, clone, mut_borrow, update
from proxystore_core.store.utils import get_key

MISSING = object()
VALUES = st.one_of(
    st.integers(),
    st.text(max_size=20),
    st.sampled_from([0, 10, 1000, 2000, 4000]).map(bytes),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(0, 400).map(lambda size: np.arange(size)),
)
LISTS = st.lists(st.integers(0, 9), max_size=4)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    return type(one) is type(other) and one == other


class StoreMachine(RuleBasedStateMachine):
    """One channel, seen through two stores, as two processes would."""

    kind: ClassVar[str]

    keys = Bundle("keys")
    lifetimes = Bundle("lifetimes")
    pickles = Bundle("pickles")
    owners = Bundle("owners")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp() if self.kind == "file" else None
        connector: Any = (
            LocalConnector()
            if self.kind == "local"
            else FileConnector(f"{self.directory}/objects")
            if self.kind == "file"
            else SharedMemoryConnector()
        )
        self.store = Store("one", connector, cache_size=2, cache_bytes=3000)
        self.other = Store.from_config(self.store.config())
        self.stores = [self.store, self.other]
        self.model: dict[Any, Any] = {}
        self.gone: dict[Any, MissingReason] = {}
        self.held: dict[Any, set[Any]] = {}
        self.deferred: set[Any] = set()
        self.loose: set[Any] = set()  # of these, several things say why they are gone

    def teardown(self) -> None:
        for lifetime in self.held:
            lifetime.close()
        for store in reversed(self.stores):
            store.close()
        if self.directory is not None:
            shutil.rmtree(self.directory)

    def stored(self, key: Any, value: Any) -> Any:
        assert key not in self.model
        self.model[key] = value
        return key

    def remove(self, keys: Any, reason: MissingReason) -> None:
        for key in keys:
            if self.model.pop(key, MISSING) is not MISSING:
                self.gone[key] = reason
                for store in self.stores:
                    self.check_missing(key, store.missing_reason(key))

    def check_missing(self, key: Any, reason: MissingReason) -> None:
        if key in self.gone and key not in self.loose:
            vague = self.kind == "file" and reason is MissingReason.UNKNOWN
            assert reason is self.gone[key] or (vague and key in self.deferred)

    @initialize(target=keys)
    def start(self) -> Any:
        values = [[1], bytes(1000), bytes(2500)]
        return multiple(*map(self.stored, self.store.put_batch(values), values))

    @initialize(target=lifetimes)
    def begin(self) -> Any:
        made = [LeaseLifetime(self.store, 3600), ContextLifetime(self.other)]
        for lifetime in made:
            self.held[lifetime] = {
                self.stored(self.store.put("for a time", lifetime=lifetime), "for a time")
            }
        return multiple(*made)

    @rule(target=keys, value=VALUES, which=st.integers(0, 1))
    def put(self, value: Any, which: int) -> Any:
        return self.stored(self.stores[which].put(value), value)

    @rule(target=keys, values=st.lists(VALUES, max_size=3), which=st.integers(0, 1))
    def put_batch(self, values: list[Any], which: int) -> Any:
        found = self.stores[which].put_batch(values)
        return multiple(*map(self.stored, found, values))

    @rule(target=keys)
    def new_key(self) -> Any:
        key = self.store.connector.new_key()
        assert self.store.missing_reason(key) in (
            MissingReason.NEVER_STORED,
            MissingReason.UNKNOWN,
        )
        self.deferred.add(key)
        return key

    @rule(key=keys, value=VALUES, which=st.integers(0, 1))
    def set(self, key: Any, value: Any, which: int) -> None:
        self.stores[which]._set(key, value)
        if key in self.gone:
            self.loose.add(key)
        self.model[key] = value

    @rule(key=keys, which=st.integers(0, 1), writable=st.booleans())
    def get(self, key: Any, which: int, writable: bool) -> None:
        store, expected = self.stores[which], self.model.get(key, MISSING)
        for _ in range(2):
            found = store.get(key, default=MISSING, writable=writable)
            assert same(found, expected)
            if isinstance(found, list):  # what a consumer does to its copy is its own affair
                found.append("changed")
            elif writable and isinstance(found, np.ndarray) and found.size:
                found[0] += 1
        if expected is MISSING:
            self.check_missing(key, store.missing_reason(key))

    @rule(some=st.lists(keys, max_size=3), which=st.integers(0, 1))
    def get_batch(self, some: list[Any], which: int) -> None:
        found = self.stores[which].get_batch(some, default=MISSING)
        assert all(map(same, found, [self.model.get(key, MISSING) for key in some]))

    @rule(key=keys, which=st.integers(0, 1))
    def exists(self, key: Any, which: int) -> None:
        assert self.stores[which].exists(key) == (key in self.model)

    @rule(key=keys, which=st.integers(0, 1))
    def evict(self, key: Any, which: int) -> None:
        self.stores[which].evict(key)
        self.remove([key], MissingReason.EVICTED)
        assert not self.stores[which].is_cached(key)
        assert self.stores[1 - which].get(key) is None

    @rule(target=pickles, key=keys, evict=st.booleans(), which=st.integers(0, 1))
    def proxy(self, key: Any, evict: bool, which: int) -> Any:
        return pickle.dumps(self.stores[which].proxy_from_key(key, evict=evict)), key, evict

    @rule(pickled=pickles)
    def resolve(self, pickled: tuple[bytes, Any, bool]) -> None:
        data, key, evict = pickled
        proxy = pickle.loads(data)
        if key in self.model:
            assert same(extract(proxy), self.model[key])
            if evict:
                self.remove([key], MissingReason.EVICTED)
            return
        with pytest.raises(ProxyResolveError) as caught:
            extract(proxy)
        assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)
        self.check_missing(key, caught.value.cause.reason)

    @rule(target=lifetimes, lease=st.booleans())
    def lifetime(self, lease: bool) -> Any:
        made = LeaseLifetime(self.store, 3600) if lease else ContextLifetime(self.other)
        self.held[made] = set()
        return made

    @rule(target=keys, lifetime=lifetimes, value=VALUES)
    def put_for_a_time(self, lifetime: Any, value: Any) -> Any:
        try:
            key = lifetime.store.put(value, lifetime=lifetime)
        except LifetimeClosedError:
            assert lifetime.done()
            return multiple()
        assert not lifetime.done()
        self.held[lifetime].add(key)
        return self.stored(key, value)

    @rule(lifetime=lifetimes, key=keys)
    def keep_for_a_time(self, lifetime: Any, key: Any) -> None:
        try:
            lifetime.add_key(key)
        except LifetimeClosedError:
            assert lifetime.done()
        else:
            self.held[lifetime].add(key)

    @rule(lifetime=lifetimes, expire=st.booleans())
    def end(self, lifetime: Any, expire: bool) -> None:
        reason = MissingReason.EVICTED
        if expire and isinstance(lifetime, LeaseLifetime):
            lifetime._expiry = 0  # its alarm would go off an hour later
            lifetime._expire()
            reason = MissingReason.EXPIRED
        lifetime.close()
        assert lifetime.done()
        self.remove(self.held[lifetime], reason)
        self.held[lifetime].clear()

    @rule(target=owners, value=LISTS, travel=st.booleans())
    def own(self, value: list[int], travel: bool) -> Any:
        owner = self.store.owned_proxy(list(value), populate_target=not travel)
        self.stored(get_key(owner), value)
        return pickle.loads(pickle.dumps(owner)) if travel else owner

    @rule(target=owners, owner=owners)
    def clone(self, owner: Any) -> Any:
        if get_key(owner) not in self.model:
            return multiple()
        copied = clone(owner)
        self.stored(get_key(copied), self.model[get_key(owner)])
        return copied

    @rule(owner=owners, number=st.integers(0, 9))
    def change(self, owner: Any, number: int) -> None:
        value = self.model[get_key(owner)]
        assert list(borrow(owner)) == value
        writer = mut_borrow(owner)
        writer.append(number)
        update(writer)
        if not owner.__proxy_resolved__:
            assert extract(owner)[-1] == number
        self.model[get_key(owner)] = [*value, number]

    @rule(owner=consumes(owners))
    def disown(self, owner: Any) -> None:
        key = get_key(owner)
        owner.__proxy_finalizer__()  # hypothesis itself may hold the proxy on
        self.remove([key], MissingReason.EVICTED)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for store in self.stores:
            assert set(store.keys()) == set(self.model)
            assert len(store.cache) <= 2
            assert store.cache.nbytes <= 3000


def run(kind: str, examples: int, steps: int) -> None:
    machine = type(f"{kind.title()}Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("kind", "examples"), [("local", 1000), ("file", 500), ("shm", 500)])
def test_against_a_dictionary(kind: str, examples: int) -> None:
    run(kind, examples, 10)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["local", "file", "shm"])
def test_against_a_dictionary_for_long(kind: str) -> None:
    run(kind, 10_000, 50)
