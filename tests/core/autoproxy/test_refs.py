from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_core.autoproxy import Envelope, Packed, Policy, Ref, Remote, Session
from proxystore_core.autoproxy.refs import Channel, Items, _write, channel, channel_of
from proxystore_core.autoproxy.settings import Settings
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import (
    MissingReason,
    ProxyResolveMissingKeyError,
    ReferenceUnreachableError,
)
from proxystore_core.proxy import describe
from proxystore_core.store import ConnectorConfig, Store
from proxystore_core.store.config import StoreConfig

BIG = 50_000


def reverse(data: bytes) -> bytes:
    return bytes(data)[::-1]


@pytest.fixture
def elsewhere(store: Store[Any]) -> Channel:
    """The channel of a store in the memory of another host."""
    config = store.config()
    options = {**config.connector.options, "host": "otherhost/1234abcd"}
    other = dataclasses.replace(config, connector=ConnectorConfig("shm", options))
    return Channel(_write(other), other)


def test_references_are_small_and_fetch(store: Store[Any]) -> None:
    array = np.ones(BIG)
    ref = Ref(channel_of(store), store.put(array), array.nbytes, describe(array))
    data = pickle.dumps(ref)
    assert len(data) <= 300
    again = pickle.loads(data)
    assert again == ref
    assert hash(again) == hash(ref)
    assert again.info == ref.info
    assert type(again.key) is type(ref.key)
    assert again.fetch().sum() == BIG
    assert again.fetch(writable=True).flags.writeable
    assert not callable(ref)
    assert "Ref" in repr(ref)
    assert ref != "ref"
    store.evict(ref.key)
    with pytest.raises(ProxyResolveMissingKeyError) as info:
        again.fetch()
    assert info.value.reason is MissingReason.EVICTED


def test_none_can_be_stored(store: Store[Any]) -> None:
    ref = Ref(channel_of(store), store.put(None), 1)
    assert ref.fetch() is None
    store.evict(ref.key)


@pytest.mark.parametrize("made", [Packed([1]), Envelope({"a": 1}), Items([1, 2])])
def test_carriers_pickle_and_are_not_callable(made: Any) -> None:
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert list(getattr(again, "value", again)) == list(getattr(made, "value", made))
    assert not callable(made)
    assert len(repr(made)) < 100


def test_channels_of_equal_stores_are_one(store: Store[Any]) -> None:
    assert channel_of(store) is channel_of(store)
    assert channel(channel_of(store).wire) is channel_of(store)
    assert channel_of(store).store() is store
    assert channel_of(store).maps


def test_channels_carry_the_whole_configuration(tmp_path: Path) -> None:
    config = StoreConfig(
        "full",
        ConnectorConfig("file", {"store_dir": str(tmp_path), "clear": False}),
        serializer=lambda obj: bytes(obj),
        deserializer=reverse,
        cache_size=3,
        metrics=True,
        populate_target=False,
        cache_bytes=1000,
        verify=True,
    )
    wire = _write(config)
    again = channel(wire).config
    assert again == dataclasses.replace(config, serializer=again.serializer)
    assert again.serializer is not None
    assert not channel(wire).maps
    plain = StoreConfig("n", ConnectorConfig("file", {"store_dir": "/x"}))
    assert len(_write(plain)) < 60
    assert channel(_write(plain)).config == plain


def test_custom_serializers_of_a_store_are_used(tmp_path: Path) -> None:
    with Store("own", FileConnector(str(tmp_path)), serializer=reverse, deserializer=reverse) as s:
        with Session(s) as session:
            data = bytes(range(256)) * 1000
            task = session.prepare(bytes, (data,))
            stored = s.connector.get(task.args[0].key)
            assert stored is not None
            assert data[::-1] in bytes(stored)
            result = session.result(task.func(*task.args))
            assert result == data
            del result
            task.lease.release()
        assert list(s.keys()) == []


def test_another_hosts_memory_is_an_error_that_says_what_to_do(
    store: Store[Any], elsewhere: Channel
) -> None:
    key = store.put(np.ones(BIG))
    ref = pickle.loads(pickle.dumps(Ref(elsewhere, key, 8 * BIG)))
    with pytest.raises(ReferenceUnreachableError, match="store that all its hosts reach") as info:
        ref.fetch()
    assert info.value.host == "otherhost"
    store.evict(key)


def test_results_where_the_store_is_not_reached_travel_by_value(
    elsewhere: Channel, tasks: Any
) -> None:
    remote = Remote(tasks.ones, Settings(elsewhere, Policy()))
    with pytest.warns(RuntimeWarning, match="by value"):
        assert remote(BIG).sum() == BIG
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning in a process
        assert remote(BIG).sum() == BIG
        assert Remote(tasks.nested, Settings(elsewhere, Policy()))(BIG)["big"][0].sum() == BIG
