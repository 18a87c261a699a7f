"""One fetch a key at a time, and no lock while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class _Flight(Generic[ValueT]):
    """One fetch under way."""

    __slots__ = ("abandoned", "done", "error", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: ValueT | None = None
        self.error: Exception | None = None
        self.abandoned = False


class SingleFlight(Generic[KeyT, ValueT]):
    """Shares the fetches of threads that want the same keys at the same time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._flights: dict[KeyT, _Flight[ValueT]] = {}

    def fetch(
        self,
        keys: Sequence[KeyT],
        load: Callable[[list[KeyT]], Sequence[ValueT | None]],
        keep: Callable[[KeyT, ValueT], None],
    ) -> dict[KeyT, ValueT | None]:
        """Fetch keys, joining the fetches of them that are under way.

        Args:
            keys: What to fetch.
            load: Fetches keys, called without a lock and at most once.
            keep: Told of each value found, unless the key was forgotten meanwhile.
        """
        lead: dict[KeyT, _Flight[ValueT]] = {}
        follow: dict[KeyT, _Flight[ValueT]] = {}
        with self._lock:
            for key in keys:
                if key in lead or key in follow:
                    continue
                flight = self._flights.get(key)
                if flight is None:
                    lead[key] = self._flights[key] = _Flight()
                else:
                    follow[key] = flight
        found: dict[KeyT, ValueT | None] = {}
        if lead:
            found.update(self._lead(lead, load, keep))
        for key, flight in follow.items():
            flight.done.wait()
            if flight.error is not None:
                raise flight.error
            if flight.abandoned:
                # Its thread was interrupted (KeyboardInterrupt): that is no answer for us.
                found.update(self.fetch([key], load, keep))
            else:
                found[key] = flight.value
        return found

    def _lead(
        self,
        flights: dict[KeyT, _Flight[ValueT]],
        load: Callable[[list[KeyT]], Sequence[ValueT | None]],
        keep: Callable[[KeyT, ValueT], None],
    ) -> dict[KeyT, ValueT | None]:
        found: dict[KeyT, ValueT | None] = {}
        error: Exception | None = None
        landed = False
        try:
            found.update(zip(flights, load(list(flights)), strict=True))
            landed = True
        except Exception as caught:
            error = caught
            raise
        finally:
            with self._lock:
                for key, flight in flights.items():
                    flight.error = error
                    flight.abandoned = not landed
                    value = flight.value = found.get(key)
                    if self._flights.get(key) is flight:
                        del self._flights[key]
                        if value is not None:
                            keep(key, value)
                    flight.done.set()
        return found

    def forget(self, key: KeyT) -> None:
        """Let no later fetch join the one of this key that is under way: its object changed."""
        with self._lock:
            self._flights.pop(key, None)

    def reset(self) -> None:
        """Start anew in a forked child, where the threads that fetched do not exist."""
        self._lock = threading.RLock()
        self._flights.clear()
