"""Where an endpoint keeps objects: in memory that it shares with local clients, and on disk.

`Storage` holds the endpoint's own objects, and copies of other endpoints'. An
object goes to memory; where that is full, to disk (`spill`); and to disk for good
if it is to be `durable`. Everything here blocks, is thread-safe and knows no network.
"""

from __future__ import annotations

from proxystore_endpoint.storage.names import check_key, memory_name
from proxystore_endpoint.storage.storage import Storage
from proxystore_endpoint.storage.types import (
    Durability,
    ObjectStat,
    Provider,
    Reservation,
    StorageUsage,
    Stored,
    StoredObject,
)

__all__ = [
    "Durability",
    "ObjectStat",
    "Provider",
    "Reservation",
    "Storage",
    "StorageUsage",
    "Stored",
    "StoredObject",
    "check_key",
    "memory_name",
]
