"""Homes of endpoints whose daemons are real, started as a user starts them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from proxystore_endpoint.cli import main
from proxystore_endpoint.client import EndpointClient
from proxystore_endpoint.config import EndpointConfig, read_config, read_token
from proxystore_endpoint.running import Running, read_running, stop_process

from proxystore_core.connectors.shared_memory import SharedMemoryConnector

COMMAND = (sys.executable, "-m", "proxystore_endpoint")
TIMEOUT = 60


class Home:
    """A directory of endpoints: one person's, at one site.

    Args:
        path: Where it is; short, because of the sockets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {
            **os.environ,
            "PROXYSTORE_HOME": str(path / "h"),
            "PROXYSTORE_RUNTIME_DIR": str(path / "r"),
            "TMPDIR": str(path),
        }

    def run(self, *args: str, code: int | None = 0) -> str:
        """Run the command, in this process; return what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.env, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            got = main(args)
        printed = (out.getvalue(), err.getvalue())
        assert code is None or got == code, (args, *printed)
        return printed[0] if code == 0 else "".join(printed)

    def command(self, *args: str) -> str:
        """Run the command as a user does, in a process; return what it printed."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("proxystore-endpoint")), *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout

    def python(self, code: str, *args: str) -> str:
        """Run a Python program in this home."""
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json"))

    def directory(self, name: str) -> Path:
        return self.path / "h" / name

    def config(self, name: str) -> EndpointConfig:
        return read_config(self.directory(name))

    def running(self, name: str) -> Running:
        found = read_running(self.directory(name))
        assert found is not None
        return found

    def client(self, name: str) -> EndpointClient:
        uuid = self.config(name).uuid
        return EndpointClient(self.running(name).url, read_token(self.directory(name)), uuid=uuid)

    def make(self, name: str, *args: str, start: bool = True) -> str:
        """Configure an endpoint that this machine alone reaches, and start it; return its UUID."""
        self.run("configure", name, "--peer-host", "127.0.0.1", "--ice-server", "none", *args)
        if start:
            self.run("start", name)
        return self.config(name).uuid

    def stop_all(self) -> None:
        for directory in (self.path / "h").glob("*"):
            running = read_running(directory)
            if running is not None:
                stop_process(running, patience=10)


@contextmanager
def homes(count: int) -> Iterator[list[Home]]:
    """Make homes, and at the end stop whatever runs in them."""
    base = Path(tempfile.mkdtemp(prefix="ps-"))
    found = []
    try:
        for number in range(count):
            (base / str(number)).mkdir(mode=0o700)
            found.append(Home(base / str(number)))
        yield found
    finally:
        for home in found:
            home.stop_all()
        SharedMemoryConnector().close()  # reaps what daemons left that a test killed
        shutil.rmtree(base)
