"""How long the operations of a store take, and on what.

All times are milliseconds. Metrics belong to one store in one process.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from proxystore_core.proxy import Proxy, is_proxy
from proxystore_core.store.types import ConnectorKeyT

KeyT: TypeAlias = ConnectorKeyT | Sequence[ConnectorKeyT]
"""A key, or the keys of a batch."""
ProxyT: TypeAlias = Proxy[Any] | Sequence[Proxy[Any]]
"""A proxy, or the proxies of a batch; they stand for their keys."""


@dataclasses.dataclass
class TimeStats:
    """Times of an event that happens again and again.

    Attributes:
        count: How often it happened.
        avg_time_ms: Mean time, in milliseconds.
        min_time_ms: Shortest time, in milliseconds.
        max_time_ms: Longest time, in milliseconds.
        last_time_ms: Time of the last one, in milliseconds.
        last_timestamp: When the last one was recorded, in seconds since the epoch.
    """

    count: int = 0
    avg_time_ms: float = 0
    min_time_ms: float = math.inf
    max_time_ms: float = 0
    last_time_ms: float = 0
    last_timestamp: float = 0

    def __add__(self, other: TimeStats) -> TimeStats:
        last = self if self.last_timestamp > other.last_timestamp else other
        count = self.count + other.count
        total = self.avg_time_ms * self.count + other.avg_time_ms * other.count
        return TimeStats(
            count=count,
            avg_time_ms=total / count if count else 0,
            min_time_ms=min(self.min_time_ms, other.min_time_ms),
            max_time_ms=max(self.max_time_ms, other.max_time_ms),
            last_time_ms=last.last_time_ms,
            last_timestamp=last.last_timestamp,
        )

    def add_time(self, time_ms: float) -> None:
        """Count one more event.

        Args:
            time_ms: How long it took, in milliseconds.
        """
        self.count += 1
        self.avg_time_ms += (time_ms - self.avg_time_ms) / self.count
        self.min_time_ms = min(self.min_time_ms, time_ms)
        self.max_time_ms = max(self.max_time_ms, time_ms)
        self.last_time_ms = time_ms
        self.last_timestamp = time.time()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Metrics:
    """What is known of one key.

    Attributes:
        attributes: Facts, such as the object's size in bytes.
        counters: How often something happened.
        times: How long something took.
    """

    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    times: dict[str, TimeStats] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as nested dictionaries."""
        return dataclasses.asdict(self)


class StoreMetrics:
    """Records what a store does; safe to use from several threads.

    Args:
        max_keys: Most keys to remember one by one. Beyond that, the oldest is
            forgotten, and remains in `aggregate_times`.
    """

    def __init__(self, max_keys: int = 100_000) -> None:
        self._max_keys = max_keys
        self._metrics: dict[Any, Metrics] = {}
        self._totals: dict[str, TimeStats] = {}
        self._lock = threading.RLock()

    def add_attribute(self, name: str, key: KeyT, value: Any) -> None:
        """Record a fact about a key.

        Args:
            name: Name of the fact.
            key: The key.
            value: The fact.
        """
        with self._lock:
            self._of(key).attributes[name] = value

    def add_counter(self, name: str, key: KeyT, value: int) -> None:
        """Add to a counter.

        Args:
            name: Name of the counter.
            key: The key.
            value: How much to add.
        """
        with self._lock:
            counters = self._of(key).counters
            counters[name] = counters.get(name, 0) + value

    def add_time(self, name: str, key: KeyT, time_ms: float) -> None:
        """Record how long an operation took.

        Args:
            name: Name of the operation.
            key: The key.
            time_ms: Its time in milliseconds.
        """
        with self._lock:
            self._of(key).times.setdefault(name, TimeStats()).add_time(time_ms)
            self._totals.setdefault(name, TimeStats()).add_time(time_ms)

    def aggregate_times(self) -> dict[str, TimeStats]:
        """Return the times of each operation over all keys."""
        with self._lock:
            return copy.deepcopy(self._totals)

    def get_metrics(self, key_or_proxy: KeyT | ProxyT) -> Metrics | None:
        """Return a copy of what is known of a key, or `None`.

        Args:
            key_or_proxy: A key or a proxy, or those of one batch.
        """
        with self._lock:
            return copy.deepcopy(self._metrics.get(_index(key_or_proxy)))

    def _of(self, key: KeyT) -> Metrics:
        index = _index(key)
        metrics = self._metrics.get(index)
        if metrics is None:
            metrics = self._metrics[index] = Metrics()
            if len(self._metrics) > self._max_keys:
                del self._metrics[next(iter(self._metrics))]
        return metrics


def _index(key_or_proxy: Any) -> Any:
    if is_proxy(key_or_proxy):
        from proxystore_core.store.utils import get_key

        return get_key(key_or_proxy)
    if isinstance(key_or_proxy, list) or type(key_or_proxy) is tuple:
        return tuple(map(_index, key_or_proxy))
    return key_or_proxy
