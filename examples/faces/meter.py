"""Bytes that processes send.

They are counted where they enter a socket: every message of Dask's TCP connections, by the process
that sends it, so that each is counted once.
"""

from __future__ import annotations

from typing import Any

from distributed import Client
from distributed.comm.tcp import TCP

_sent: list[int] = []  # one number, where this process counts


def count() -> None:
    """Count from now on what this process sends."""
    if not _sent:
        _sent.append(0)
        write = TCP.write

        async def counted_write(self: TCP, *args: Any, **kwargs: Any) -> Any:
            nbytes = await write(self, *args, **kwargs)
            _sent[0] += nbytes
            return nbytes

        TCP.write = counted_write


def sent() -> int:
    """Bytes that this process has sent."""
    return _sent[0]


class Traffic:
    """Counts the bytes that this process, with client and scheduler, and the workers send.

    Args:
        client: A client whose workers are processes.
    """

    def __init__(self, client: Client) -> None:
        count()
        client.run(count)
        self._client = client
        self._before = self._now()

    def read(self) -> tuple[int, int]:
        """Bytes that this process, and that the workers, have sent since this was made."""
        hub, workers = self._now()
        return hub - self._before[0], workers - self._before[1]

    def _now(self) -> tuple[int, int]:
        return sent(), sum(self._client.run(sent).values())
