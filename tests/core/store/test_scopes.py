from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from proxystore_core.exceptions import MutableBorrowError, ReferenceInvalidError
from proxystore_core.store import Store
from proxystore_core.store.ref import RefMutProxy, RefProxy, borrow, mut_borrow, update
from proxystore_core.store.scopes import FutureWithCallback, mark_refs_out_of_scope, submit
from proxystore_core.store.utils import get_key


def add(values: Any, more: int = 0) -> int:
    return sum(values) + more


def grow(values: Any) -> int:
    values.append(4)
    update(values)
    return len(values)


def test_references_in_all_places_end_with_the_task(store: Store) -> None:
    future: Future[int] = Future()
    assert isinstance(future, FutureWithCallback)
    owners = [store.owned_proxy([1]) for _ in range(3)]
    refs: list[Any] = [borrow(owners[0]), mut_borrow(owners[1]), borrow(owners[2])]
    plain = store.proxy([1], populate_target=False)
    calls = []

    def run(*args: Any, **kwargs: Any) -> Future[int]:
        calls.append((args, kwargs))
        return future

    made = submit(run, args=(refs[0], plain), kwargs={"x": refs[1]}, register_custom_refs=[refs[2]])
    assert made is future
    assert [kind for args, _ in calls for kind in map(type, args)] == [RefProxy, type(plain)]
    assert type(calls[0][1]["x"]) is RefMutProxy
    for owner in owners:
        with pytest.raises(MutableBorrowError):
            mut_borrow(owner)
    future.set_result(1)
    for ref in refs:
        with pytest.raises(ReferenceInvalidError):
            len(ref)
    for owner in owners:
        mut_borrow(owner)


def test_owners_may_go_when_the_task_is_over(store: Store) -> None:
    future: Future[int] = Future()
    owner = store.owned_proxy([1])
    key = get_key(owner)
    ref = borrow(owner)
    submit(lambda *args: future, args=(ref,))
    del owner
    assert store.exists(key)
    future.set_exception(ValueError())
    assert not store.exists(key)
    del ref


def test_marking_twice_is_no_error(store: Store) -> None:
    owner = store.owned_proxy([1])
    ref = borrow(owner)
    mark_refs_out_of_scope(ref)
    mark_refs_out_of_scope(ref, ref)
    mut_borrow(owner)


def test_a_reference_that_came_from_elsewhere_is_refused(store: Store) -> None:
    import pickle

    owner = store.owned_proxy([1])
    there = pickle.loads(pickle.dumps(borrow(owner)))
    with pytest.raises(ReferenceInvalidError, match="borrowed in another process"):
        mark_refs_out_of_scope(there)


def test_a_thread_pool(store: Store) -> None:
    owner = store.owned_proxy([1, 2, 3])
    with ThreadPoolExecutor(1) as pool:
        assert submit(pool.submit, args=(add, borrow(owner)), kwargs={"more": 1}).result(10) == 7
        assert submit(pool.submit, args=(grow, mut_borrow(owner))).result(10) == 4
    assert store.get(get_key(owner)) == [1, 2, 3, 4]


def test_a_process_pool(shm_store: Store) -> None:
    owner = shm_store.owned_proxy([1, 2, 3])
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        future = submit(pool.submit, args=(add, borrow(owner)))
        assert future.result(30) == 6
        assert submit(pool.submit, args=(grow, mut_borrow(owner))).result(30) == 4
    assert shm_store.get(get_key(owner)) == [1, 2, 3, 4]
    update(owner)
