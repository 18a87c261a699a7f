"""An endpoint that is reached through its REST API, with the calls of a local one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.client import EndpointClient
from proxystore_endpoint.storage.types import Durability, Stored

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike


class RestHome:
    """An endpoint that this process shares no memory with.

    Args:
        client: A client of its REST API.

    Attributes:
        address: Where the API is.
        endpoint_id: UUID of the endpoint, as text.

    Raises:
        EndpointUnreachableError: It does not answer.
    """

    def __init__(self, client: EndpointClient) -> None:
        self._client = client
        self.address = client.address
        self.endpoint_id = str(client.endpoint()["uuid"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def put(
        self,
        key: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Store an object of this endpoint."""
        return self._client.put(key, list(parts), ttl=ttl, durability=durability)

    def push(
        self,
        key: str,
        endpoint_id: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object at the endpoint that its key belongs to."""
        return self._client.put(
            key, list(parts), endpoint_id, ttl=ttl, durability=durability, timeout=timeout
        )

    def get(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> BytesLike | None:
        """Return the bytes of an object, read-only, or `None` where there are none."""
        found = self._client.get(key, endpoint_id, timeout=timeout)
        return None if found is None else found.toreadonly()

    def get_view(
        self, key: str, endpoint_id: str, *, timeout: float | None = None
    ) -> memoryview | None:
        """Return the bytes of an object in memory of this process."""
        found = self._client.get(key, endpoint_id, timeout=timeout)
        return memoryview(bytearray(found)) if found is not None and found.readonly else found

    def exists(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Tell whether there is an object."""
        return self._client.exists(key, endpoint_id)

    def evict(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Remove an object; tell whether there was one."""
        return self._client.evict(key, endpoint_id)

    def expire(self, key: str) -> bool:
        """Remove an object of this endpoint."""
        return self._client.evict(key)

    def missing_reason(self, key: str, endpoint_id: str) -> MissingReason:
        """Say why there is no object: from here, nobody can tell."""
        return MissingReason.UNKNOWN

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of the endpoint's own objects, the newest ones that it lists."""
        for item in self._client.objects():
            if not item["origin"]:
                yield str(item["key"])

    def usage(self) -> Usage:
        """Count the endpoint's own objects."""
        told = self._client.status()["storage"]
        return Usage(told["objects"], told["nbytes"], told["warm"], told["memory_limit"])
