"""Client of an endpoint's REST API, for processes that cannot share its memory.

Objects are sent part by part and received into memory of their size: nothing is joined and
nothing is copied. Proxies of the environment are ignored.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlencode

from proxystore_endpoint.exceptions import EndpointError
from proxystore_endpoint.rest_answers import drop_missing, error_of, read_all, read_json
from proxystore_endpoint.rest_connections import Connections
from proxystore_endpoint.storage.names import check_key
from proxystore_endpoint.storage.types import Durability, Stored

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

ANSWER_TIMEOUT_S = 90.0
"""Silence after which an endpoint counts as gone, beyond what it may wait for a peer."""


class ObjectInfo(NamedTuple):
    """What an endpoint says of an object.

    Attributes:
        nbytes: Its length in bytes.
        etag: SHA-256 of its bytes, in hex.
        durability: Where it lies.
        expires_in: Seconds until it expires, or `None` for never.
    """

    nbytes: int
    etag: str
    durability: str
    expires_in: float | None


class EndpointClient:
    """A client of one endpoint. Thread-safe: every call has a connection to itself.

    Args:
        address: `http://host:port`, or `https://host:port`.
        token: The endpoint's token.
        uuid: The endpoint's UUID; needed for `https`, where its key is compared with it.
        timeout: Seconds of silence after which the endpoint counts as gone.

    Raises:
        EndpointConfigError: The address is none, or there is no UUID to check.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        uuid: uuids.UUID | str | None = None,
        timeout: float = ANSWER_TIMEOUT_S,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        identity = uuids.UUID(str(uuid)) if uuid is not None else None
        self._connections = Connections(address, headers, identity, timeout)
        self.address = self._connections.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._connections.close()

    def get(
        self,
        key: str,
        endpoint: uuids.UUID | str | None = None,
        *,
        timeout: float | None = None,
    ) -> memoryview | None:
        """Return the bytes of an object, or `None` where there is none.

        Args:
            key: Its key.
            endpoint: Endpoint that it belongs to; by default the one asked.
            timeout: Seconds that the endpoint may wait for a peer.

        Raises:
            EndpointUnreachableError: The endpoint does not answer.
            EndpointError: It refuses, or a peer does, or fails.
        """
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint, timeout=timeout)
        with self._connections.exchange("GET", path, timeout=timeout) as answer:
            if answer.status == 404:
                drop_missing(answer, self.address)
                return None
            if answer.status != 200:
                raise error_of(answer, self.address)
            return read_all(answer)

    def get_part(
        self, key: str, start: int, stop: int, endpoint: uuids.UUID | str | None = None
    ) -> memoryview | None:
        """Return the bytes of an object from `start` to `stop`; raises as `get`."""
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint)
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with self._connections.exchange("GET", path, headers) as answer:
            if answer.status == 404:
                drop_missing(answer, self.address)
                return None
            if answer.status != 206:
                raise error_of(answer, self.address)
            return read_all(answer)

    def put(
        self,
        key: str,
        data: BytesLike | Sequence[BytesLike],
        endpoint: uuids.UUID | str | None = None,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object; raises as `get`, and what is below.

        Args:
            key: Its key.
            data: Its bytes, or parts of them in a list or tuple.
            endpoint: Endpoint that it is for; by default the one asked.
            ttl: Seconds until it expires; `None` for never.
            durability: Where it has to lie.
            timeout: Seconds that the endpoint may wait for a peer.

        Raises:
            ObjectTooLargeError: It is over the endpoint's limit.
            StorageFullError: There is no room.
        """
        parts = data if isinstance(data, (list, tuple)) else (data,)
        views = [memoryview(part).cast("B") for part in parts if len(memoryview(part))]
        path = _path(
            f"/objects/{check_key(key)}",
            endpoint=endpoint,
            ttl=ttl,
            durability=durability,
            timeout=timeout,
        )
        with self._connections.exchange("PUT", path, body=views, timeout=timeout) as answer:
            if answer.status != 201:
                raise error_of(answer, self.address, nbytes=sum(map(len, views)))
            told = read_json(answer, self.address)
            return Stored(told["nbytes"], told["durability"], told["etag"])

    def exists(self, key: str, endpoint: uuids.UUID | str | None = None) -> bool:
        """Tell whether there is an object; raises as `get`."""
        return bool(
            self._json("GET", _path("/exists", key=check_key(key), endpoint=endpoint))["exists"]
        )

    def evict(self, key: str, endpoint: uuids.UUID | str | None = None) -> bool:
        """Remove an object; tell whether there was one. Raises as `get`."""
        return bool(
            self._json("POST", _path("/evict", key=check_key(key), endpoint=endpoint))["evicted"]
        )

    def stat(self, key: str, endpoint: uuids.UUID | str | None = None) -> ObjectInfo | None:
        """Return what is known of an object, or `None` where there is none; raises as `get`."""
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint)
        with self._connections.exchange("HEAD", path) as answer:
            answer.read()
            if answer.status == 404 and answer.getheader("X-Error") == "missing":
                return None
            if answer.status != 200:
                raise error_of(answer, self.address)
            expires = answer.getheader("X-Expires-In")
            return ObjectInfo(
                int(answer.getheader("Content-Length", "0")),
                answer.getheader("ETag", "").strip('"'),
                answer.getheader("X-Durability", ""),
                None if expires is None else float(expires),
            )

    def objects(self, limit: int = 10_000) -> list[dict[str, Any]]:
        """Return what is known of each object, newest first; raises as `get`.

        Args:
            limit: How many at most.
        """
        found: list[dict[str, Any]] = self._json("GET", _path("/objects", limit=limit))["objects"]
        return found

    def endpoint(self) -> dict[str, Any]:
        """Return UUID, name and version of the endpoint; raises as `get`."""
        return self._json("GET", "/endpoint")

    def status(self) -> dict[str, Any]:
        """Return all there is to know about the endpoint; raises as `get`."""
        return self._json("GET", "/status")

    def health(self) -> bool:
        """Tell whether the endpoint answers at all."""
        try:
            return bool(self._json("GET", "/health")["status"] == "ok")
        except EndpointError:
            return False

    def _json(self, method: str, path: str) -> dict[str, Any]:
        with self._connections.exchange(method, path) as answer:
            if answer.status != 200:
                raise error_of(answer, self.address)
            return read_json(answer, self.address)


def _path(route: str, **arguments: object) -> str:
    given = {name: str(value) for name, value in arguments.items() if value is not None}
    return f"{route}?{urlencode(given)}" if given else route


def evict(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> None:
    """Remove an object, as ProxyStore's function of this name.

    Args:
        address: Address of the endpoint.
        key: Key of the object.
        endpoint: Endpoint that it belongs to; by default the one asked.
        token: The endpoint's token.
    """
    with EndpointClient(address, token) as client:
        client.evict(key, endpoint)


def exists(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> bool:
    """Tell whether there is an object; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        return client.exists(key, endpoint)


def get(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> bytes | None:
    """Return the bytes of an object, or `None`; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        found = client.get(key, endpoint)
        return None if found is None else bytes(found)


def put(
    address: str,
    key: str,
    data: BytesLike,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> None:
    """Store an object; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        client.put(key, data, endpoint)
