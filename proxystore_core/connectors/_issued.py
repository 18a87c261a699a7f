"""Object ids, and what became of the objects they were issued for.

An id is `<token>-<writer>-<number>`: the incarnation of the store, the process
that issued the id, a count. Every writer has a file with one byte an id, so that
an id without an object can be explained for as long as the store lives.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from itertools import count

from proxystore_core.connectors._layout import WRITERS
from proxystore_core.connectors._ledger import closed_error
from proxystore_core.connectors._process import watch_fork
from proxystore_core.exceptions import MissingReason

_ID = re.compile(r"([0-9a-z]{8})-([0-9a-f]{1,8})-([0-9a-f]{1,12})")
_STORED, _EXPIRED = b"\1", b"\2"
_REASONS = {
    b"": MissingReason.NEVER_STORED,
    b"\0": MissingReason.NEVER_STORED,
    _STORED: MissingReason.EVICTED,
    _EXPIRED: MissingReason.EXPIRED,
}


def is_object_id(text: object) -> bool:
    """Tell whether something is an id that a store may have issued, and so a safe file name."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


class Issued:
    """The ids of one store.

    Args:
        directory: The directory of the store.
        token: Its incarnation.
    """

    def __init__(self, directory: str, token: str) -> None:
        self._directory = directory
        self._token = token
        self._fd = -1
        self._prefix = ""
        self._numbers = count(1)
        self._mutex = threading.Lock()
        watch_fork(self)

    def issue(self) -> str:
        """Return a new id.

        Raises:
            ConnectorClosedError: The store is gone.
        """
        if self._fd < 0:
            with self._mutex:
                if self._fd < 0:
                    self._register()
        return f"{self._prefix}{next(self._numbers):x}"

    def _register(self) -> None:
        directory = f"{self._directory}/{WRITERS}"
        try:
            number = len(os.listdir(directory))
            while True:
                with contextlib.suppress(FileExistsError):
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    fd = os.open(f"{directory}/{number:x}", flags, 0o600)
                    break
                number += 1
        except FileNotFoundError as error:
            raise closed_error(self._directory) from error
        self._numbers = count(1)
        self._prefix = f"{self._token}-{number:x}-"
        self._fd = fd

    def stored(self, object_id: str) -> None:
        """Remember that an id has, or had, an object."""
        self._mark(object_id, _STORED)

    def expired(self, object_id: str) -> None:
        """Remember that the object of an id expired."""
        self._mark(object_id, _EXPIRED)

    def _mark(self, object_id: str, state: bytes) -> None:
        # Where there is no room even for this byte, only the explanation is lost.
        with contextlib.suppress(OSError):
            token, writer, number = object_id.split("-")
            if self._fd >= 0 and object_id.startswith(self._prefix):
                os.pwrite(self._fd, state, int(number, 16))
            elif token == self._token:
                with self._opened(writer, os.O_WRONLY) as fd:
                    os.pwrite(fd, state, int(number, 16))

    def reason(self, object_id: str) -> MissingReason:
        """Say why an id has no object."""
        token, writer, number = object_id.split("-")
        if token != self._token or not os.path.isdir(f"{self._directory}/{WRITERS}"):
            return MissingReason.STORE_CLOSED
        try:
            with self._opened(writer, os.O_RDONLY) as fd:
                return _REASONS.get(os.pread(fd, 1, int(number, 16)), MissingReason.UNKNOWN)
        except FileNotFoundError:
            return MissingReason.NEVER_STORED

    @contextlib.contextmanager
    def _opened(self, writer: str, flags: int) -> Iterator[int]:
        fd = os.open(f"{self._directory}/{WRITERS}/{writer}", flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def after_fork(self) -> None:
        """Register anew in a child."""
        self._mutex = threading.Lock()
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
