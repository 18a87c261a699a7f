"""What local clients are served from."""

from __future__ import annotations

from typing import Any, Protocol

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.storage.storage import Storage
from proxystore_endpoint.storage.types import Durability, Stored, StoredObject


class Backend(Protocol):
    """An endpoint, as its control socket sees it: its storage, and its peers behind one name.

    `endpoint_id` is the UUID of the endpoint that an object belongs to, as text:
    this one's, or a peer's. The methods raise what peers raise: unreachable,
    refused, too late.
    """

    @property
    def endpoint_id(self) -> str:
        """UUID of this endpoint."""
        ...

    @property
    def storage(self) -> Storage:
        """Where its objects are."""
        ...

    async def get(
        self, key: str, endpoint_id: str, *, timeout: float | None = None
    ) -> StoredObject | None:
        """Return an object, brought here from its endpoint first if need be; `None` for none."""
        ...

    async def put(
        self,
        key: str,
        view: memoryview,
        endpoint_id: str,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object at a peer."""
        ...

    def missing_reason(self, key: str, endpoint_id: str) -> MissingReason:
        """Say why `get` found no object, as far as it is known."""
        ...

    async def exists(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Tell whether there is an object."""
        ...

    async def evict(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Remove an object, and the copy of it here; tell whether there was one."""
        ...

    def status(self) -> dict[str, Any]:
        """Return what `proxystore-endpoint status --json` prints."""
        ...
