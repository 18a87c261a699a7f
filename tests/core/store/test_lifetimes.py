from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import (
    LifetimeClosedError,
    LifetimeError,
    MissingReason,
    ProxyStoreFactoryError,
    StoreArgumentError,
)
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy
from proxystore_core.store import Store, _background
from proxystore_core.store.lifetimes import (
    ContextLifetime,
    LeaseLifetime,
    Lifetime,
    StaticLifetime,
    register_lifetime_atexit,
)
from proxystore_core.store.utils import get_key

HOUR = 3600.0


def wait_for(condition: Any) -> None:
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.005)


@pytest.mark.parametrize("make", [ContextLifetime, lambda store: LeaseLifetime(store, HOUR)])
def test_objects_go_with_their_lifetime(store: Store, make: Any) -> None:
    with make(store) as lifetime:
        assert isinstance(lifetime, Lifetime)
        assert not lifetime.done()
        keys = [store.put("a", lifetime=lifetime), *store.put_batch("bc", lifetime=lifetime)]
        proxies = [store.proxy("d", lifetime=lifetime), *store.proxy_batch("e", lifetime=lifetime)]
        added = store.proxy("f")
        lifetime.add_proxy(added)
        stays = store.put("stays")
        lifetime.add_key(other := store.put("g"))
        keys += [*map(get_key, [*proxies, added]), other]
        assert all(map(store.exists, keys))
    assert lifetime.done()
    assert not any(map(store.exists, keys))
    assert {store.missing_reason(key) for key in keys} == {MissingReason.EVICTED}
    assert store.exists(stays)
    lifetime.close()


def test_a_lifetime_that_ended_takes_nothing(store: Store) -> None:
    lifetime = LeaseLifetime(store, HOUR, name="mine")
    lifetime.close()
    for call in (
        lambda: lifetime.add_key(store.put("a")),
        lambda: lifetime.add_proxy(store.proxy("a")),
        lambda: lifetime.extend(1),
    ):
        with pytest.raises(LifetimeClosedError, match="'mine'") as caught:
            call()
        assert isinstance(caught.value, RuntimeError)


def test_only_proxies_of_stores_are_taken_and_then_all_or_none(store: Store) -> None:
    with ContextLifetime(store) as lifetime:
        proxy = store.proxy("a")
        with pytest.raises(ProxyStoreFactoryError):
            lifetime.add_proxy(proxy, Proxy(SimpleFactory(1)))
    assert store.exists(get_key(proxy))


def test_close_stores(make_connector: Any) -> None:
    store = Store("test", make_connector("shm"))
    lifetime = ContextLifetime(store)
    store.put("a", lifetime=lifetime)
    lifetime.close(close_stores=True)
    assert store.closed


def test_objects_of_several_stores(store: Store, local_store: Store) -> None:
    with ContextLifetime(store) as lifetime:
        here, there = store.proxy("a"), local_store.proxy("b")
        lifetime.add_proxy(here, there)
    assert not store.exists(get_key(here))
    assert not local_store.exists(get_key(there))


def test_ending_goes_on_after_a_failure(plain: Any, plain_store: Store) -> None:
    lifetime = ContextLifetime(plain_store)
    keys = plain_store.put_batch(["a", "b", "c"], lifetime=lifetime)
    evict = plain.evict

    def fail(key: Any) -> None:
        if key == keys[1]:
            raise ConnectionError("down")
        evict(key)

    plain.evict = fail
    with pytest.raises(LifetimeError, match="down"):
        lifetime.close()
    assert lifetime.done()
    assert [plain_store.exists(key) for key in keys] == [False, True, False]


def test_threads_that_add_while_it_ends_leave_nothing(store: Store) -> None:
    lifetime = ContextLifetime(store)
    barrier = threading.Barrier(4)

    def add() -> None:
        barrier.wait(10)
        try:
            while True:
                store.put("value", lifetime=lifetime)
        except LifetimeClosedError:
            pass

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(add) for _ in range(3)]
        barrier.wait(10)
        wait_for(lambda: store.usage().objects > 10)
        lifetime.close()
        for future in futures:
            future.result(10)
    assert store.usage().objects == 0


@pytest.mark.parametrize(
    "expiry",
    [
        lambda: 0.02,
        lambda: 0,
        lambda: -1,
        lambda: timedelta(seconds=0.02),
        lambda: datetime.now() + timedelta(seconds=0.02),
        lambda: datetime.now().astimezone() + timedelta(seconds=0.02),
    ],
)
def test_a_lease_expires(store: Store, expiry: Any) -> None:
    lifetime = LeaseLifetime(store, expiry())
    try:
        key = store.put("value", lifetime=lifetime)
    except LifetimeClosedError:
        assert store.usage().objects == 0
        return
    wait_for(lifetime.done)
    wait_for(lambda: not store.exists(key))
    assert store.missing_reason(key) is MissingReason.EXPIRED


@pytest.mark.parametrize("expiry", [math.nan, math.inf, "soon", True, None])
def test_what_is_no_time_is_refused(local_store: Store, expiry: Any) -> None:
    with pytest.raises(StoreArgumentError, match="when a lease ends"):
        LeaseLifetime(local_store, expiry)
    with LeaseLifetime(local_store, HOUR) as lifetime, pytest.raises(StoreArgumentError):
        lifetime.extend(expiry)


def test_a_lease_can_be_moved(local_store: Store) -> None:
    lifetime = LeaseLifetime(local_store, 0.05)
    lifetime.extend(HOUR)
    lifetime.extend(timedelta(hours=1))
    assert lifetime._expiry > time.monotonic() + 1.5 * HOUR
    # ProxyStore went on to wait for the old end.
    lifetime.extend(datetime.now().astimezone())
    wait_for(lifetime.done)


def test_an_extension_beats_the_alarm(local_store: Store) -> None:
    with LeaseLifetime(local_store, HOUR) as lifetime:
        lifetime._expire()  # as if the alarm had gone off just before it was extended
        assert not lifetime.done()


def test_leases_share_one_thread_and_need_none_at_the_end(local_store: Store) -> None:
    # ProxyStore started a thread for each, which kept the process from ending.
    leases = [LeaseLifetime(local_store, HOUR) for _ in range(100)]
    timers = [t for t in threading.enumerate() if t.name == "proxystore-timer"]
    assert len(timers) == 1
    for lease in leases:
        lease.close()
    wait_for(lambda: not timers[0].is_alive())
    assert not _background._timers._heap


def test_static_lifetime(store: Store) -> None:
    lifetime = StaticLifetime()
    try:
        assert StaticLifetime() is lifetime
        key = store.put("a", lifetime=lifetime)
        proxy = store.proxy("b", lifetime=lifetime)
        lifetime.add_proxy(added := store.proxy("c"))
        with pytest.raises(StoreArgumentError, match="store=store"):
            lifetime.add_key(key)
    finally:
        lifetime.close()
    assert not any(map(store.exists, [key, get_key(proxy), get_key(added)]))
    assert lifetime.done()
    assert StaticLifetime() is not lifetime
    StaticLifetime().close()


SCRIPT = """
import sys
from proxystore_core.connectors.file import FileConnector
from proxystore_core.store import Store
from proxystore_core.store.lifetimes import *
store = Store("test", FileConnector(sys.argv[1], clear=False))
kept = store.put("kept")
lifetime = {lifetime}
store.put("goes", lifetime=lifetime)
if {at_exit}:
    register_lifetime_atexit(lifetime)
print(store.usage().objects)
if not {leave_open}:
    store.close()
"""


@pytest.mark.parametrize("leave_open", [True, False])
@pytest.mark.parametrize(
    ("lifetime", "at_exit"),
    [
        ("StaticLifetime()", False),
        ("LeaseLifetime(store, 1000)", False),
        ("ContextLifetime(store)", True),
    ],
)
def test_lifetimes_end_with_the_process(
    tmp_path: Path, lifetime: str, at_exit: bool, leave_open: bool
) -> None:
    script = SCRIPT.format(lifetime=lifetime, at_exit=at_exit, leave_open=leave_open)
    run = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("2", "")
    with Store("test", FileConnector(str(tmp_path), clear=False)) as store:
        assert [store.get(key) for key in store.keys()] == ["kept"]


def test_a_forked_child_ends_no_lifetime_of_its_parent(local_store: Store) -> None:
    lifetime = ContextLifetime(local_store)
    end = register_lifetime_atexit(lifetime)
    pid = os.fork()
    if pid == 0:
        end()
        os._exit(0 if not lifetime.done() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    end()
    assert lifetime.done()
