"""Who owns a store of shared memory: forks, killed owners, and what they left."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxystore_core.connectors._inspect import look
from proxystore_core.connectors._process import node_id
from proxystore_core.connectors._reaping import reap_store
from proxystore_core.connectors.shared_memory import (
    SharedMemoryConnector,
    SharedMemoryKey,
    shared_memory_root,
)
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    MissingReason,
)

MB = 1_000_000


@pytest.fixture
def store():
    with SharedMemoryConnector() as connector:
        yield connector


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

    def test_child_of_multiprocessing_cleans_up(self) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=_keep_a_store, args=(there,))
        process.start()
        directory = here.recv()
        process.join(30)
        assert process.exitcode == 0
        assert not Path(directory).exists()
        for end in (here, there):
            end.close()


def _keep_a_store(connection) -> None:
    global kept
    kept = SharedMemoryConnector()
    kept.put(b"data")
    connection.send(kept.directory)


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

    def test_opening_a_named_one_among_them_removes_it_too(self, dead) -> None:
        directory, *_ = dead
        with SharedMemoryConnector(f"{shared_memory_root()}/by-name"):
            assert not directory.exists()

    def test_a_living_owner_is_left_alone(self, store: SharedMemoryConnector, run) -> None:
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


class TestJoint:
    """A store that goes with the last of its owners."""

    CODE = """
        import sys
        from proxystore_core.connectors.shared_memory import SharedMemoryConnector
        with SharedMemoryConnector(sys.argv[1], joint=True) as store:
            print(store.put(b"data" * 10_000).object_id, flush=True)
            sys.stdin.readline()
        """

    @pytest.fixture
    def started(self, tmp_path: Path):
        code = textwrap.dedent(self.CODE)
        command = [sys.executable, "-c", code, str(tmp_path / "store")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield process, SharedMemoryKey(process.stdout.readline().strip())
            if process.poll() is None:
                process.kill()

    def test_goes_with_the_last(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")
        first = SharedMemoryConnector(name, joint=True)
        second = SharedMemoryConnector(name, joint=True)
        key = first.put(b"data")
        first.close()
        assert second.get(key) == b"data"
        third = SharedMemoryConnector(name, joint=True)
        second.close()
        assert third.get(key) == b"data"
        third.close()
        assert not Path(name).exists()

    @pytest.mark.parametrize("kill", [False, True])
    def test_outlives_the_process_that_made_it(self, started, tmp_path: Path, kill: bool) -> None:
        process, key = started
        name = str(tmp_path / "store")
        with SharedMemoryConnector(name, joint=True) as store:
            if kill:
                process.kill()
            else:
                process.stdin.close()
            process.wait(30)
            assert reap_store(name) == []
            status = look(name)
            assert status is not None
            assert status.alive
            assert store.get(key) == b"data" * 10_000
        assert not Path(name).exists()

    def test_is_reaped_when_all_were_killed(self, started, tmp_path: Path) -> None:
        process, key = started
        name = str(tmp_path / "store")
        process.kill()
        process.wait(30)
        status = look(name)
        assert status is not None
        assert not status.alive
        with SharedMemoryConnector(name, joint=True) as store:
            assert store.get(key) is None
            assert store.usage().objects == 0
        assert not Path(name).exists()

    def test_a_connector_that_only_uses_it_keeps_nobody_out(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")
        first = SharedMemoryConnector(name, joint=True)
        user = SharedMemoryConnector(name)
        reader = SharedMemoryConnector.from_config(first.config())
        first.close()
        assert not Path(name).exists()
        user.close()
        reader.close()

    def test_with_an_owner_of_its_own(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")
        with SharedMemoryConnector(name) as owner:
            with SharedMemoryConnector(name, joint=True) as user:
                key = user.put(b"data")
            assert owner.get(key) == b"data"
        assert not Path(name).exists()

    def test_many_come_and_go(self, tmp_path: Path) -> None:
        name = str(tmp_path / "store")

        def come_and_go(number: int) -> None:
            for _ in range(20):
                with SharedMemoryConnector(name, joint=True) as store:
                    key = store.put(b"data%d" % number)
                    assert store.get(key) == b"data%d" % number

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(come_and_go, range(4)))
        assert not Path(name).exists()

    def test_needs_a_directory(self) -> None:
        with pytest.raises(ConnectorConfigError, match="directory="):
            SharedMemoryConnector(joint=True)
