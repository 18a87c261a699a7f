from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.connectors.file import FileConnector, FileKey
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import StoreConfigError
from proxystore_core.proxy import TargetInfo
from proxystore_core.serialize import deserialize, serialize
from proxystore_core.store._compact import pack_config, pack_info, unpack_config, unpack_info
from proxystore_core.store._toml import dumps
from proxystore_core.store.config import ConnectorConfig, StoreConfig


@pytest.mark.parametrize(
    ("kind", "connector"),
    [
        ("local", LocalConnector),
        ("LocalConnector", LocalConnector),
        ("file", FileConnector),
        ("FileConnector", FileConnector),
        ("proxystore_core.connectors.file.FileConnector", FileConnector),
        ("proxystore.connectors.file.FileConnector", FileConnector),
        ("shm", SharedMemoryConnector),
        ("shared_memory", SharedMemoryConnector),
        ("SharedMemoryConnector", SharedMemoryConnector),
    ],
)
def test_kinds(kind: str, connector: type) -> None:
    assert ConnectorConfig(kind).get_connector_type() is connector


@pytest.mark.parametrize("kind", ["nothing", "no.such.module.Connector", "os.path.Nothing"])
def test_unknown_kinds_say_what_there_is(kind: str) -> None:
    with pytest.raises(StoreConfigError, match="Use one of local, file, shm"):
        ConnectorConfig(kind).get_connector_type()


def test_wrong_connector_options_are_named() -> None:
    with pytest.raises(StoreConfigError, match="FileConnector does not take the options"):
        ConnectorConfig("file", {"directory": "/tmp"}).get_connector()


def test_makes_connectors_from_constructor_arguments(tmp_path: Path) -> None:
    connector = ConnectorConfig("file", {"store_dir": str(tmp_path / "x")}).get_connector()
    key = connector.put(b"data")
    assert connector.get(key) == b"data"
    connector.close()


def test_equality_is_by_what_is_meant() -> None:
    one = ConnectorConfig("file", {"store_dir": "/a"})
    same = ConnectorConfig("proxystore_core.connectors.file.FileConnector", {"store_dir": "/a"})
    other = ConnectorConfig("file", {"store_dir": "/b"})
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "file"
    assert StoreConfig("a", one, auto_register=True) == StoreConfig("a", same)
    assert hash(StoreConfig("a", one, auto_register=True)) == hash(StoreConfig("a", same))
    assert StoreConfig("a", one) != StoreConfig("a", other)
    assert StoreConfig("a", one) != StoreConfig("b", one)
    assert StoreConfig("a", one) != StoreConfig("a", one, cache_size=1)
    assert StoreConfig("a", one, cache_bytes="1 MB") == StoreConfig("a", one, cache_bytes=10**6)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": 1},
        {"cache_size": -1},
        {"cache_size": 1.5},
        {"cache_bytes": "much"},
        {"cache_bytes": -1},
        {"metrics": 1},
        {"populate_target": "yes"},
        {"verify": 3},
        {"serializer": 3},
        {"serializer": "no.such.function"},
        {"connector": 3},
        {"connector": {"kind": 3}},
        {"connector": {"kind": "file", "options": []}},
        {"connector": {"kind": "file", "options": {1: 2}}},
        {"connector": {"kind": "file", "more": 1}},
        {"unknown": 1},
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any]) -> None:
    good = {"name": "store", "connector": {"kind": "local"}}
    StoreConfig.from_dict(good)
    with pytest.raises(StoreConfigError):
        StoreConfig.from_dict({**good, **fields})


@pytest.mark.parametrize("missing", ["name", "connector"])
def test_missing_fields_are_refused(missing: str) -> None:
    fields = {"name": "store", "connector": {"kind": "local"}}
    del fields[missing]
    with pytest.raises(StoreConfigError, match=missing):
        StoreConfig.from_dict(fields)


def test_toml_round_trip(tmp_path: Path) -> None:
    config = StoreConfig(
        "example",
        ConnectorConfig(
            "file", {"store_dir": '/tmp/a "b"\\', "list": [1, 2.5, True], "t": {"u": 1}}
        ),
        serializer=serialize,
        deserializer=deserialize,
        cache_size=3,
        metrics=True,
        populate_target=False,
        auto_register=True,
        cache_bytes="1 GB",
        verify=True,
    )
    path = tmp_path / "new" / "config.toml"
    config.write_toml(path)
    loaded = StoreConfig.from_toml(str(path))
    assert loaded == config
    assert loaded.auto_register
    assert loaded.connector.options == config.connector.options


def test_reads_what_proxystore_wrote(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'name = "example"\ncache_size = 16\nmetrics = false\npopulate_target = true\n'
        'auto_register = false\n\n[connector]\nkind = "file"\n\n'
        '[connector.options]\nstore_dir = "/tmp/proxystore-cache"\n'
    )
    options = {"store_dir": "/tmp/proxystore-cache"}
    assert StoreConfig.from_toml(path) == StoreConfig("example", ConnectorConfig("file", options))


@pytest.mark.parametrize("text", ["name = ", "\udcff", "name = 'x'", "[connector]\nkind = 'local'"])
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreConfigError):
        StoreConfig.from_toml(path)


def test_functions_without_a_name_cannot_be_written(tmp_path: Path) -> None:
    config = StoreConfig("x", ConnectorConfig("local"), serializer=lambda obj: b"")
    with pytest.raises(StoreConfigError, match="top of a module"):
        config.write_toml(tmp_path / "x.toml")
    with pytest.raises(StoreConfigError, match=r"connector\.options\.x"):
        StoreConfig("x", ConnectorConfig("local", {"x": b"bytes"})).write_toml(tmp_path / "x.toml")


SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=6))
def test_toml_writes_what_tomllib_reads(data: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(data)) == data


def test_toml_leaves_none_out() -> None:
    assert tomllib.loads(dumps({"a": None, "b": {"c": None}})) == {"b": {}}


OPTIONS = st.dictionaries(
    st.sampled_from(["store_dir", "clear", "directory", "host", "quota", "other"]),
    st.text(max_size=5) | st.booleans() | st.none() | st.lists(st.integers(), max_size=2),
)


@given(
    st.sampled_from(["local", "file", "shm", "package.module.Connector"]),
    OPTIONS,
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([None, True, False]),
)
def test_compact_configurations_come_back(
    kind: str, options: dict[str, Any], cache_size: int, metrics: bool, verify: bool | None
) -> None:
    config = StoreConfig(
        "name",
        ConnectorConfig(kind, options),
        cache_size=cache_size,
        metrics=metrics,
        verify=verify,
    )
    for _ in range(2):  # the second one is found, not made
        found = unpack_config(*pickle.loads(pickle.dumps(pack_config(config))))
        assert found == config
        assert found.connector.options == options


@given(
    st.builds(
        TargetInfo,
        st.text(),
        st.none() | st.integers(),
        st.none() | st.integers(),
        st.none() | st.integers(0, 5),
        st.none() | st.lists(st.integers(0, 5)).map(tuple),
        st.none() | st.text(),
    )
)
def test_compact_facts_come_back(info: TargetInfo) -> None:
    assert unpack_info(pack_info(info)) == info
    assert unpack_info(pack_info(None)) is None


def test_keys_that_travelled_get_their_type_back() -> None:
    key = ConnectorConfig("file").make_key(("name",))
    assert type(key) is FileKey
    assert ConnectorConfig("file").make_key(key) is key
    assert type(ConnectorConfig("other.Connector").make_key(("name",))) is tuple
