from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import (
    MutableBorrowError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    ProxyStoreFactoryError,
    ReferenceInvalidError,
    ReferenceNotOwnedError,
    StoreArgumentError,
    StoreUnsupportedError,
)
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, extract, get_info, is_resolved, resolve
from proxystore_core.store import Store
from proxystore_core.store.ref import (
    BaseRefProxy,
    OwnedProxy,
    RefMutProxy,
    RefProxy,
    borrow,
    clone,
    into_owned,
    mut_borrow,
    update,
)
from proxystore_core.store.utils import get_key


def travel(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj))


def test_the_object_goes_with_its_owner(store: Store) -> None:
    owner = store.owned_proxy([1])
    key = get_key(owner)
    assert isinstance(owner, list)
    assert owner == [1]
    del owner
    assert not store.exists(key)


def test_an_owner_in_a_cycle_is_collected(store: Store) -> None:
    holder: dict[str, Any] = {"owner": store.owned_proxy([1])}
    holder["itself"] = holder
    key = get_key(holder["owner"])
    del holder
    gc.collect()
    pause = threading.Event()
    while store.exists(key):
        assert not pause.wait(0.005)


def test_borrowers_keep_the_owner(store: Store) -> None:
    owner = store.owned_proxy([1])
    key = get_key(owner)
    borrowed = borrow(owner)
    del owner
    assert store.exists(key)
    assert borrowed == [1]
    del borrowed
    assert not store.exists(key)


def test_readers_or_one_writer(store: Store) -> None:
    owner = store.owned_proxy([1])
    readers = [borrow(owner), borrow(owner)]
    with pytest.raises(MutableBorrowError):
        mut_borrow(owner)
    with pytest.raises(MutableBorrowError):
        update(owner)
    readers.pop()
    with pytest.raises(MutableBorrowError):
        mut_borrow(owner)
    readers.pop()
    writer = mut_borrow(owner)
    for call in (borrow, mut_borrow, update):
        with pytest.raises(MutableBorrowError):
            call(owner)
    del writer
    borrow(owner)


def test_threads_get_one_writer(store: Store) -> None:
    owner = store.owned_proxy([1])
    barrier = threading.Barrier(8)

    def lend() -> Any:
        barrier.wait(10)
        try:
            return mut_borrow(owner)
        except MutableBorrowError:
            return None

    with ThreadPoolExecutor(8) as pool:
        lent = [future.result() for future in [pool.submit(lend) for _ in range(8)]]
    assert sum(type(ref) is RefMutProxy for ref in lent) == 1


def test_targets_are_shared_unless_told_otherwise(store: Store) -> None:
    owner = store.owned_proxy(obj := [1])
    assert extract(borrow(owner)) is obj
    assert not is_resolved(borrow(owner, populate_target=False))
    assert not is_resolved(mut_borrow(owner, populate_target=False))
    assert borrow(owner, populate_target=False) == [1]
    unresolved = store.owned_proxy([1], populate_target=False)
    assert not is_resolved(unresolved)
    assert not is_resolved(borrow(unresolved))
    assert len(borrow(unresolved)) == 1


def test_update(store: Store) -> None:
    owner = store.owned_proxy([1])
    writer = mut_borrow(owner)
    writer.append(2)
    assert store.get(get_key(owner)) == [1]
    update(writer)
    assert store.get(get_key(owner)) == [1, 2]
    with pytest.raises(MutableBorrowError):
        update(owner)
    del writer
    owner.append(3)
    update(owner)
    assert store.get(get_key(owner)) == [1, 2, 3]
    with pytest.raises(ReferenceNotOwnedError, match="only reads"):
        update(borrow(owner))  # type: ignore[arg-type]
    with pytest.raises(ReferenceNotOwnedError):
        update(store.proxy([1]))  # type: ignore[arg-type]


def test_what_is_known_follows_an_update(store: Store) -> None:
    owner = store.owned_proxy([1])
    owner.append(2)
    update(owner)
    assert len(borrow(owner, populate_target=False)) == 2
    writer = travel(mut_borrow(owner))
    writer.append(3)
    update(writer)
    assert len(travel(owner)) == 3


def test_update_of_an_unresolved_target_does_nothing(store: Store) -> None:
    owner = travel(store.owned_proxy([1]))
    update(owner)
    assert not is_resolved(owner)


def test_a_moved_owner_can_change_arrays(store: Store) -> None:
    owner = travel(store.owned_proxy(np.zeros(1000)))
    owner[0] = 5
    update(owner)
    assert store.get(get_key(owner))[0] == 5
    reader = borrow(owner, populate_target=False)
    with pytest.raises(ValueError, match="read-only"):
        reader[0] = 1


def test_what_another_process_changed_is_seen(store: Store) -> None:
    owner = store.owned_proxy([1])
    key = get_key(owner)
    assert store.get(key) == [1]
    with Store.from_config(store.config()) as other:
        other._set(key, [2])
    assert borrow(owner, populate_target=False) == [2]


def test_update_needs_a_connector_that_can_set(plain_store: Store) -> None:
    owner = plain_store.owned_proxy([1])
    with pytest.raises(StoreUnsupportedError, match="PlainConnector"):
        update(owner)


@pytest.mark.parametrize("size", [1, 300_000])
def test_clone(store: Store, size: int) -> None:
    owner = store.owned_proxy(np.zeros(size))
    copied = clone(owner)
    assert type(copied) is OwnedProxy
    assert get_key(copied) != get_key(owner)
    assert get_info(copied) == get_info(owner)
    owner[0] = 1
    assert copied[0] == 0
    there = travel(copied)
    del owner
    assert there.sum() == 0
    assert not is_resolved(clone(travel(clone(there))))


def test_clone_of_what_is_gone(store: Store) -> None:
    owner = store.owned_proxy([1])
    store.evict(get_key(owner))
    with pytest.raises(ProxyResolveMissingKeyError, match="evicted"):
        clone(owner)


def test_into_owned(store: Store) -> None:
    proxy = store.proxy([1], evict=True)
    owner = into_owned(proxy)
    assert extract(owner) is extract(proxy)
    assert not is_resolved(into_owned(store.proxy([1]), populate_target=False))
    key = get_key(owner)
    there = travel(owner)
    assert there == [1]
    assert store.exists(key)  # not evicted by resolving: its owner does that
    del there
    assert not store.exists(key)
    for ref in (other := store.owned_proxy([1]), borrow(other)):
        with pytest.raises(StoreArgumentError, match="cannot become an owner"):
            into_owned(ref)
    with pytest.raises(ProxyStoreFactoryError):
        into_owned(Proxy(SimpleFactory([1])))


@pytest.mark.parametrize("call", [borrow, mut_borrow, clone])
def test_only_owners_lend(store: Store, call: Callable[[Any], Any]) -> None:
    owner = store.owned_proxy([1])
    unresolved = store.proxy([1], populate_target=False)
    for other in (borrow(owner), unresolved, [1]):
        with pytest.raises(ReferenceNotOwnedError, match="owns nothing"):
            call(other)
    assert not is_resolved(unresolved)


def test_pickling_moves(store: Store) -> None:
    owner = store.owned_proxy([1])
    key = get_key(owner)
    there = travel(owner)
    for use in (len, resolve, hash, list, borrow, clone, update, pickle.dumps):
        with pytest.raises(ReferenceInvalidError, match="pickled"):
            use(owner)
    del owner
    assert store.exists(key)
    assert type(there) is OwnedProxy
    assert there == [1]
    del there
    assert not store.exists(key)


def test_borrowed_references_travel_without_their_owner(store: Store) -> None:
    owner = store.owned_proxy([1])
    for lend in (borrow, mut_borrow):
        ref = lend(owner)
        there = travel(ref)
        assert type(there) is type(ref)
        assert there == [1]
        del there
        assert store.exists(get_key(owner))
        with pytest.raises(ReferenceInvalidError):
            len(ref)
        with pytest.raises(MutableBorrowError):
            mut_borrow(owner)  # it is still lent
        del ref
    mut_borrow(owner)


def test_pickles_are_small(shm_store: Store) -> None:
    owner = shm_store.owned_proxy(np.zeros((1000, 1000)))
    assert len(pickle.dumps(borrow(owner))) <= 250
    assert len(pickle.dumps(owner)) <= 250


def test_references_cannot_be_copied(store: Store) -> None:
    owner = store.owned_proxy([1])
    for ref in (owner, borrow(owner)):
        for copy_ in (copy.copy, copy.deepcopy):
            with pytest.raises(StoreUnsupportedError, match=r"clone\(\)") as caught:
                copy_(ref)
            assert isinstance(caught.value, NotImplementedError)


def test_kinds(store: Store) -> None:
    owner = store.owned_proxy([1])
    assert [type(ref).__mro__[:1] for ref in (owner, borrow(owner))] == [(OwnedProxy,), (RefProxy,)]
    assert all(issubclass(kind, BaseRefProxy) for kind in (OwnedProxy, RefProxy, RefMutProxy))


def test_resolving_after_the_owner_is_gone_elsewhere(store: Store) -> None:
    owner = store.owned_proxy([1])
    there = travel(borrow(owner, populate_target=False))
    del owner
    gc.collect()
    with pytest.raises(ProxyResolveError, match="evicted"):
        resolve(there)


def test_a_forked_child_evicts_nothing_of_its_parent(store: Store) -> None:
    owner = store.owned_proxy([1])
    key = get_key(owner)
    pid = os.fork()
    if pid == 0:
        del owner
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)
    assert store.exists(key)


SCRIPT = """
import sys
from proxystore_core.connectors.file import FileConnector
from proxystore_core.store import Store
from proxystore_core.store.ref import borrow, mut_borrow
class Holder: pass
store = Store("test", FileConnector(sys.argv[1], clear=False), register=True)
owner = store.owned_proxy([1])
reader = borrow(owner)
writer = mut_borrow(other := store.owned_proxy([2]))
cycle = Holder(); cycle.itself = cycle; cycle.owner = store.owned_proxy([3])
del cycle
print(store.usage().objects)
{body}
"""


@pytest.mark.parametrize("body", ["", "store.close()", "del store", "sys.exit(3)", "1/0"])
def test_owners_evict_without_a_word_as_the_process_ends(tmp_path: Path, body: str) -> None:
    run = [sys.executable, "-c", SCRIPT.format(body=body), str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "3"
    assert "Exception ignored" not in done.stderr
    assert done.stderr == "" or body == "1/0"
    with Store("test", FileConnector(str(tmp_path), clear=False)) as store:
        assert store.usage().objects == 0


def test_owners_of_shared_memory_end_without_a_word(tmp_path: Path) -> None:
    body = "with Store('shm') as shm: left = shm.owned_proxy([4]); reader = borrow(left)"
    for more in ("", "; sys.exit()"):
        run = [sys.executable, "-c", SCRIPT.format(body=body + more), str(tmp_path)]
        done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == ""


def test_an_eviction_that_fails_is_logged(
    plain: Any, plain_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: Any) -> None:
        raise ConnectionError("down")

    owner = plain_store.owned_proxy([1])
    plain.evict = fail
    del owner
    assert "down" in caplog.text
