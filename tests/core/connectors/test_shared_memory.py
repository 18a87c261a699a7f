"""The shared-memory connector: what it adds to the conformance class."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import mmap
import os
import pickle
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from proxystore_core.connectors._process import node_id
from proxystore_core.connectors._segments import HEAD, make_head
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    ConnectorUnavailableError,
    CorruptObjectError,
    InvalidKeyError,
    MissingReason,
    StorageFullError,
)

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector() as connector:
        yield connector


def run(code: str, *args: object) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def attach(store: SharedMemoryConnector) -> SharedMemoryConnector:
    return SharedMemoryConnector.from_config(store.config())


def path_of(store: SharedMemoryConnector, key: SharedMemoryKey) -> Path:
    return Path(store.directory, "o", key.object_id)


def inode_of(store: SharedMemoryConnector, key: SharedMemoryKey) -> int:
    return path_of(store, key).stat().st_ino


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

    def test_writers_never_issue_the_same(self, store: SharedMemoryConnector) -> None:
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


class TestReading:
    def test_is_aligned(self, store: SharedMemoryConnector) -> None:
        view = store.get_view(store.put(bytes(MB)))
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % 64 == 0

    def test_maps_what_is_large_and_reads_what_is_small(self, store: SharedMemoryConnector) -> None:
        assert isinstance(store.get(store.put(bytes(1000))), bytes)
        large = store.get(store.put(bytes(MB)))
        assert isinstance(large.obj, mmap.mmap)

    def test_ten_thousand_mapped_with_few_descriptors(self) -> None:
        code = """
            import os, resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            with SharedMemoryConnector() as store:
                keys = [store.put(bytes(200_000) + bytes([n])) for n in range(20)]
                views = [store.get(keys[n % 20]) for n in range(10_000)]
                print(all(view[-1] == n % 20 for n, view in enumerate(views)))
        """
        assert run(code) == "True\n"

    def test_more_mapped_than_there_are_descriptors(self) -> None:
        """Where every mapping needs one, what is got beyond that is a copy."""
        code = """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            from proxystore_core.connectors import _mapping
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            _mapping.overlay_works = lambda: False
            with SharedMemoryConnector() as store:
                keys = [store.put(bytes(200_000) + bytes([n])) for n in range(20)]
                views = [store.get(keys[n % 20]) for n in range(200)]
                print(len({type(view.obj) for view in views}))
                print(all(view[-1] == n % 20 for n, view in enumerate(views)))
        """
        assert run(code) == "2\nTrue\n"

    def test_no_memory_for_a_mapping(
        self, store: SharedMemoryConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = store.put(bytes(MB))
        lacking = Mock(side_effect=OSError(errno.ENOMEM, "no memory"))
        monkeypatch.setattr("proxystore_core.connectors._channel.map_private", lacking)
        assert store.get(key) == bytes(MB)
        monkeypatch.setattr("proxystore_core.connectors._channel.bytearray", lacking, raising=False)
        lacking.side_effect = [OSError(errno.ENOMEM, "no memory"), MemoryError]
        with pytest.raises(MemoryError, match="max_map_count"):
            store.get(key)

    def test_a_view_outlives_the_store(self) -> None:
        store = SharedMemoryConnector()
        data = os.urandom(MB)
        view = store.get_view(store.put(data))
        store.close()
        assert view == data
        view[:] = bytes(MB)

    @pytest.mark.parametrize("size", [1000, MB])
    def test_damaged(self, store: SharedMemoryConnector, size: int) -> None:
        data = os.urandom(size)
        for damage in (0, 5, 20, 59):
            key = store.put(data)
            with path_of(store, key).open("r+b") as file:
                file.seek(damage)
                byte = file.read(1)
                file.seek(damage)
                file.write(bytes([byte[0] ^ 1]))
            with pytest.raises(CorruptObjectError, match=key.object_id):
                store.get(key)
            with pytest.raises(CorruptObjectError):
                store.get_view(key)
            store.evict(key)
        assert store.usage().objects == 0

    @pytest.mark.parametrize("size", [1000, MB])
    @pytest.mark.parametrize("left", [0, 10, 64, 999, -1])
    def test_truncated(self, store: SharedMemoryConnector, size: int, left: int) -> None:
        key = store.put(os.urandom(size))
        os.truncate(path_of(store, key), left if left >= 0 else HEAD + size - 1)
        with pytest.raises(CorruptObjectError):
            store.get(key)
        store.evict(key)
        assert not store.exists(key)

    def test_another_objects_segment(self, store: SharedMemoryConnector) -> None:
        for size in (10, MB):
            key, other = store.put(bytes(size)), store.put(bytes(size))
            path_of(store, other).rename(path_of(store, key))
            with pytest.raises(CorruptObjectError, match=other.object_id):
                store.get(key)

    def test_of_a_later_release(self, store: SharedMemoryConnector) -> None:
        key = store.put(b"data")
        head = bytearray(make_head(key.object_id, 4))
        head[4] += 1
        import zlib

        head[56:60] = zlib.crc32(head[:56]).to_bytes(4, "little")
        path_of(store, key).write_bytes(bytes(head) + b"data")
        with pytest.raises(CorruptObjectError, match="format 2"):
            store.get(key)

    def test_cost_does_not_grow_with_size(self, store: SharedMemoryConnector) -> None:
        keys = [store.put(bytes(size)) for size in (200_000, 64 * MB)]
        store.get(keys[0])  # tries out what the file system can do
        took = []
        for key in keys:
            times = []
            for _ in range(50):
                started = time.thread_time()
                store.get(key)
                times.append(time.thread_time() - started)
            took.append(min(times))
        assert took[1] < 10 * took[0]


class TestForks:
    def test_child_is_not_the_owner(self, store: SharedMemoryConnector) -> None:
        key = store.put(bytes(MB))
        store.evict(store.put(bytes(MB)))
        pid = os.fork()
        if pid == 0:
            try:
                good = store.get(key) == bytes(MB) and store.get(store.put(b"child")) == b"child"
                store.evict(store.put(os.urandom(MB)))
                store.close()
                os._exit(0 if good else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        assert store.get(key) == bytes(MB)
        assert sorted(map(store.get, store.keys()), key=len) == [b"child", bytes(MB)]

    def test_child_issues_its_own_keys(self, store: SharedMemoryConnector) -> None:
        first = store.put(b"parent")
        pid = os.fork()
        if pid == 0:
            try:
                store.put(b"child")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        second = store.put(b"parent")
        assert {store.get(key) for key in store.keys()} == {b"parent", b"child"}
        assert len({first, second, *store.keys()}) == 3

    def test_child_does_not_keep_a_dead_owner_alive(self) -> None:
        code = """
            import os, sys
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            store = SharedMemoryConnector()
            forked, is_forked = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(1)
                os.write(is_forked, b"x")
                sys.stdin.read()
                os._exit(0)
            os.read(forked, 1)
            print(store.directory, flush=True)
            os.kill(os.getpid(), 9)
        """
        owner = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        directory = owner.stdout.readline().strip()
        owner.wait(30)
        assert Path(directory).exists()
        SharedMemoryConnector().close()
        assert not Path(directory).exists()
        owner.communicate()  # the child reads to the end, and ends

    def test_multiprocessing_pool(self, store: SharedMemoryConnector) -> None:
        import multiprocessing

        key = store.put(bytes(MB))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_length_of, [(store.config(), key)] * 6) == [MB] * 6
            pool.close()
            pool.join()
        assert store.get(key) == bytes(MB)


def _length_of(job: tuple) -> int:
    config, key = job
    with SharedMemoryConnector.from_config(config) as store:
        return len(store.get(key))


class TestReaping:
    CODE = """
        import os, sys
        from proxystore_core.connectors.shared_memory import SharedMemoryConnector
        store = SharedMemoryConnector(*sys.argv[2:], quota="2 MB", spill_dir=sys.argv[1])
        key = store.put(bytes(1_000_000))
        store.put(bytes(2_000_000))
        print(store.directory, key.object_id, flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), 9)
    """

    @pytest.fixture
    def dead(self, tmp_path: Path):
        """A store whose owner was killed, and what a reader mapped before."""
        yield from self.kill(str(tmp_path / "spill"))

    def kill(self, *args: str):
        command = [sys.executable, "-c", textwrap.dedent(self.CODE), *args]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as owner:
            directory, object_id = owner.stdout.readline().split()
            config = {"directory": directory, "host": node_id()}
            with SharedMemoryConnector.from_config(config) as reader:
                key = SharedMemoryKey(object_id)
                view = reader.get(key)
                owner.stdin.write("\n")
                owner.stdin.flush()
                owner.wait(30)
                yield Path(directory), reader, key, view

    def test_opening_a_store_removes_what_dead_owners_left(self, dead, tmp_path: Path) -> None:
        directory, reader, key, view = dead
        assert directory.exists()
        assert len(list(tmp_path.glob("spill/*/o/*"))) == 1
        SharedMemoryConnector().close()
        assert not directory.exists()
        assert list(tmp_path.glob("spill/*")) == []
        assert view == bytes(MB)
        assert reader.get(key) is None
        assert reader.missing_reason(key) is MissingReason.STORE_CLOSED
        with pytest.raises(ConnectorClosedError):
            reader.put(b"data")

    def test_a_living_owner_is_left_alone(self, store: SharedMemoryConnector) -> None:
        key = store.put(b"data")
        SharedMemoryConnector().close()
        run(
            """
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            SharedMemoryConnector().close()
            """
        )
        assert store.get(key) == b"data"

    def test_a_named_directory_is_taken_over(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")
        for directory, reader, key, _ in self.kill(str(tmp_path / "spill"), name):
            assert str(directory) == name
            with SharedMemoryConnector(name) as successor:
                assert successor.get(key) is None
                assert successor.usage()[:2] == (0, 0)
                assert reader.get(key) is None
            assert not directory.exists()

    def test_spill_that_a_reboot_left(self, tmp_path: Path) -> None:
        left = tmp_path / "abcdefgh"
        left.joinpath("o").mkdir(parents=True)
        left.joinpath("o", "abcdefgh-0-1").write_bytes(bytes(100))
        left.joinpath("store").write_text("/dev/shm/proxystore-0/abcdefgh")
        with SharedMemoryConnector(quota=MB, spill_dir=str(tmp_path)) as store:
            assert not left.exists()
            key = store.put(bytes(2 * MB))
            SharedMemoryConnector(spill_dir=str(tmp_path)).close()
            assert store.get(key) == bytes(2 * MB)
