from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector, LocalKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    CorruptObjectError,
    LifetimeClosedError,
    MissingReason,
    SerializationError,
    StoreConfigError,
    StoreUnsupportedError,
)
from proxystore_core.serialize import deserialize, read_header, serialize
from proxystore_core.store import Store
from proxystore_core.store.lifetimes import ContextLifetime

DEADLINE = 10
OBJECTS = [None, True, 0, "text", b"bytes", [1, {"a": (2.5,)}], {1, 2}]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@pytest.mark.parametrize("obj", OBJECTS, ids=repr)
def test_put_get_exists_evict(any_store: Store, obj: Any) -> None:
    key = any_store.put(obj)
    assert any_store.exists(key)
    assert any_store.get(key, default="default") == obj
    assert any_store.get(key, default="default") == obj
    any_store.evict(key)
    any_store.evict(key)
    assert not any_store.exists(key)
    assert any_store.get(key) is None
    assert any_store.get(key, default="default") == "default"
    assert any_store.missing_reason(key) is MissingReason.EVICTED


def test_batches(any_store: Store) -> None:
    keys = any_store.put_batch(OBJECTS)
    assert len(set(keys)) == len(OBJECTS)
    assert any_store.get_batch(keys) == OBJECTS
    any_store.evict(keys[1])
    missing = object()
    found = any_store.get_batch([keys[1], keys[0], keys[1], keys[3]], default=missing)
    assert found == [missing, None, missing, "text"]
    any_store.evict_batch(keys)
    assert any_store.get_batch(keys) == [None] * len(keys)
    assert any_store.put_batch([]) == any_store.get_batch([]) == []


def test_a_batch_is_stored_wholly_or_not_at_all(store: Store) -> None:
    with pytest.raises(SerializationError):
        store.put_batch(["good", Unpicklable()])
    assert store.usage().objects == 0


def test_parts(any_store: Store) -> None:
    array = np.arange(10_000)
    parts = any_store.dump(array)
    key = any_store.put_parts(parts)
    assert (any_store.get(key) == array).all()
    view = any_store.get_view(key)
    assert view is not None
    assert view.readonly
    assert read_header(view).nbytes == parts.nbytes == view.nbytes
    del view
    any_store.evict(key)
    assert any_store.get_view(key) is None


def test_arrays_are_views_that_cannot_be_written_unless_asked(any_store: Store) -> None:
    key = any_store.put(np.arange(10_000))
    first = any_store.get(key)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    writable = any_store.get(key, writable=True)
    writable[0] = 1
    assert first[0] == any_store.get(key)[0] == 0


def test_consumers_never_share_a_mutable_object(any_store: Store) -> None:
    # ProxyStore's cache handed the same object to all.
    key = any_store.put([1])
    any_store.get(key).append(2)
    assert any_store.get(key) == [1]


def test_keys_and_usage(store: Store) -> None:
    keys = store.put_batch(["a", "b"])
    assert sorted(store.keys()) == sorted(keys)
    assert store.usage().objects == 2


def test_what_the_connector_cannot_do_is_said(plain_store: Store) -> None:
    key = plain_store.put(1)
    for call, protocol in [
        (plain_store.keys, "EnumerableConnector"),
        (plain_store.usage, "AccountingConnector"),
        (plain_store.future, "DeferrableConnector"),
        (lambda: plain_store._set(key, 2), "DeferrableConnector"),
    ]:
        with pytest.raises(StoreUnsupportedError, match=f"PlainConnector.*{protocol}") as caught:
            call()
        assert isinstance(caught.value, NotImplementedError)


def test_reasons_of_a_connector_that_gives_none(plain_store: Store) -> None:
    key = plain_store.put(1)
    plain_store.evict_batch([key], reason=MissingReason.EXPIRED)
    assert plain_store.missing_reason(key) is MissingReason.EXPIRED
    assert plain_store.missing_reason(LocalKey("never")) is MissingReason.UNKNOWN
    plain_store.close()
    assert plain_store.missing_reason(LocalKey("never")) is MissingReason.STORE_CLOSED


def test_what_the_store_remembers_of_evicted_keys_is_bounded(plain_store: Store) -> None:
    plain_store.evict_batch(LocalKey(str(number)) for number in range(5000))
    assert len(plain_store._gone) < 5000
    assert plain_store.missing_reason(LocalKey("4999")) is MissingReason.EVICTED


def test_custom_serializers(any_store: Store) -> None:
    key = any_store.put("text", serializer=str.encode)
    assert any_store.get(key, deserializer=bytes.decode) == "text"
    # `json.loads` takes bytes, but no memoryview.
    key = any_store.put({"a": 1}, serializer=lambda obj: json.dumps(obj).encode())
    assert any_store.get(key, deserializer=json.loads) == {"a": 1}
    keys = any_store.put_batch(["a", "b"], serializer=str.encode)
    assert any_store.get_batch(keys, deserializer=bytes.decode) == ["a", "b"]


def test_custom_serializers_of_the_store() -> None:
    with Store("x", LocalConnector(), serializer=str.encode, deserializer=bytes.decode) as store:
        assert (store.serializer, store.deserializer) == (str.encode, bytes.decode)
        assert store.get(store.put("text")) == "text"
        again = Store.from_config(store.config())
        assert again.get(store.put("text")) == "text"
    with Store("x", LocalConnector()) as store:
        assert (store.serializer, store.deserializer) == (serialize, deserialize)


def test_default_and_custom_serializers_mix_as_in_proxystore(any_store: Store) -> None:
    for serializer in (None, serialize, lambda obj: serialize(obj)):
        for deserializer in (None, deserialize, lambda data: deserialize(data)):
            key = any_store.put([1], serializer=serializer)
            assert any_store.get(key, deserializer=deserializer) == [1]


def test_failing_serializers_are_named(any_store: Store) -> None:
    with pytest.raises(SerializationError, match="returned list"):
        any_store.put("text", serializer=list)
    key = any_store.put("text", serializer=str.encode)
    with pytest.raises(SerializationError, match="own"):
        any_store.get(key)
    with pytest.raises(SerializationError, match="JSONDecodeError") as caught:
        any_store.get(key, deserializer=json.loads)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    assert repr(key) in caught.value.__notes__[0]


def test_damaged_objects_are_an_error_and_stay_one(any_store: Store) -> None:
    key = any_store.put(list(range(1000)))
    view = any_store.get_view(key)
    assert view is not None
    data = bytearray(view)
    del view
    data[200] ^= 1
    damaged = any_store.connector.put(bytes(data))
    short = any_store.connector.put(bytes(data[:-1]))
    strange = any_store.connector.put(b"something else")
    for bad in (damaged, short, strange):
        for _ in range(2):
            with pytest.raises(CorruptObjectError):
                any_store.get(bad)


def test_a_flipped_byte_in_an_array_is_seen_where_bytes_cross_a_boundary(tmp_path: Path) -> None:
    # ProxyStore returned it silently.
    with Store("test", FileConnector(str(tmp_path))) as store:
        key = store.put(np.zeros(1000))
        (path,) = (path for path in tmp_path.iterdir() if path.stat().st_size > 8000)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptObjectError, match="digest"):
            store.get(key)
        with Store.from_config(store.config()) as other, pytest.raises(CorruptObjectError):
            other.get_batch([key])


@pytest.mark.parametrize(
    ("verify", "digest"),
    [(None, {"local": False, "file": True, "shm": False}), (True, True), (False, False)],
)
def test_digests_where_they_are_wanted(
    make_connector: Any, verify: bool | None, digest: Any
) -> None:
    for kind in ("local", "file", "shm"):
        with Store("test", make_connector(kind), verify=verify) as store:
            key = store.put(np.zeros(10))
            view = store.get_view(key)
            assert view is not None
            wanted = digest if isinstance(digest, bool) else digest[kind]
            assert read_header(view).has_digest is wanted
            del view
            assert store.get(key).sum() == 0


def test_verify_wants_a_digest(local_store: Store) -> None:
    key = local_store.put("no digest")
    with (
        Store("x", local_store.connector, verify=True) as strict,
        pytest.raises(CorruptObjectError),
    ):
        strict.get(key)


def test_cache_holds_what_was_read() -> None:
    with Store("test", LocalConnector(), cache_size=2) as store:
        keys = store.put_batch(["a", "b", "c"])
        assert not store.is_cached(keys[0])
        for key in keys:
            store.get(key)
        assert [store.is_cached(key) for key in keys] == [False, True, True]
        store.evict(keys[1])
        assert not store.is_cached(keys[1])


def test_cache_is_bounded_by_bytes() -> None:
    with Store("test", LocalConnector(), cache_size=100, cache_bytes="10 kB") as store:
        keys = store.put_batch([bytes(4000)] * 3 + [bytes(20_000)])
        store.get_batch(keys)
        assert [store.is_cached(key) for key in keys] == [False, True, True, False]


def test_no_cache() -> None:
    with Store("test", LocalConnector(), cache_size=0) as store:
        key = store.put("a")
        store.get(key)
        assert not store.is_cached(key)


def test_what_is_mapped_is_not_cached(shm_store: Store) -> None:
    key = shm_store.put("a")
    shm_store.get(key)
    assert not shm_store.is_cached(key)


def test_negative_cache_is_refused() -> None:
    with pytest.raises(StoreConfigError, match="cache_size"):
        Store("test", LocalConnector(), cache_size=-1)


def test_the_cache_sees_that_another_store_evicted(any_store: Store) -> None:
    # ProxyStore's went on to say that it is there.
    key = any_store.put("value")
    assert any_store.get(key) == "value"
    any_store.connector.evict(key)  # as another process does
    assert not any_store.exists(key)
    assert any_store.get(key, default="gone") == "gone"
    assert any_store.get_batch([key]) == [None]


def test_setting_twice_gives_the_second(store: Store) -> None:
    key = store.connector.new_key()
    for value in ("first", "second", "third"):
        store._set(key, value)
        assert store.get(key) == value


def test_the_cache_sees_that_another_store_set_anew(store: Store) -> None:
    key = store.connector.new_key()
    store._set(key, "first")
    assert store.get(key) == "first"
    with Store.from_config(store.config()) as other:
        other._set(key, "second")
    assert store.get(key) == "second"
    assert store.get_batch([key]) == ["second"]


def test_no_lock_is_held_while_the_connector_works(plain: Any, plain_store: Store) -> None:
    # ProxyStore: five threads with a get of 0.2 s took 1.0 s.
    keys = plain_store.put_batch(list(range(5)))
    barrier = threading.Barrier(5)
    plain.before_get = lambda key: barrier.wait(DEADLINE)  # all five have to be in it
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(plain_store.get, keys)) == list(range(5))


def test_other_operations_go_on_while_a_get_waits(plain: Any, plain_store: Store) -> None:
    slow, other = plain_store.put_batch(["slow", "other"])
    started, go_on = threading.Event(), threading.Event()

    def wait(key: LocalKey) -> None:
        if key == slow:
            started.set()
            assert go_on.wait(DEADLINE)

    plain.before_get = wait
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(plain_store.get, slow)
        assert started.wait(DEADLINE)
        assert plain_store.get(other) == "other"
        assert plain_store.exists(slow)
        assert plain_store.get(plain_store.put("new")) == "new"
        plain_store.evict(other)
        assert not plain_store.is_cached(slow)
        go_on.set()
        assert future.result(DEADLINE) == "slow"


def test_one_key_is_fetched_once_and_each_gets_its_own(plain: Any, plain_store: Store) -> None:
    key = plain_store.put([1])
    go_on = threading.Event()
    plain.before_get = lambda key: go_on.wait(DEADLINE)
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(plain_store.get, key) for _ in range(5)]
        flights = plain_store._flights._flights
        while key not in flights or len(flights[key].done._cond._waiters) < 4:
            assert not any(future.done() for future in futures)
        go_on.set()
        found = [future.result(DEADLINE) for future in futures]
    assert found == [[1]] * 5
    assert len({id(obj) for obj in found}) == 5
    assert plain.gets == [key]


def test_an_eviction_during_a_get_is_not_undone(plain: Any, plain_store: Store) -> None:
    key = plain_store.put("value")
    plain.after_get = lambda key: plain_store.evict(key)
    assert plain_store.get(key) == "value"  # it was there when it was read
    plain.after_get = lambda key: None
    assert not plain_store.is_cached(key)
    assert plain_store.get(key) is None


def test_failing_gets_are_not_remembered(plain: Any, plain_store: Store) -> None:
    key = plain_store.put("value")

    def fail(key: LocalKey) -> None:
        raise ConnectionError("down")

    plain.before_get = fail
    with pytest.raises(ConnectionError):
        plain_store.get(key)
    plain.before_get = lambda key: None
    assert plain_store.get(key) == "value"


def test_evicting_goes_on_after_a_failure(plain: Any, plain_store: Store) -> None:
    keys = plain_store.put_batch(["a", "b", "c"])
    evict = plain.evict

    def fail(key: LocalKey) -> None:
        if key == keys[0]:
            raise ConnectionError("down")
        evict(key)

    plain.evict = fail
    with pytest.raises(ConnectionError) as caught:
        plain_store.evict_batch(keys)
    assert "1 of the objects" in caught.value.__notes__[0]
    assert [plain_store.exists(key) for key in keys] == [True, False, False]


def test_put_into_a_lifetime_that_is_over_leaves_nothing(store: Store) -> None:
    lifetime = ContextLifetime(store)
    lifetime.close()
    for put in (store.put, store.proxy, lambda obj, **kw: store.put_batch([obj], **kw)):
        with pytest.raises(LifetimeClosedError):
            put("value", lifetime=lifetime)
    assert store.usage().objects == 0


def test_arguments_for_the_connector_reach_it(plain: Any, plain_store: Store) -> None:
    with pytest.raises(TypeError, match="tags"):
        plain_store.put("value", tags=["a"])


@pytest.mark.parametrize("kind", ["file", "shm"])
def test_a_closed_store_says_so(make_connector: Any, kind: str) -> None:
    store = Store("test", make_connector(kind))
    key = store.put("value")
    store.close()
    store.close()
    assert "closed" in repr(store)
    for call in (store.get, store.exists):
        with pytest.raises(ConnectorClosedError):
            call(key)
    with pytest.raises(ConnectorClosedError):
        store.put("value")
    assert store.missing_reason(key) is MissingReason.STORE_CLOSED
