"""Quota, spill and full devices of the shared-memory connector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxystore_core.connectors import _pool
from proxystore_core.connectors._segments import HEAD, PAGE, charge_of
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import ConnectorConfigError, MissingReason, StorageFullError

MB = 1_000_000


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def small_store(quota: int | str, **options) -> SharedMemoryConnector:
    return SharedMemoryConnector(quota=quota, spill=False, **options)


class TestQuota:
    def test_full(self, check_books) -> None:
        with small_store("3 MB", recycle=0) as store:
            keys = [store.put(bytes(MB - HEAD)) for _ in range(2)]
            with pytest.raises(StorageFullError, match=r"Evict objects, raise quota=") as caught:
                store.put(bytes(2 * MB))
            assert caught.value.nbytes == 2 * MB
            assert caught.value.used == 2 * charge_of(MB)
            assert caught.value.limit == 3 * MB
            check_books(store)
            store.evict(keys[0])
            assert store.get(store.put(bytes(MB))) == bytes(MB)
            assert store.get(keys[1]) == bytes(MB - HEAD)
            check_books(store)

    def test_larger_than_all(self) -> None:
        with small_store("1 MB") as store:
            with pytest.raises(StorageFullError):
                store.put(bytes(MB))
            assert store.usage()[:3] == (0, 0, 0)
            assert store.put(b"small")

    def test_of_nothing(self) -> None:
        with small_store(0) as store, pytest.raises(StorageFullError):
            store.put(b"")

    def test_counts_small_objects(self, check_books) -> None:
        with small_store(10 * PAGE) as store:
            keys = [store.put(b"x") for _ in range(10)]
            with pytest.raises(StorageFullError):
                store.put(b"x")
            store.evict(keys[3])
            store.put(b"x")
            check_books(store)

    def test_recycled_segments_go_first(self, check_books) -> None:
        with small_store("6 MB", recycle="4 MB") as store:
            for key in [store.put(bytes(MB)) for _ in range(4)]:
                store.evict(key)
            assert store.usage().reserved > 3 * MB
            key = store.put(bytes(5 * MB))
            assert store.get(key) == bytes(5 * MB)
            check_books(store)

    def test_batch_is_all_or_nothing(self, check_books) -> None:
        with small_store("3 MB") as store:
            with pytest.raises(StorageFullError):
                store.put_batch([bytes(MB)] * 4)
            assert store.usage()[:2] == (0, 0)
            check_books(store)

    def test_replacing_counts_once(self, check_books) -> None:
        with small_store("4 MB", recycle="2 MB") as store:
            key = store.new_key()
            for size in (MB, 10, 1_500_000, MB, MB, MB, 0):
                store.set(key, bytes(size))
                assert store.usage()[:2] == (1, size)
                check_books(store)
            store.evict(key)
            check_books(store)

    def test_of_a_killed_writer_comes_back(self, check_books) -> None:
        with small_store("10 MB") as store:
            code = """
                import json, os, sys
                from proxystore_core.connectors import _area
                from proxystore_core.connectors.shared_memory import SharedMemoryConnector
                store = SharedMemoryConnector.from_config(json.loads(sys.argv[1]))
                def write(fd, parts):
                    os.write(fd, parts[-1][:1_000_000])
                    os.kill(os.getpid(), 9)
                _area.write_all = write
                store.put(bytes(8_000_000))
            """
            args = [sys.executable, "-c", textwrap.dedent(code), json.dumps(store.config())]
            assert subprocess.run(args, timeout=30).returncode == -9
            assert len(list(Path(store.directory, "t").iterdir())) == 1
            assert store.usage()[:2] == (0, 0)
            assert store.get(store.put(bytes(9 * MB))) == bytes(9 * MB)
            check_books(store)

    def test_in_flight_counts(self, check_books) -> None:
        """What a living writer is about to fill is neither given away nor removed."""
        with small_store("10 MB") as store:
            code = """
                import json, os, sys
                from proxystore_core.connectors import _area
                from proxystore_core.connectors.shared_memory import SharedMemoryConnector
                store = SharedMemoryConnector.from_config(json.loads(sys.argv[1]))
                write_all = _area.write_all
                def write(fd, parts):
                    print("writing", flush=True)
                    sys.stdin.readline()
                    write_all(fd, parts)
                _area.write_all = write
                print(store.put(bytes(8_000_000)).object_id)
            """
            args = [sys.executable, "-c", textwrap.dedent(code), json.dumps(store.config())]
            with subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as writer:
                assert writer.stdout.readline() == "writing\n"
                with pytest.raises(StorageFullError):
                    store.put(bytes(3 * MB))
                store.put(bytes(MB))
                key = writer.communicate("\n", timeout=30)[0].strip()
            assert store.get(SharedMemoryKey(key)) == bytes(8 * MB)
            check_books(store)

    def test_processes_share_it(self, check_books) -> None:
        code = """
            import json, sys
            from proxystore_core.connectors.shared_memory import SharedMemoryConnector
            with SharedMemoryConnector.from_config(json.loads(sys.argv[1])) as store:
                store.put(b"ready")
                sys.stdin.readline()
                for turn in range(400):
                    store.evict(store.put(bytes((10, 5000, 200_000)[turn % 3])))
        """
        with small_store("100 MB") as store:
            command = [sys.executable, "-c", textwrap.dedent(code), json.dumps(store.config())]
            writers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(3)
            ]
            assert wait_until(lambda: store.usage().objects == 3)
            for writer in writers:
                writer.stdin.write("\n")
                writer.stdin.flush()
            for writer in writers:
                writer.communicate(timeout=60)
                assert writer.returncode == 0
            check_books(store)

    def test_threads_share_it(self, check_books) -> None:
        with small_store("12 MB") as store:

            def work() -> None:
                for _ in range(30):
                    store.evict(store.put(bytes(MB)))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert store.usage()[:2] == (0, 0)
            check_books(store)


class TestSpill:
    @pytest.fixture
    def spilling(self, tmp_path: Path) -> Iterator[SharedMemoryConnector]:
        with SharedMemoryConnector(quota="2 MB", spill_dir=str(tmp_path)) as store:
            yield store
        assert list(tmp_path.iterdir()) == []

    def test_takes_what_memory_cannot(
        self, spilling: SharedMemoryConnector, tmp_path: Path, path_of, check_books
    ) -> None:
        small, large = spilling.put(b"small"), spilling.put(b"l" * 5 * MB)
        assert path_of(spilling, small).exists()
        assert not path_of(spilling, large).exists()
        found = next(tmp_path.glob("*/o/*"))
        assert found.name == large.object_id
        assert found.stat().st_mode & 0o777 == 0o600
        assert found.parent.stat().st_mode & 0o777 == 0o700
        assert spilling.get(large) == b"l" * 5 * MB
        assert spilling.exists(large)
        assert set(spilling.keys()) == {small, large}
        assert spilling.usage()[:2] == (2, 5 * MB + 5)
        with SharedMemoryConnector.from_config(spilling.config()) as worker:
            assert worker.get_view(large) == b"l" * 5 * MB
            worker.evict(large)
        assert spilling.get(large) is None
        assert not found.exists()
        assert spilling.missing_reason(large) is MissingReason.EVICTED
        check_books(spilling)

    def test_a_key_lies_in_one_place(self, spilling: SharedMemoryConnector) -> None:
        key = spilling.new_key()
        for size in (10, 5 * MB, MB, 5 * MB, 10):
            data = os.urandom(size)
            spilling.set(key, data)
            assert spilling.get(key) == data
            assert list(spilling.keys()) == [key]
        spilling.evict(key)
        assert spilling.get(key) is None

    def test_to_a_file(self, tmp_path: Path) -> None:
        tmp_path.joinpath("file").write_text("")
        with pytest.raises(ConnectorConfigError, match="not a directory"):
            SharedMemoryConnector(spill_dir=str(tmp_path / "file"))

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="nothing that root cannot write")
    def test_to_where_nothing_can_be_written(self, check_books) -> None:
        with SharedMemoryConnector(quota=MB, spill_dir="/proc/spill") as store:
            with pytest.raises(StorageFullError, match="Name another one with spill_dir="):
                store.put(bytes(2 * MB))
            assert store.put(b"small")
            check_books(store)


class TestFullDevice:
    """A device that says it is full, in whatever way a test can make it say so."""

    CODE = """
        import resource, signal, sys
        from pathlib import Path
        from proxystore_core.connectors.file import FileConnector
        from proxystore_core.connectors.shared_memory import SharedMemoryConnector
        from proxystore_core.exceptions import StorageFullError

        def fails(store, size):
            try:
                store.put(bytes(size))
            except StorageFullError as error:
                return error.nbytes == size
            return False

        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
        if sys.argv[1] == "file":
            store = FileConnector(sys.argv[2])
        else:
            store = SharedMemoryConnector(spill_dir=sys.argv[2])
        with store:
            keys = [store.put(bytes(1_000_000)) for _ in range(2)]
            print(fails(store, 4_000_000), fails(store, 400_000_000))
            store.evict(keys[0])
            print(store.get(keys[0]) is None, store.get(keys[1]) == bytes(1_000_000))
            print(fails(store, 4_000_000), store.usage()[:2] == (1, 1_000_000))
            partial = list(Path(sys.argv[2]).rglob(".*partial*"))
            if sys.argv[1] != "file":
                partial += [*Path(store.directory, "t").iterdir(), *Path(sys.argv[2]).glob("*/t/*")]
            print(partial, store.get(store.put(bytes(2_000_000))) == bytes(2_000_000))
    """

    @pytest.mark.parametrize("kind", ["file", "shared memory"])
    def test_limit_on_file_sizes(self, kind: str, tmp_path: Path) -> None:
        args = [sys.executable, "-c", textwrap.dedent(self.CODE), kind, str(tmp_path / "dir")]
        printed = subprocess.check_output(args, text=True, timeout=60).split("\n")
        assert printed == ["True True", "True True", "True True", "[] True", ""]

    def test_machine_without_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody is killed for an object that does not fit."""
        monkeypatch.setattr(_pool, "available_memory", lambda: 150 * MB)
        with small_store("1 GB") as store:
            with pytest.raises(StorageFullError):
                store.put(bytes(100 * MB))
            assert store.usage()[:3] == (0, 0, 0)
            store.put(bytes(MB))
            monkeypatch.undo()
            store.put(bytes(100 * MB))

    @pytest.fixture
    def tiny(self, tmp_path: Path) -> Iterator[Path]:
        directory = tmp_path / "tiny"
        directory.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(directory)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small tmpfs; see test_limit_on_file_sizes")
        yield directory
        subprocess.run(["umount", str(directory)], check=True)

    def test_small_tmpfs(self, tiny: Path, monkeypatch: pytest.MonkeyPatch, check_books) -> None:
        monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(tiny / "root"))
        with small_store("100 MB", recycle="50 MB") as store:
            keys = []
            with pytest.raises(StorageFullError):
                while True:
                    keys.append(store.put(os.urandom(MB)))
            assert len(keys) >= 6
            check_books(store)
            with pytest.raises(StorageFullError):
                while True:  # below the size that the device is asked about first
                    keys.append(store.put(os.urandom(100_000)))
            with pytest.raises(StorageFullError):
                while True:
                    keys.append(store.put(b"x"))
            check_books(store)
            assert all(store.get(key) is not None for key in keys)
            for key in keys:
                store.evict(key)
            assert store.usage()[:2] == (0, 0)
            # The free segments fill the device, and yet there is room.
            small = [store.put(os.urandom(60_000)) for _ in range(30)]
            key = store.put(bytes(5 * MB))
            assert store.get(key) == bytes(5 * MB)
            assert all(store.exists(key) for key in small)
            check_books(store)

    def test_small_tmpfs_spills(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_books
    ) -> None:
        monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(tiny / "root"))
        spill = tmp_path / "spill"
        with SharedMemoryConnector(quota="100 MB", spill_dir=str(spill)) as store:
            datas = {store.put(data): data for data in [os.urandom(MB) for _ in range(20)]}
            datas |= {store.put(data): data for data in [os.urandom(60_000) for _ in range(40)]}
            assert len(list(spill.glob("*/o/*"))) > 10
            assert all(store.get(key) == data for key, data in datas.items())
            check_books(store)
