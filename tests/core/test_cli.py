"""The command `proxystore`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxystore_core import __version__
from proxystore_core.cli import main
from proxystore_core.cli._doctor import run_checks
from proxystore_core.connectors.shared_memory import SharedMemoryConnector

MB = 1_000_000


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root and a spill directory of this test alone."""
    monkeypatch.setenv("PROXYSTORE_SHM_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "root"


@contextmanager
def dead_store(*args: str) -> Iterator[Path]:
    """A store of 1 MB in memory and 2 MB spilled whose owner was killed."""
    code = """
        import os, sys
        from proxystore_core.connectors.shared_memory import SharedMemoryConnector
        store = SharedMemoryConnector(*sys.argv[1:], quota="2 MB")
        store.put(bytes(1_000_000))
        store.put(bytes(2_000_000))
        print(store.directory, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    owner = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert owner.returncode == -signal.SIGKILL
    yield Path(owner.stdout.strip())


def ask(capsys: pytest.CaptureFixture[str], *args: str) -> object:
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class TestLs:
    def test_nothing(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        assert main(["ls"]) == 0
        assert capsys.readouterr().out == f"No stores in {root}.\n"
        assert not root.exists()
        assert ask(capsys, "ls") == []

    def test_living_and_dead(self, capsys: pytest.CaptureFixture[str]) -> None:
        with SharedMemoryConnector(recycle="10 MB") as store, dead_store() as dead:
            store.put(b"12345")
            store.evict(store.put(bytes(MB)))
            assert main(["ls"]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert lines[0].split() == (
                ["DIRECTORY", "OWNER", "AGE", "OBJECTS", "BYTES", "KEPT", "FREE", "SPILLED"]
            )
            assert lines[1].split()[:3] == [store.directory, str(os.getpid()), "(alive)"]
            assert lines[2].split()[0] == str(dead)
            assert "(dead)" in lines[2]
            assert "proxystore gc" in lines[-1]

            living, gone = ask(capsys, "ls")
            assert living["alive"]
            assert (living["objects"], living["nbytes"]) == (1, 5)
            assert living["reserved"] > MB
            assert living["pid"] == os.getpid()
            assert not gone["alive"]
            assert (gone["objects"], gone["nbytes"]) == (2, 3 * MB)
            assert gone["spilled"] > 2 * MB

    def test_leaves_no_trace(self) -> None:
        with SharedMemoryConnector() as store:
            before = {path: path.stat().st_mtime_ns for path in Path(store.directory).rglob("*")}
            main(["ls"])
            main(["stat"])
            main(["gc", "--dry-run"])
            after = {path: path.stat().st_mtime_ns for path in Path(store.directory).rglob("*")}
            assert before.keys() == after.keys()


class TestStat:
    def test_all_and_named(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        with (
            SharedMemoryConnector() as one,
            SharedMemoryConnector(str(tmp_path / "named"), spill=False) as two,
        ):
            assert [store["directory"] for store in ask(capsys, "stat")] == [one.directory]
            found = ask(capsys, "stat", two.directory, one.directory)
            assert [store["directory"] for store in found] == [two.directory, one.directory]
            assert main(["stat", two.directory]) == 0
            out = capsys.readouterr().out
            assert str(os.getpid()) in out
            assert "alive" in out
            assert "never" in out

    def test_no_store(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["stat", str(tmp_path)]) == 1
        assert "proxystore ls" in capsys.readouterr().err

    def test_of_another_release(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        tmp_path.joinpath("owner").write_text('{"version": 99}')
        assert main(["stat", str(tmp_path)]) == 1
        assert "format 99" in capsys.readouterr().err


class TestGc:
    def test_removes_dead_stores(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        with SharedMemoryConnector() as store, dead_store() as dead:
            key = store.put(b"alive")
            would = ask(capsys, "gc", "--dry-run")
            assert dead.exists()
            assert [(one["path"], one["what"]) for one in would] == [
                (str(dead), "store of a dead owner")
            ]
            assert would[0]["nbytes"] > 3 * MB
            assert main(["gc", "--dry-run"]) == 0
            assert "would be freed" in capsys.readouterr().out
            done = ask(capsys, "gc")
            assert [one["path"] for one in done] == [str(dead)]
            assert not dead.exists()
            assert not list(tmp_path.glob("proxystore-spill-*/*"))
            assert store.get(key) == b"alive"
            assert main(["gc"]) == 0
            assert capsys.readouterr().out == "Nothing to remove.\n"

    def test_named_directory(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        with dead_store(str(tmp_path / "named")) as dead:
            assert ask(capsys, "gc") == []
            assert dead.exists()
            assert main(["gc", str(dead)]) == 0
            assert "freed" in capsys.readouterr().out
            assert not dead.exists()

    def test_half_written_objects(self, capsys: pytest.CaptureFixture[str]) -> None:
        with SharedMemoryConnector() as store:
            left = Path(store.directory, "t", "gone.0.1003520")
            left.write_bytes(bytes(MB))
            would = ask(capsys, "gc", "--dry-run")
            assert [one["what"] for one in would] == ["objects half written"]
            assert left.exists()
            assert ask(capsys, "gc") == would
            assert not left.exists()
            assert ask(capsys, "gc") == []

    def test_spill_without_a_store(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        left = tmp_path / f"proxystore-spill-{os.getuid()}" / "abcdefgh"
        left.mkdir(parents=True)
        left.joinpath("store").write_text(str(tmp_path / "gone"))
        assert [one["path"] for one in ask(capsys, "gc")] == [str(left)]
        assert not left.exists()


class TestDoctor:
    def test_healthy(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        assert main(["doctor"]) == 0
        out = capsys.readouterr().out
        assert __version__ in out
        assert str(root) in out
        assert "failed" not in out
        checks = {check["name"]: check for check in ask(capsys, "doctor")}
        assert checks["round trip"]["verdict"] == "ok"
        assert checks["locks"]["verdict"] == "ok"
        assert not root.exists()

    def test_says_what_to_do(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        root.mkdir(mode=0o755)
        assert main(["doctor"]) == 1
        assert f"chmod 700 {root}" in capsys.readouterr().out

    def test_names_dead_stores(self, capsys: pytest.CaptureFixture[str]) -> None:
        with dead_store():
            check = next(check for check in ask(capsys, "doctor") if check["name"] == "stores")
            assert check["verdict"] == "warning"
            assert "proxystore gc" in check["advice"]

    def test_every_check_has_a_verdict(self) -> None:
        assert {check.verdict for check in run_checks()} <= {"ok", "warning"}


class TestCommandLine:
    def test_installed(self) -> None:
        for command in (["-m", "proxystore_core.cli"],):
            done = subprocess.run(
                [sys.executable, *command, "--version"], capture_output=True, text=True, check=True
            )
            assert done.stdout == f"proxystore-core {__version__}\n"

    @pytest.mark.parametrize("args", [[], ["frobnicate"], ["ls", "--no-such-option"]])
    def test_makes_no_sense(self, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(args)
        assert caught.value.code == 2
        assert "usage: proxystore" in capsys.readouterr().err

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert all(word in out for word in ("ls", "stat", "gc", "doctor", "Exit status"))

    def test_reader_that_goes_early(self) -> None:
        with SharedMemoryConnector():
            command = f"{sys.executable} -m proxystore_core.cli stat --json | head -c 1"
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            assert done.stderr == ""
