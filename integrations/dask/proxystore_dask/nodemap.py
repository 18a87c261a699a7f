"""Which parties are on which node."""

from __future__ import annotations

from typing import Any, NamedTuple


class Gone(NamedTuple):
    """What a party that went leaves behind.

    Attributes:
        home: The memory it shared.
        prefix: How the ids of what it stored begin.
        other: Another worker there, or `None`.
        leader: The worker that speaks for the node from now on, if another one did.
    """

    home: str
    prefix: str
    other: str | None
    leader: str | None


class NodeMap:
    """The parties of a cluster, by the memory that they share.

    The worker that came first leads: it counts the bytes of its node's memory.
    """

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}  # party -> how its ids begin
        self._workers: dict[str, dict[str, None]] = {}  # memory -> workers, in order

    def arrive(self, party: str, prefix: str, *, is_worker: bool) -> bool:
        """Take note of a party; tell whether it leads its node.

        Args:
            party: Address of a worker or id of a client.
            prefix: How its ids begin: the id of its memory and `-`, and more.
            is_worker: Whether it can be asked for what lies in the memory.
        """
        self._prefixes[party] = prefix
        if not is_worker:
            return False
        workers = self._workers.setdefault(prefix.partition("-")[0], {})
        workers[party] = None
        return next(iter(workers)) == party

    def leave(self, party: str) -> Gone | None:
        """Take note that a party went; `None` where it was none."""
        prefix = self._prefixes.pop(party, None)
        if prefix is None:
            return None
        home = prefix.partition("-")[0]
        workers = self._workers.get(home, {})
        led = next(iter(workers), None) == party
        workers.pop(party, None)
        other: Any = next(iter(workers), None)
        if not workers:
            self._workers.pop(home, None)
        return Gone(home, prefix, other, other if led else None)

    def home_of(self, party: str) -> str:
        """Name the memory of a party; empty where it has none."""
        return self._prefixes.get(party, "").partition("-")[0]

    def workers_at(self, home: str) -> list[str]:
        """Return the workers that share a memory."""
        return list(self._workers.get(home, ()))

    def worker_at(self, home: str) -> str | None:
        """Return one of the workers that share a memory."""
        return next(iter(self._workers.get(home, ())), None)
