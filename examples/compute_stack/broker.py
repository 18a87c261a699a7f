"""A RabbitMQ server of this run alone, on ports of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

import pika
import pika.exceptions

from examples.compute_stack.processes import Process, StackError, free_ports

ATTEMPTS = 3  # a port that was free may be taken before the server has it
# Debian's /usr/sbin/rabbitmq-server changes the user; the script behind it runs as anybody.
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def program() -> str:
    """Find RabbitMQ's server.

    Raises:
        StackError: If it is not installed.
    """
    if DEBIAN.exists():
        return str(DEBIAN)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("rabbitmq-server", path=path)
    if found is None:
        raise StackError(
            "RabbitMQ's server is missing. Install it, for instance with: "
            "apt-get install --no-install-recommends rabbitmq-server"
        )
    return found


class Broker:
    """RabbitMQ with a name, an Erlang port mapper, ports and a data directory of its own.

    Nothing of it listens on other interfaces, and nothing of a RabbitMQ that this machine has
    anyway is touched.

    Args:
        directory: Where it keeps all that it writes.

    Raises:
        StackError: If it is not installed or does not start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        command = program()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start(command, directory / f"attempt-{attempt}")
                return
            except StackError:
                self.close()
                if attempt == ATTEMPTS:
                    raise

    def _start(self, command: str, directory: Path) -> None:
        directory.mkdir(parents=True)
        mapper, port, distribution = free_ports(3)
        plugins = directory / "enabled_plugins"
        plugins.write_text("[].\n")
        config = directory / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\n"
            "loopback_users = none\n"
            # Below this much free disk it would stop taking messages; the default is 50 MB.
            "disk_free_limit.absolute = 10MB\n"
            # A log for queues that are not used here, written in full at the start: 512 MB.
            "raft.wal_max_size_bytes = 1000000\n"
        )
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(directory),  # of the Erlang cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"stack{port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_ALLOW_INPUT": "1",  # so that the script becomes the server: one process
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1} +sbwt none"
            ),
        }
        epmd = ["epmd", "-address", "127.0.0.1", "-port", str(mapper)]
        self._mapper = Process("epmd", epmd, environment, directory / "epmd.log", directory)
        self._mapper.wait_for(lambda: _listens(mapper), 10)
        self._server = Process(
            "RabbitMQ", [command], environment, directory / "server.log", directory
        )
        self.port = port
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/%2F?heartbeat=60"
        self._server.wait_for(self._answers, 60)

    def _answers(self) -> bool:
        if not _listens(self.port):  # pika would log at length that it cannot connect
            return False
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
            return True
        return False

    @property
    def processes(self) -> list[Process]:
        """Its processes."""
        return [self._server, self._mapper]

    def close(self) -> None:
        """End it, and forget what it holds."""
        for name in ("_server", "_mapper"):
            process: Process | None = getattr(self, name, None)
            if process is not None:
                process.end(signal.SIGKILL)  # there is nothing to keep
        shutil.rmtree(self._directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
