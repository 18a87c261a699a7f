"""Real endpoints at the sites of the NAT laboratory, and a real relay in its middle."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxystore_endpoint.cli import main
from proxystore_endpoint.config import read_config
from proxystore_endpoint.local.client import LocalClient
from proxystore_endpoint.running import read_running

from benchmarks._netns import Namespace
from tests.conftest import wait_until
from tests.endpoint.nat_lab import MIDDLE, STUN_URL, NatLab

RELAY_PORT = 8700
START_TIMEOUT = 60.0  # seconds; several processes start at once
_RELAY = "import sys; from proxystore_endpoint.relay.cli import main; sys.exit(main())"


class LabEndpoints:
    """An endpoint at each site of a laboratory, named as the site; each lets all others read.

    Use `running`. The control sockets are files, so that they are reached from outside
    of the namespaces.

    Args:
        lab: The laboratory.
        home: Directory for the endpoints' configurations.

    Attributes:
        ids: Id of each endpoint.
        clients: A client of each endpoint.
    """

    def __init__(self, lab: NatLab, home: Path) -> None:
        self._lab = lab
        self._home = home
        self._processes: list[subprocess.Popen[bytes]] = []
        self._relay: subprocess.Popen[bytes] | None = None
        self.ids: dict[str, str] = {}
        self.clients: dict[str, LocalClient] = {}

    def configure(self) -> None:
        """Make the endpoints."""
        relay = ("--relay-address", f"ws://{MIDDLE}:{RELAY_PORT}", "--ice-server", STUN_URL)
        for name in self._lab.hosts:
            self._command("configure", name, *relay)
            self.ids[name] = read_config(self._home / name).uuid
        for name in self.ids:
            for other in self.ids.values():
                if other != self.ids[name]:
                    self._command("grant", name, other, "--rights", "read")

    def _command(self, *argv: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            status = main(argv)
        assert status == 0, argv

    def start_relay(self) -> None:
        """Start the relay, and wait until it listens."""
        where = ("--host", MIDDLE, "--port", str(RELAY_PORT), "--log-level", "INFO")
        log = self._home / "relay.log"
        self._relay = self._spawn(self._lab.middle, log, "-c", _RELAY, *where)
        assert wait_until(self._listens, START_TIMEOUT), log.read_text()

    def kill_relay(self) -> None:
        """Kill the relay."""
        assert self._relay is not None
        self._relay.kill()
        self._relay.wait(timeout=10)

    def start(self) -> None:
        """Start the relay and the endpoints, and wait until all of them are registered."""
        self.start_relay()
        for name, host in self._lab.hosts.items():
            log = self._home / f"{name}.log"
            command = ("-m", "proxystore_endpoint", "start", name, "--no-detach")
            self._processes.append(self._spawn(host, log, *command))
        for name in self.ids:
            log, directory = self._home / f"{name}.log", self._home / name
            there = wait_until(
                lambda log=log, directory=directory: (
                    "Registered at" in log.read_text() and read_running(directory) is not None
                ),
                START_TIMEOUT,
            )
            running = read_running(directory)
            assert there, log.read_text()
            assert running is not None
            client = self.clients[name] = LocalClient(running.control)
            client.put("first", [b"it opens the endpoint's memory, which stays open"])
            client.evict("first", self.ids[name])

    def _listens(self) -> bool:
        return f":{RELAY_PORT} " in self._lab.middle.run("ss", "-Hltn")

    @staticmethod
    def _spawn(where: Namespace, log: Path, *argv: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return where.popen(sys.executable, *argv, stdout=output, stderr=output)

    def peer(self, name: str, other: str) -> dict[str, Any]:
        """Return what an endpoint says of another one; empty if it does not know it."""
        peers = self.clients[name].status()["peers"]
        return next((peer for peer in peers if peer["uuid"] == self.ids[other]), {})

    def stop(self) -> None:
        """Stop all of them."""
        for client in self.clients.values():
            client.close()
        processes = [*self._processes, *([self._relay] if self._relay else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


@contextlib.contextmanager
def running(lab: NatLab, home: Path) -> Iterator[LabEndpoints]:
    """Run endpoints and a relay in a laboratory, with their files in a directory."""
    before = os.environ.get("PROXYSTORE_HOME")
    os.environ["PROXYSTORE_HOME"] = str(home)
    endpoints = LabEndpoints(lab, home)
    try:
        endpoints.configure()
        endpoints.start()
        yield endpoints
    finally:
        endpoints.stop()
        if before is None:
            del os.environ["PROXYSTORE_HOME"]
        else:
            os.environ["PROXYSTORE_HOME"] = before
