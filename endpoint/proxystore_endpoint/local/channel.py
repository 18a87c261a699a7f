"""Connections to the control socket: blocking, pooled, each used by one thread at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import TypeVar

from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import ConnectorError
from proxystore_endpoint.exceptions import (
    EndpointError,
    EndpointUnreachableError,
    LocalProtocolError,
)
from proxystore_endpoint.local import messages as m

_T = TypeVar("_T", bound=m.Reply)
_IDLE = 8  # connections that are kept: a node may have hundreds of processes


class Connection:
    """One connection to a daemon.

    Args:
        path: Path of the socket.
        timeout: Seconds of silence after which the daemon counts as gone.

    Raises:
        EndpointUnreachableError: Nobody listens, or nobody answers.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray(4096)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            self.welcome = self.ask(m.Hello(), m.Welcome)
        except OSError as error:
            self.close()
            raise self._gone(error) from error
        except BaseException:
            self.close()
            raise
        if self.welcome.version != m.VERSION:
            self.close()
            raise LocalProtocolError(
                f"The endpoint behind {path} speaks version {self.welcome.version} of the local "
                f"protocol, this process {m.VERSION}. Use one release of proxystore-core on a node."
            )

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, request: m.Request, kind: type[_T], *, patience: float = 0.0) -> _T:
        """Send a request and return the reply.

        Args:
            request: The request.
            kind: Kind of reply to it.
            patience: Seconds that the daemon may take beyond the usual.

        Raises:
            OSError: The connection is lost.
            EndpointError: What the daemon answered instead.
        """
        reply = self.exchange(request, patience=patience)
        if isinstance(reply, kind):
            return reply
        raise LocalProtocolError(
            f"The endpoint answered {type(reply).__name__} to {type(request).__name__}."
        )

    def exchange(self, request: m.Request, *, patience: float = 0.0) -> m.Reply:
        """Send a request and return whatever is replied; raises as `ask`."""
        self._socket.settimeout(self._timeout + patience)
        self._socket.sendall(m.encode(request))
        reply = m.decode_reply(self._receive())
        if isinstance(reply, m.Failure):
            raise m.to_error(reply)
        return reply

    def _receive(self) -> memoryview:
        """Read one message; mostly that is one call."""
        have, need = 0, m.LENGTH.size
        while have < need:
            count = self._socket.recv_into(memoryview(self._buffer)[have:])
            if count == 0:
                raise ConnectionResetError("The endpoint closed the connection.")
            have += count
            if need == m.LENGTH.size and have >= need:
                length = m.LENGTH.unpack_from(self._buffer)[0]
                if length > m.MAX_REPLY:
                    raise LocalProtocolError(f"A reply of {length} bytes is too long.")
                need += length
                if need > len(self._buffer):
                    self._buffer += bytes(need - len(self._buffer))
        return memoryview(self._buffer)[m.LENGTH.size : need]

    def _gone(self, error: OSError) -> EndpointUnreachableError:
        return unreachable(self._path, self._timeout, error)


def unreachable(path: str, timeout: float, error: OSError) -> EndpointUnreachableError:
    """Return the error for a daemon that is not there."""
    why = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else str(error)
    return EndpointUnreachableError(
        f"The endpoint behind {path} cannot be reached ({why}). Start it with: "
        "proxystore-endpoint start NAME",
        address=path,
    )


class Channel:
    """The connections of one process to a daemon, and the memory that it shares with it.

    Args:
        path: Path of the socket.
        timeout: Seconds of silence after which the daemon counts as gone.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self._idle: list[Connection] = []
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._welcome: m.Welcome | None = None
        self._memory: SharedMemoryConnector | None = None

    def close(self) -> None:
        """Close all connections, and let go of the memory; what is mapped stays mapped."""
        with self._mutex:
            idle, self._idle = self._idle, []
            memory, self._memory, self._welcome = self._memory, None, None
        for connection in idle:
            connection.close()
        if memory is not None:
            memory.close()

    @property
    def welcome(self) -> m.Welcome:
        """What the daemon said of itself."""
        welcome = self._welcome
        if welcome is None or self._pid != os.getpid():
            with self.connection():
                welcome = self._welcome
        if welcome is None:
            raise EndpointUnreachableError(f"This client of {self.path} was closed.")
        return welcome

    @property
    def memory(self) -> SharedMemoryConnector:
        """The memory of the daemon, attached to."""
        memory = self._memory
        if memory is None:
            config = self.welcome.memory
            with self._mutex:
                memory = self._memory
                if memory is None:
                    memory = self._memory = SharedMemoryConnector.from_config(config)
        return memory

    @contextlib.contextmanager
    def connection(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Lend a connection.

        Args:
            fresh: Whether to open a new one, and drop those that are idle.
        """
        connection = self._take(fresh)
        try:
            yield connection
        except (OSError, LocalProtocolError) as error:
            if isinstance(error, (EndpointError, ConnectorError)) and not isinstance(
                error, LocalProtocolError
            ):
                self._keep(connection)  # an answer like any other
            else:
                connection.close()
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                self._keep(connection)
            else:
                connection.close()  # interrupted: its reply may come still
            raise
        else:
            self._keep(connection)

    def _take(self, fresh: bool) -> Connection:
        if self._pid != os.getpid():  # forked: the connections are the parent's
            self._mutex, self._pid = threading.Lock(), os.getpid()
            fresh = True
        with self._mutex:
            if not fresh and self._idle:
                return self._idle.pop()
            stale, self._idle = (self._idle, []) if fresh else ([], self._idle)
        for connection in stale:
            connection.close()
        connection = Connection(self.path, self.timeout)
        self._meet(connection.welcome)
        return connection

    def _meet(self, welcome: m.Welcome) -> None:
        with self._mutex:
            before, self._welcome = self._welcome, welcome
            if before is not None and before.memory != welcome.memory:  # it was restarted
                self._memory = None

    def _keep(self, connection: Connection) -> None:
        with self._mutex:
            current = self._welcome is not None and self._welcome.pid == connection.welcome.pid
            if current and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def ask(self, request: m.Request, kind: type[_T], *, patience: float = 0.0) -> _T:
        """Send a request and return the reply; once more, if the daemon was restarted.

        Raises:
            EndpointUnreachableError: The daemon is not there.
            EndpointError: What it answered instead.
        """
        reply = self.exchange(request, patience=patience)
        if isinstance(reply, kind):
            return reply
        raise LocalProtocolError(
            f"The endpoint answered {type(reply).__name__} to {type(request).__name__}."
        )

    def exchange(self, request: m.Request, *, patience: float = 0.0) -> m.Reply:
        """Send a request and return whatever is replied; raises as `ask`."""
        try:
            with self.connection() as connection:
                return connection.exchange(request, patience=patience)
        except TimeoutError as error:
            if isinstance(error, EndpointError):
                raise
            raise unreachable(self.path, self.timeout + patience, error) from error
        except OSError as error:
            if isinstance(error, (EndpointError, ConnectorError)):
                raise
        try:
            with self.connection(fresh=True) as connection:
                return connection.exchange(request, patience=patience)
        except OSError as error:
            if isinstance(error, (EndpointError, ConnectorError)):
                raise
            raise unreachable(self.path, self.timeout + patience, error) from error
