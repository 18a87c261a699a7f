"""The shared-memory connector: directories, configurations and keys."""

from __future__ import annotations

import gc
import json
import pickle
import stat
from pathlib import Path

import pytest

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    ConnectorUnavailableError,
    InvalidKeyError,
    MissingReason,
    StorageFullError,
)

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector() as connector:
        yield connector


def attach(store: SharedMemoryConnector) -> SharedMemoryConnector:
    return SharedMemoryConnector.from_config(store.config())


class TestDirectory:
    def test_is_private(self, store: SharedMemoryConnector) -> None:
        store.put(b"data")
        for path in [Path(store.directory), *Path(store.directory).rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path

    def test_goes_with_its_owner_only(self) -> None:
        owner = SharedMemoryConnector()
        worker = attach(owner)
        key = owner.put(b"data")
        worker.close()
        assert owner.get(key) == b"data"
        owner.close()
        assert not Path(owner.directory).exists()

    def test_goes_with_a_forgotten_connector(self) -> None:
        directory = SharedMemoryConnector().directory
        gc.collect()
        assert not Path(directory).exists()

    def test_named_one_is_made_and_attached_to(self, tmp_path: Path) -> None:
        name = str(tmp_path / "deep" / "store")
        with SharedMemoryConnector(name) as owner, SharedMemoryConnector(name) as second:
            assert owner.get(second.put(b"data")) == b"data"
            second.close()
            assert owner.usage().objects == 1
        assert not Path(name).exists()

    def test_named_one_may_be_empty_but_not_others(self, tmp_path: Path) -> None:
        tmp_path.joinpath("empty").mkdir()
        SharedMemoryConnector(str(tmp_path / "empty")).close()
        with pytest.raises(ConnectorConfigError, match="other files"):
            SharedMemoryConnector(str(tmp_path.parent))

    def test_a_users_own_files_in_it_stay(self, tmp_path: Path) -> None:
        store = SharedMemoryConnector(str(tmp_path / "store"))
        store.put(b"data")
        tmp_path.joinpath("store", "notes.txt").write_text("mine")
        store.close()
        assert [path.name for path in tmp_path.joinpath("store").iterdir()] == ["notes.txt"]

    def test_two_stores_never_share(self) -> None:
        with SharedMemoryConnector() as one, SharedMemoryConnector() as two:
            key = one.put(b"data")
            assert one.config() != two.config()
            assert two.get(key) is None

    def test_root_of_somebody_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = tmp_path / "root"
        monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(root))
        root.mkdir(mode=0o755)
        with pytest.raises(ConnectorUnavailableError, match="chmod 700"):
            SharedMemoryConnector()
        root.rmdir()
        root.symlink_to(tmp_path)
        with pytest.raises(ConnectorUnavailableError, match="link"):
            SharedMemoryConnector()
        root.unlink()
        root.write_text("")
        with pytest.raises(ConnectorUnavailableError):
            SharedMemoryConnector()

    def test_limits_are_checked(self) -> None:
        for options in ({"quota": "much"}, {"quota": -1}, {"recycle": "1 parsec"}):
            with pytest.raises(ConnectorConfigError):
                SharedMemoryConnector(**options)


class TestConfig:
    def test_attaches_and_never_makes(self) -> None:
        owner = SharedMemoryConnector()
        key, config = owner.put(b"data"), owner.config()
        open_before = SharedMemoryConnector.from_config(config)
        owner.close()
        opened_after = SharedMemoryConnector.from_config(config)
        for reader in (open_before, opened_after):
            assert reader.get(key) is None
            assert reader.get_view(key) is None
            assert not reader.exists(key)
            assert reader.missing_reason(key) is MissingReason.STORE_CLOSED
            assert list(reader.keys()) == []
            assert reader.usage()[:2] == (0, 0)
            reader.evict(key)
            reader.expire(key)
            with pytest.raises(ConnectorClosedError, match="owner"):
                reader.put(b"more")
            with pytest.raises(ConnectorClosedError, match="owner"):
                reader.set(key, b"more")
        assert not Path(owner.directory).exists()
        open_before.close()
        opened_after.close()

    def test_survives_a_directory_made_anew(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")
        first = SharedMemoryConnector(name)
        key = first.put(b"first")
        stale = attach(first)
        stale.put(b"so that its files are open")
        first.close()
        with SharedMemoryConnector(name) as second:
            assert stale.get(key) is None
            with pytest.raises(ConnectorClosedError):
                stale.put(b"into the new one?")
            assert second.get(key) is None
            assert second.missing_reason(key) is MissingReason.STORE_CLOSED
            assert second.usage().objects == 0
        stale.close()

    def test_of_another_host(self, store: SharedMemoryConnector) -> None:
        here = store.config()
        gone = {**here, "directory": here["directory"] + "x", "host": "elsewhere/1234"}
        same_path = {**here, "host": "elsewhere/1234"}
        for config in (gone, same_path):
            with pytest.raises(ConnectorUnavailableError, match="'elsewhere'"):
                SharedMemoryConnector.from_config(config)

    def test_of_a_container_that_shares_the_memory(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from proxystore_core.connectors import shared_memory

        monkeypatch.setattr(shared_memory, "node_id", lambda: "container/1234")
        with attach(store) as inside:
            assert inside.get(store.put(b"data")) == b"data"

    def test_written_by_a_user_makes_a_store(self, tmp_path: Path) -> None:
        options = {"directory": str(tmp_path / "store"), "quota": "1 MB", "spill": False}
        with SharedMemoryConnector.from_config(options) as store:
            assert store.usage().limit == MB
            with SharedMemoryConnector.from_config(store.config()) as worker:
                assert worker.usage().limit == MB

    def test_is_small(self, store: SharedMemoryConnector) -> None:
        assert set(store.config()) == {"directory", "host"}
        assert len(pickle.dumps(tuple(store.put(b"data")))) < 50

    def test_unreadable_store(self, tmp_path: Path) -> None:
        for text in ('{"version": 99}', "garbage", "[]"):
            tmp_path.joinpath("owner").write_text(text)
            with pytest.raises(ConnectorUnavailableError):
                SharedMemoryConnector(str(tmp_path))

    def test_closed_here(self) -> None:
        store = SharedMemoryConnector()
        key = store.put(b"data")
        store.close()
        acts = (store.get, store.get_view, store.exists, store.evict, store.expire)
        for act in acts:
            with pytest.raises(ConnectorClosedError, match="was closed"):
                act(key)
        for act in (store.put, lambda data: store.set(key, data), store.new_key):
            with pytest.raises(ConnectorClosedError, match="was closed"):
                act(b"data")
        assert store.missing_reason(key) is MissingReason.STORE_CLOSED


class TestKeys:
    @pytest.mark.parametrize(
        "name",
        [
            *("../owner", "../../x", "/etc/passwd", "", "a", "aaaaaaaa-0-1/../x", "aaaaaaaa-0-1\n"),
            *("aaaaaaaa-0-g", "AAAAAAAA-0-1", "aaaaaaaa--1", "aaaaaaaa-0-1\0", "x" * 500),
        ],
    )
    def test_strange_ones(self, store: SharedMemoryConnector, name: str) -> None:
        key = SharedMemoryKey(name)
        for act in (store.get, store.get_view, store.exists, store.evict, store.missing_reason):
            with pytest.raises(InvalidKeyError):
                act(key)
        with pytest.raises(InvalidKeyError):
            store.set(key, b"data")

    def test_of_another_type(self, store: SharedMemoryConnector) -> None:
        for key in (("aaaaaaaa-0-1",), "aaaaaaaa-0-1", None, SharedMemoryKey(3)):
            with pytest.raises(InvalidKeyError):
                store.get(key)

    def test_forged_but_well_formed(self, store: SharedMemoryConnector) -> None:
        token = Path(store.directory).name
        for name in (f"{token}-0-ffffffffffff", f"{token}-ffffffff-1"):
            key = SharedMemoryKey(name)
            assert store.get(key) is None
            assert store.missing_reason(key) is MissingReason.NEVER_STORED
            store.set(key, b"data")
            store.evict(key)

    def test_writers_never_issue_the_same(self, store: SharedMemoryConnector, run) -> None:
        code = """
            import json, sys
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            store = SharedMemoryConnector.from_config(json.loads(sys.argv[1]))
            print(json.dumps([store.put(b"") for _ in range(20)]))
        """
        keys = [
            tuple(k) for _ in range(2) for k in json.loads(run(code, json.dumps(store.config())))
        ]
        keys += [tuple(store.new_key()) for _ in range(20)]
        assert len(set(keys)) == 60

    def test_reason_of_a_deferred_key(self, store: SharedMemoryConnector) -> None:
        with attach(store) as setter:
            key = store.new_key()
            assert setter.missing_reason(key) is MissingReason.NEVER_STORED
            setter.set(key, b"data")
            store.evict(key)
            assert setter.missing_reason(key) is MissingReason.EVICTED

    def test_a_failed_set_stored_nothing(self) -> None:
        with SharedMemoryConnector(quota=100_000, spill=False) as store:
            key = store.new_key()
            with pytest.raises(StorageFullError):
                store.set(key, bytes(MB))
            assert store.missing_reason(key) is MissingReason.NEVER_STORED
