"""The connector inside one process: what it adds to the conformance class."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap

import pytest

from proxystore_core.connectors.local import LocalConnector, LocalKey
from proxystore_core.exceptions import InvalidKeyError, MissingReason


def test_uses_the_dictionary_it_is_given() -> None:
    data = {}
    store = LocalConnector(data)
    key = store.put(b"data")
    assert data == {key: b"data"}


def test_bytes_are_not_copied() -> None:
    data = b"x" * 1000
    store = LocalConnector()
    assert store.get(store.put(data)) is data


def test_keys_may_be_chosen() -> None:
    store = LocalConnector()
    store.set(LocalKey("mine"), b"data")
    assert store.get(LocalKey("mine")) == b"data"


@pytest.mark.parametrize("key", ["text", ("mine",), None, LocalKey(3)])
def test_strange_keys(key: object) -> None:
    with pytest.raises(InvalidKeyError):
        LocalConnector().get(key)


def test_objects_outlive_the_first_connector() -> None:
    first = LocalConnector()
    key, config = first.put(b"data"), first.config()
    second = LocalConnector.from_config(config)
    first.close()
    del first
    assert second.get(key) == b"data"
    assert LocalConnector.from_config(config).get(key) == b"data"


def test_another_process_cannot_reach_them() -> None:
    store = LocalConnector()
    key = store.put(b"data")
    code = """
        import json, sys
        from proxystore_core.connectors.local import LocalConnector, LocalKey
        config, key = json.loads(sys.argv[1])
        store = LocalConnector.from_config(config)
        print(store.get(LocalKey(*key)), store.missing_reason(LocalKey(*key)).name)
        own = store.put(b"own")
        print(LocalConnector.from_config(config).get(own))
        store.evict(own)
        print(store.missing_reason(own).name)
    """
    args = [sys.executable, "-c", textwrap.dedent(code), json.dumps([store.config(), key])]
    printed = subprocess.check_output(args, text=True).split("\n")
    assert printed == ["None UNREACHABLE", "b'own'", "EVICTED", ""]


def test_data_in_the_configuration() -> None:
    store = LocalConnector(include_data_in_config=True)
    key = store.put(b"data")
    config = pickle.dumps(store.config())
    code = """
        import pickle, sys
        from proxystore_core.connectors.local import LocalConnector
        config, key = pickle.load(sys.stdin.buffer)
        print(LocalConnector.from_config(config).get(key))
    """
    args = [sys.executable, "-c", textwrap.dedent(code)]
    given = pickle.dumps((pickle.loads(config), key))
    assert subprocess.check_output(args, input=given) == b"b'data'\n"


def test_reasons() -> None:
    store = LocalConnector()
    assert store.missing_reason(LocalKey("unknown")) is MissingReason.NEVER_STORED
    key = store.new_key()
    store.set(key, b"data")
    store.expire(key)
    store.set(key, b"again")
    store.evict(key)
    assert store.missing_reason(key) is MissingReason.EVICTED
