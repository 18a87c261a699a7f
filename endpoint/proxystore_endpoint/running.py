"""Which daemon runs for an endpoint: its process, and where it can be reached.

The file `daemon.pid` holds the process id in its first line, as ProxyStore's does, and a JSON
object in its second. A process id alone names nobody for long, so the time at which the process
started is kept with it.
"""

from __future__ import annotations

import enum
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from proxystore_endpoint.config import (
    ENDPOINT_PID_FILE,
    read_config,
    write_private,
)
from proxystore_endpoint.exceptions import EndpointConfigError

CONTROL_SOCKET = "control.sock"
_PROC = Path("/proc")
_NODE = Path("/proc/sys/kernel/random/boot_id")
_POLL_S = 0.02


class EndpointStatus(enum.Enum):
    """What is known of an endpoint's daemon."""

    RUNNING = enum.auto()
    """It runs on this machine."""
    STOPPED = enum.auto()
    """It does not run."""
    UNKNOWN = enum.auto()
    """There is no such endpoint, or its configuration cannot be read."""
    HANGING = enum.auto()
    """It was killed and left its file behind, or it runs on another machine."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon.

    Attributes:
        pid: Its process id.
        started: When the process started, in the system's own terms: only to compare.
        node: Machine that it runs on, and which boot of it.
        hostname: Name of that machine.
        url: Where its REST API is, `http://host:port` or `https://host:port`.
        control: Path of its unix socket.
        peer_port: Port on which it takes peers, 0 for none.
        version: Release of proxystore-core.
        since: When it was up, in seconds since the epoch.
    """

    pid: int
    started: str
    node: str
    hostname: str
    url: str
    control: str
    peer_port: int = 0
    version: str = ""
    since: float = 0.0

    def is_here(self) -> bool:
        """Tell whether it is on this machine."""
        return self.node == node_name()

    def is_alive(self) -> bool:
        """Tell whether it runs, as far as can be told from this machine."""
        return self.is_here() and process_started(self.pid) == self.started


def node_name() -> str:
    """Name this machine and its boot."""
    try:
        boot = _NODE.read_text(encoding="ascii").strip()[:8]
    except OSError:
        boot = ""
    return f"{os.uname().nodename}/{boot}"


def process_started(pid: int) -> str | None:
    """Tell when a process started, as text to compare; `None` where there is no such process."""
    if _PROC.joinpath("self", "stat").exists():
        try:
            text = _PROC.joinpath(str(pid), "stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # proc(5): the name may hold anything
        return None if fields[0] in "ZX" else fields[19]
    command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - numbers only
    return found.stdout.strip() or None


def write_running(endpoint_dir: Path, running: Running) -> None:
    """Keep which daemon runs."""
    lines = b"%d\n%b\n" % (running.pid, msgspec.json.encode(running))
    write_private(endpoint_dir / ENDPOINT_PID_FILE, lines)


def read_running(endpoint_dir: str | os.PathLike[str]) -> Running | None:
    """Read which daemon was started last; `None` where it was stopped, or the file is not ours."""
    try:
        lines = (Path(endpoint_dir) / ENDPOINT_PID_FILE).read_bytes().splitlines()
        return msgspec.json.decode(lines[1], type=Running)
    except (OSError, IndexError, msgspec.DecodeError):
        return None


def clear_running(endpoint_dir: Path, running: Running | None) -> None:
    """Remove the file of a daemon, unless another one has written its own by now."""
    if running is None or read_running(endpoint_dir) == running:
        (endpoint_dir / ENDPOINT_PID_FILE).unlink(missing_ok=True)


def get_status(name: str, proxystore_dir: str | os.PathLike[str]) -> EndpointStatus:
    """Tell what is known of an endpoint's daemon.

    Args:
        name: Name of the endpoint.
        proxystore_dir: Home of all endpoints.
    """
    directory = Path(proxystore_dir) / name
    try:
        read_config(directory)
    except (FileNotFoundError, EndpointConfigError):
        return EndpointStatus.UNKNOWN
    if not (directory / ENDPOINT_PID_FILE).exists():
        return EndpointStatus.STOPPED
    running = read_running(directory)
    if running is not None and running.is_alive():
        return EndpointStatus.RUNNING
    return EndpointStatus.HANGING


def stop_process(running: Running, *, patience: float) -> bool:
    """End a daemon: ask, wait, then kill.

    Args:
        running: The daemon, on this machine.
        patience: Seconds to wait before it is killed.

    Returns:
        Whether it ended by itself.
    """
    for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + wait
        if not _signal(running, sign):
            return sign is signal.SIGTERM
        while running.is_alive():
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        else:
            return sign is signal.SIGTERM
    return False


def _signal(running: Running, sign: signal.Signals) -> bool:
    """Send a signal to a process, and to no other that took its id in the meantime."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return False
        try:
            if not running.is_alive():
                return False
            signal.pidfd_send_signal(fd, sign)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True
    if not running.is_alive():
        return False
    os.kill(running.pid, sign)
    return True


def runtime_dir(uuid: str) -> Path:
    """Return the directory of an endpoint for what must not leave this machine: its socket.

    `$PROXYSTORE_RUNTIME_DIR`, else `/tmp/proxystore-run-<uid>`; not the temporary directory,
    which batch systems name anew for each job.
    """
    base = os.environ.get("PROXYSTORE_RUNTIME_DIR") or f"/tmp/proxystore-run-{os.getuid()}"  # noqa: S108 - checked
    return Path(base).absolute() / uuid


def make_runtime_dir(uuid: str) -> Path:
    """Make the directory of `runtime_dir`, for this user alone.

    Raises:
        EndpointConfigError: It cannot be made, is somebody else's, or open to others.
    """
    directory = runtime_dir(uuid)
    for path in (directory.parent, directory):
        try:
            path.mkdir(mode=0o700, exist_ok=True, parents=path is directory.parent)
            status = path.lstat()
        except OSError as error:
            raise EndpointConfigError(
                f"The directory {path} cannot be made: {error.strerror}. Name another one with "
                "PROXYSTORE_RUNTIME_DIR, for the endpoint and its clients alike."
            ) from error
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.geteuid():
            raise EndpointConfigError(
                f"{path} is not a directory of this user alone. Name another one with "
                "PROXYSTORE_RUNTIME_DIR, for the endpoint and its clients alike."
            )
    return directory
