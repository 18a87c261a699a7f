"""When to try again to reach a relay."""

from __future__ import annotations

import random
from collections.abc import Callable

from proxystore_endpoint.exceptions import RelayRefusedError, RelayReplacedError


class Backoff:
    """How long to wait before the next try: at first hardly, never so long that it is missed.

    Args:
        first: Wait after the first failure, in seconds.
        most: Longest wait after an outage.
        refused: Wait after a refusal, which only a person can change; it doubles four times.
        uniform: Source of the jitter, which keeps a site's endpoints from coming all at once.
    """

    def __init__(
        self,
        first: float = 0.25,
        most: float = 6.0,
        refused: float = 15.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = first
        self._most = most
        self._refused = refused
        self._uniform = uniform
        self._failures = 0
        self._refusals = 0

    def reset(self) -> None:
        """Begin anew, after a connection that lasted."""
        self._failures = self._refusals = 0

    def next(self, error: Exception) -> float:
        """Seconds to wait after a failure."""
        if isinstance(error, RelayRefusedError | RelayReplacedError):
            wait = self._refused * float(2 ** min(self._refusals, 4))
            self._refusals += 1
        else:
            wait = min(self._most, self._first * float(2 ** min(self._failures, 16)))
            self._failures += 1
        return wait * self._uniform(0.5, 1.0)
