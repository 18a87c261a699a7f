"""Bytes through Parsl.

They are counted where they enter and leave the client: the length of every serialized task given to
`submit_payload` and of every message taken from the queue of results. Each of them passes the
interchange and the manager as well, but is counted once.
"""

from __future__ import annotations

from typing import Any


class Traffic:
    """Counts the bytes between a client and the interchange of its HighThroughputExecutor.

    Args:
        executor: A HighThroughputExecutor, or one derived from it, that has started.
    """

    def __init__(self, executor: Any) -> None:
        self.sent = 0
        self.received = 0
        submit, get = executor.submit_payload, executor.incoming_q.get

        def counted_submit(context: dict[str, Any], buffer: bytes) -> Any:
            self.sent += len(buffer)
            return submit(context, buffer)

        def counted_get(timeout_ms: int | None = None) -> bytes | None:
            message: bytes | None = get(timeout_ms=timeout_ms)
            self.received += len(message or b"")
            return message

        executor.submit_payload = counted_submit
        executor.incoming_q.get = counted_get
