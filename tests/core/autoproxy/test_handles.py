from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from proxystore_core.autoproxy import Lease, Session
from proxystore_core.autoproxy.handles import Keeper, find_entry
from proxystore_core.autoproxy.refs import Ref, channel_of
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.exceptions import ConnectorError
from proxystore_core.store import Store

BIG = 50_000


def put(keeper: Keeper) -> Any:
    key = keeper.store.put(b"x" * 100)
    return keeper.adopt(Ref(channel_of(keeper.store), key, 100))


@pytest.fixture
def keeper(store: Store[Any]) -> Any:
    made = Keeper(store)
    yield made
    made.close()


def test_the_last_holder_evicts(keeper: Keeper, count: Any) -> None:
    entry = put(keeper)
    one, two = Lease([entry]), Lease()
    two.add(entry)
    assert keeper.adopt(entry.ref) is entry
    assert find_entry(entry.ref) is entry
    assert len(one) == 1
    del entry
    one.release()
    one.release()
    assert count(keeper.store) == 1
    two.release()
    assert count(keeper.store) == 0
    assert keeper.evicted == 1
    with pytest.raises(ValueError, match="released"):
        two.add(put(keeper))
    one.join(two)


def test_a_lease_may_leave_its_objects(keeper: Keeper, count: Any) -> None:
    entry = put(keeper)
    key = entry.ref.key
    lease = Lease([entry])
    del entry
    lease.leave()
    lease.leave()
    assert len(lease) == 0
    keeper.close()
    assert count(keeper.store) == 1
    keeper.store.evict(key)


def test_a_kept_object_stays(keeper: Keeper, count: Any) -> None:
    entry = put(keeper)
    keeper.give_up(entry)
    assert not entry.alive
    key = entry.ref.key
    del entry
    assert count(keeper.store) == 1
    keeper.store.evict(key)


def test_close_evicts_what_is_held(keeper: Keeper, count: Any) -> None:
    entries = [put(keeper) for _ in range(3)]
    assert len(keeper) == 3
    keeper.close()
    assert count(keeper.store) == 0
    assert not entries[0].alive
    assert find_entry(entries[0].ref) is None


class Strict(LocalConnector):
    """A connector that may not be entered twice by one thread, and collects garbage inside."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lock = threading.Lock()

    def put(self, obj: Any) -> Any:
        assert self.lock.acquire(timeout=5), "entered twice"
        try:
            gc.collect()
            return super().put(obj)
        finally:
            self.lock.release()

    def evict(self, key: Any) -> None:
        assert self.lock.acquire(timeout=5), "entered twice"
        try:
            super().evict(key)
        finally:
            self.lock.release()


Strict.__module__ = "strict_connector"
sys.modules["strict_connector"] = sys.modules[__name__]


def test_a_collection_inside_the_store_is_no_deadlock(eventually: Any, count: Any) -> None:
    with Store("strict", Strict()) as store:
        keeper = Keeper(store)
        for _ in range(20):
            loop: list[Any] = [put(keeper)]
            loop.append(loop)
            del loop
            assert eventually(lambda: count(store) <= 1)
        gc.collect()
        assert eventually(lambda: count(store) == 0)
        assert keeper.evicted == 20
        keeper.close()


def test_dropping_from_many_threads(keeper: Keeper, eventually: Any, count: Any) -> None:
    entries = [[put(keeper) for _ in range(50)] for _ in range(4)]
    threads = [threading.Thread(target=group.clear) for group in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eventually(lambda: count(keeper.store) == 0)
    assert len(keeper) == 0


class Failing(LocalConnector):
    broken = True

    def evict(self, key: Any) -> None:
        if self.broken:
            raise ConnectorError("no way")
        super().evict(key)


def test_what_could_not_be_evicted_is_tried_again(
    caplog: pytest.LogCaptureFixture, eventually: Any, count: Any
) -> None:
    connector = Failing()
    with Store("failing", connector) as store:
        keeper = Keeper(store)
        entry = put(keeper)
        with caplog.at_level(logging.WARNING):
            del entry
            assert eventually(lambda: "Could not evict" in caplog.text)
        assert count(store) == 1
        connector.broken = False
        keeper.close()
        assert count(store) == 0


def test_a_forked_child_evicts_nothing(store: Store[Any], tasks: Any, count: Any) -> None:
    with Session(store) as session:
        held = [session.prepare(tasks.total, (np.ones(BIG),))]

        def child() -> None:
            held.clear()
            gc.collect()
            session.close()
            try:
                session.prepare(tasks.total, (np.ones(BIG),))
            except Exception as error:
                os._exit(7 if "parent process" in str(error) or "closed" in str(error) else 1)
            os._exit(1)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 7
        process.close()
        assert count(store) == 1
        held[0].lease.release()


def test_a_forgotten_session_lets_go_with_its_last_result(tasks: Any, count: Any) -> None:
    store = Store("forgotten")
    session = Session(store, own_store=True)
    task = session.prepare(tasks.identity, (np.ones(BIG),))
    result = session.result(task.func(*task.args))
    task.lease.release()
    del session, task
    gc.collect()
    assert result.sum() == BIG
    assert not store.closed
    del result
    gc.collect()
    assert store.closed


SCRIPT = """
import gc, sys
import numpy as np
from proxystore_core.autoproxy import Session
from proxystore_core.store import Store

store = Store("exit")
session = Session(store, own_store={own})
task = session.prepare(np.negative, (np.ones(50_000),))
result = session.result(task.func(*task.args))
loop = [result]
loop.append(loop)
kept = {{"result": result, "task": task}}
if {close_store}:
    store.close()
sys.stdout.write("done")
"""


@pytest.mark.parametrize(("own", "close_store"), [(True, False), (False, False), (False, True)])
def test_the_end_of_the_interpreter_leaves_nothing(own: bool, close_store: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SCRIPT.format(own=own, close_store=close_store)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "done"
    assert done.stderr == ""
