"""The process of an endpoint: how it begins, lasts and ends."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxystore_endpoint.daemon import watch
from proxystore_endpoint.exceptions import EndpointUnreachableError
from proxystore_endpoint.running import Running, process_started
from proxystore_endpoint.tasks import Tasks, log_errors

from tests.conftest import ROOT, shared_memory, wait_until
from tests.endpoint.homes import COMMAND, Home, homes


@pytest.fixture
def home() -> Iterator[Home]:
    with homes(1) as (only,):
        yield only


def gone(running: Running) -> bool:
    return wait_until(lambda: not running.is_alive(), 15)


class TestLife:
    def test_start_and_stop(self, home: Home) -> None:
        home.make("a")
        running = home.running("a")
        assert running.is_alive()
        with home.client("a") as client:
            assert client.health()
            client.put("k", b"x")
            home.run("stop", "a")
            assert not running.is_alive()
            with pytest.raises(EndpointUnreachableError):
                client.get("k")
        assert not (home.directory("a") / "daemon.pid").exists()
        assert not Path(running.control).parent.exists()
        assert not list(home.path.glob("proxystore-spill-*/*"))
        assert home.run("stop", "a") == "Endpoint a is not running.\n"
        home.run("start", "a")
        assert home.running("a").pid != running.pid

    def test_started_twice(self, home: Home) -> None:
        home.make("a")
        pid = home.running("a").pid
        assert "runs already" in home.run("start", "a", code=1)
        assert home.running("a").pid == pid
        with home.client("a") as client:
            assert client.health()

    def test_killed(self, home: Home) -> None:
        before = shared_memory()
        home.make("a")
        killed = home.running("a")
        with home.client("a") as client:
            client.put("k", bytes(1_000_000))
        os.kill(killed.pid, signal.SIGKILL)
        assert gone(killed)
        assert home.json("list")[0]["status"] == "HANGING"
        home.run("start", "a")
        assert home.running("a").pid != killed.pid
        control = Path(home.running("a").control)
        with home.client("a") as client:
            assert client.get("k") is None  # memory went with the process
        home.run("stop", "a")
        assert shared_memory() <= before
        assert not control.parent.exists()

    def test_started_and_stopped_at_once(self, home: Home) -> None:
        """Whoever wins, there is one daemon at a time, and no lock stays."""
        home.make("a", start=False)
        starts = [
            subprocess.Popen(
                [*COMMAND, "start", "a"],
                env=home.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(4)
        ]
        codes = sorted(process.wait(60) for process in starts)
        assert codes[0] == 0
        assert codes[1:] == [1, 1, 1]
        with home.client("a") as client:
            assert client.health()
        home.run("stop", "a")
        home.run("start", "a")

    def test_stop_of_a_stale_file_kills_nobody(self, home: Home) -> None:
        home.make("a", start=False)
        sleeper = subprocess.Popen(["sleep", "60"])
        try:
            (home.directory("a") / "daemon.pid").write_text(f"{sleeper.pid}\n")
            assert "is not running" in home.run("stop", "a")
            assert sleeper.poll() is None
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_descriptors(self, home: Home) -> None:
        home.make("a", start=False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            home.run("start", "a")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        limits = Path(f"/proc/{home.running('a').pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
        assert int(line.split()[3]) > 256

    def test_foreground(self, home: Home) -> None:
        home.make("a", start=False)
        process = subprocess.Popen(
            [*COMMAND, "start", "a", "--no-detach"], env=home.env, stderr=subprocess.DEVNULL
        )
        try:
            assert wait_until(lambda: home.directory("a").joinpath("daemon.pid").exists(), 20)
            assert home.running("a").pid == process.pid
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.wait()

    def test_nothing_is_open_to_others(self, home: Home) -> None:
        home.make("a", "--persist")
        with home.client("a") as client:
            client.put("k", bytes(2_000_000))
            client.put("s", b"small")
        home.run("share", "a")
        control = Path(home.running("a").control)
        for top in (home.directory("a"), control.parent, ROOT):
            for path in (top, *top.rglob("*")):
                assert path.lstat().st_mode & 0o077 == 0, path
        assert home.directory("a").joinpath("identity.key").stat().st_mode & 0o777 == 0o600
        assert home.directory("a").joinpath("token").stat().st_mode & 0o777 == 0o600

    def test_persisted(self, home: Home) -> None:
        home.make("a", "--persist")
        with home.client("a") as client:
            assert client.put("small", b"x").durability == "durable"
            assert client.put("large", bytes(3_000_000)).durability == "durable"
        os.kill(home.running("a").pid, signal.SIGKILL)
        assert gone(home.running("a"))
        home.run("start", "a")
        with home.client("a") as client:
            assert bytes(client.get("small") or b"") == b"x"
            assert bytes(client.get("large") or b"") == bytes(3_000_000)


class TestEnds:
    def test_with_the_process_that_it_watches(self, home: Home) -> None:
        home.make("a", start=False)
        parent = subprocess.Popen(["sleep", "60"])
        try:
            home.run("start", "a", "--watch-parent", str(parent.pid))
            running = home.running("a")
            assert running.is_alive()
        finally:
            parent.kill()
            parent.wait()
        assert gone(running)
        assert not (home.directory("a") / "daemon.pid").exists()

    def test_when_nobody_needs_it(self, home: Home) -> None:
        home.make("a", start=False)
        home.run("start", "a", "--idle-exit", "0.5")
        running = home.running("a")
        assert gone(running)

    def test_not_while_it_holds_objects(self, home: Home) -> None:
        home.make("a", start=False)
        home.run("start", "a", "--idle-exit", "1")
        running = home.running("a")
        with home.client("a") as client:
            client.put("k", b"x", ttl=1.5)
            assert wait_until(lambda: client.get("k") is None, 10)
            assert running.is_alive()
        assert gone(running)

    def test_watch(self) -> None:
        async def of(pid: int) -> bool:
            stop = asyncio.Event()
            await watch(pid, stop)
            return stop.is_set()

        with subprocess.Popen(["sleep", "0.2"]) as brief:
            assert asyncio.run(of(brief.pid))
        assert asyncio.run(of(brief.pid))


class TestRefuses:
    def test_taken_port(self, home: Home) -> None:
        import socket

        home.make("a", start=False)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", home.config("a").port))
            other.listen()
            said = home.run("start", "a", code=1)
        assert "cannot listen on" in said
        assert "config.toml" in said

    def test_taken_peer_port(self, home: Home) -> None:
        import socket

        home.make("a", start=False)
        with socket.socket() as other:
            other.bind(("127.0.0.1", home.config("a").peering.port))
            other.listen()
            home.run("start", "a")
        assert home.running("a").peer_port not in (0, home.config("a").peering.port)
        assert "any other port" in (home.directory("a") / "log.txt").read_text()

    def test_anothers_key(self, home: Home) -> None:
        home.make("a", start=False)
        home.make("b", start=False)
        key = home.directory("a") / "identity.key"
        key.write_bytes((home.directory("b") / "identity.key").read_bytes())
        assert "its key is that of" in home.run("start", "a", code=1)

    def test_open_key(self, home: Home) -> None:
        home.make("a", start=False)
        (home.directory("a") / "identity.key").chmod(0o644)
        assert "chmod 600" in home.run("start", "a", code=1)

    def test_another_machine(self, home: Home) -> None:
        home.make("a")
        pid_file = home.directory("a") / "daemon.pid"
        mine, hostname = pid_file.read_text(), os.uname().nodename
        elsewhere = mine.replace(f"{hostname}/", "elsewhere/").replace(
            f'"hostname":"{hostname}"', '"hostname":"elsewhere"'
        )
        pid_file.write_text(elsewhere)
        assert "on elsewhere" in home.run("stop", "a", code=1)
        assert home.running("a").hostname == "elsewhere"
        pid_file.write_text(mine)
        home.run("stop", "a")
        pid_file.write_text(elsewhere)
        assert "runs on elsewhere" in home.run("start", "a", code=1)

    def test_crash_at_once_is_told(self, home: Home) -> None:
        home.make("a", start=False)
        home.directory("a").joinpath("config.toml").write_text("nonsense")
        assert "cannot be used" in home.run("start", "a", code=1)

    def test_modules_of_the_current_directory_are_not_run(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home.make("a", start=False)
        (tmp_path / "quart.py").write_text("raise SystemExit('taken over')")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "proxystore_endpoint", "start", "a"],
            env=home.env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


class TestTasks:
    def test_an_error_ends_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        runs = []

        async def work() -> None:
            runs.append(1)
            if len(runs) < 3:
                raise OSError("broken")

        async def scenario() -> None:
            tasks = Tasks()
            tasks.keep("work", work)
            tasks.once("once", failing())
            async with asyncio.timeout(10):
                while len(runs) < 3:
                    await asyncio.sleep(0.01)
            assert tasks.restarts == 2
            await tasks.close()

        async def failing() -> None:
            raise ValueError("alone")

        asyncio.run(scenario())
        assert "work failed" in caplog.text
        assert "once failed" in caplog.text

    def test_what_nobody_handles_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            loop = asyncio.get_running_loop()
            log_errors(loop)
            loop.call_soon(int, "x")
            await asyncio.sleep(0.01)

        asyncio.run(scenario())
        assert "invalid literal" in caplog.text


def test_processes_are_told_apart() -> None:
    assert process_started(os.getpid()) is not None
    assert process_started(2**22 + 1) is None
