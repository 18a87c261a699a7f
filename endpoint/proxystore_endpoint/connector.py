"""A connector that carries objects through endpoints: on one node, between nodes and sites.

A process uses an endpoint of its own node, its home. Objects that it puts lie there, in
memory that all processes of the node share; objects of other endpoints are brought into that
memory once, by the home's peers, and mapped like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar
from uuid import UUID

from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    InvalidKeyError,
    MissingReason,
)

try:
    from proxystore_endpoint.homes import Home, find_home
except ModuleNotFoundError as error:
    from proxystore_core.exceptions import MissingExtraError

    if error.name is not None and error.name.partition(".")[0].startswith("proxystore"):
        raise
    raise MissingExtraError("endpoint", needed_for="EndpointConnector") from error

from proxystore_endpoint.exceptions import EndpointConnectorError, EndpointUnreachableError
from proxystore_endpoint.storage.names import check_key, new_key

if TYPE_CHECKING:
    from proxystore_core.connectors.protocols import Usage
    from proxystore_core.serialize import BytesLike
    from proxystore_endpoint.storage.types import Durability, Stored

__all__ = ["EndpointConnector", "EndpointConnectorError", "EndpointKey"]

_T = TypeVar("_T")
_FETCHES = 8  # side by side
_OPTIONS = ("proxystore_dir", "host", "port", "durability", "ttl", "timeout")


class EndpointKey(NamedTuple):
    """Key of an object at an endpoint.

    Attributes:
        object_id: Id of the object.
        endpoint_id: UUID of the endpoint that has it.
    """

    object_id: str
    endpoint_id: str


class EndpointConnector:
    """A connector to the first of some endpoints that runs on this node.

    It is looked for in the configurations of this user's endpoints. When it is gone, the
    next one is used; what only the old one had is out of reach until it is back.

    Args:
        endpoints: UUIDs of the endpoints that may be used, of all nodes; each process
            uses the one of its own node.
        proxystore_dir: Directory of the endpoints' configurations; by default
            `$PROXYSTORE_HOME`, else `$XDG_DATA_HOME/proxystore`, else
            `~/.local/share/proxystore`. Where it is named, it is the same on all nodes.
        host: Host of an endpoint's REST API, for a process that has no endpoint on its node.
        port: Port of that API.
        token: The token for it; by default `$PROXYSTORE_ENDPOINT_TOKEN`. It stays in this
            process: `config()` does not hold it.
        durability: The least that puts want: `'memory'`, `'spill'` or `'durable'`; by
            default what the endpoint is configured for.
        ttl: Seconds until an object expires; by default never.
        timeout: Seconds to wait for objects of other endpoints.

    Attributes:
        endpoints: The UUIDs.
        endpoint_uuid: That of the endpoint in use.

    Raises:
        ConnectorConfigError: There is no endpoint in the list, or something is no UUID.
        EndpointConnectorError: None of the endpoints can be reached.
    """

    trusted: ClassVar[bool] = True  # memory of this user, or a channel that proved who sent it

    def __init__(
        self,
        endpoints: Sequence[str | UUID],
        proxystore_dir: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        durability: Durability | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> None:
        if isinstance(endpoints, (str, UUID)) or not endpoints:
            raise ConnectorConfigError(
                "endpoints is a list of the UUIDs of one endpoint or more; "
                "`proxystore-endpoint list` shows them."
            )
        if (host is None) != (port is None):
            raise ConnectorConfigError("host and port are given together, or not at all.")
        self.endpoints = [_uuid(endpoint) for endpoint in endpoints]
        self.proxystore_dir = proxystore_dir
        self.host, self.port = host, port
        self.durability, self.ttl, self.timeout = durability, ttl, timeout
        self._token = token
        self._mutex = threading.Lock()
        self._closed = False
        self._home: Home = self._find()

    def _find(self, *, without: str | None = None) -> Home:
        address = None if self.host is None else (self.host, self.port or 0)
        return find_home(
            [str(endpoint) for endpoint in self.endpoints],
            self.proxystore_dir,
            address=address,
            token=self._token,
            without=without,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        home = self._home
        return f"{type(self).__name__}({home.endpoint_id} at {home.address})"

    @property
    def endpoint_uuid(self) -> UUID:
        """UUID of the endpoint in use."""
        return UUID(self._home.endpoint_id)

    def close(self) -> None:
        """Close the connections; the objects stay at their endpoints."""
        with self._mutex:
            self._closed = True
            self._home.close()

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to use the same endpoints."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {
            "endpoints": [str(endpoint) for endpoint in self.endpoints],
            **{name: value for name, value in options.items() if value is not None},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a connector to the same endpoints; raises as the constructor."""
        return cls(**config)

    # Putting.

    def new_key(self, obj: BytesLike | None = None) -> EndpointKey:
        """Return a key of the endpoint in use, that `set` takes later, anywhere.

        Args:
            obj: Ignored.
        """
        return EndpointKey(new_key(), self._home.endpoint_id)

    def put(self, obj: BytesLike) -> EndpointKey:
        """Store bytes at the endpoint in use and return their key.

        Raises:
            StorageFullError: There is no room, neither in memory nor on disk.
            ObjectTooLargeError: They are over the endpoint's limit for one object.
            EndpointConnectorError: None of the endpoints can be reached.
        """
        return self.put_parts((obj,))

    def put_parts(self, parts: Sequence[BytesLike]) -> EndpointKey:
        """Store the concatenation of the parts, without joining them; raises as `put`."""

        def put(home: Home) -> EndpointKey:
            object_id = new_key()
            home.put(object_id, parts, ttl=self.ttl, durability=self.durability)
            return EndpointKey(object_id, home.endpoint_id)

        return self._use(put)

    def put_batch(self, objs: Sequence[BytesLike]) -> list[EndpointKey]:
        """Store several objects; all are stored, or none. Raises as `put`."""
        keys: list[EndpointKey] = []
        try:
            for obj in objs:
                keys.append(self.put(obj))  # noqa: PERF401 - those stored before an error count
        except BaseException:
            for key in keys:
                self.evict(key)
            raise
        return keys

    def set(self, key: EndpointKey, obj: BytesLike) -> None:
        """Store bytes under a key of `new_key`, at its endpoint; raises as `put`."""
        self.set_parts(key, (obj,))

    def set_parts(self, key: EndpointKey, parts: Sequence[BytesLike]) -> None:
        """Store the concatenation of the parts under a key of `new_key`; raises as `put`."""
        object_id, endpoint_id = _checked(key)

        def put(home: Home) -> Stored:
            return home.push(
                object_id,
                endpoint_id,
                parts,
                ttl=self.ttl,
                durability=self.durability,
                timeout=self.timeout,
            )

        self._use(put)

    # Getting.

    def get(self, key: EndpointKey) -> BytesLike | None:
        """Return the bytes of a key, or `None` where there are none.

        Large objects are mapped: the view holds the memory, also after the object was
        evicted.

        Raises:
            CorruptObjectError: The stored bytes are damaged.
            PeerError: The endpoint that has them cannot be reached, refuses or fails.
            EndpointConnectorError: None of the endpoints can be reached.
        """
        object_id, endpoint_id = _checked(key)
        return self._use(lambda home: home.get(object_id, endpoint_id, timeout=self.timeout))

    def get_view(self, key: EndpointKey) -> memoryview | None:
        """Return the bytes of a key as writable, private memory; raises as `get`."""
        object_id, endpoint_id = _checked(key)
        return self._use(lambda home: home.get_view(object_id, endpoint_id, timeout=self.timeout))

    def get_batch(self, keys: Sequence[EndpointKey]) -> list[BytesLike | None]:
        """Return the bytes of several keys, in their order; raises as `get`.

        Those of other endpoints are fetched side by side.
        """
        home = self._home.endpoint_id
        far = sum(_checked(key)[1] != home for key in keys)
        if far < 2:
            return [self.get(key) for key in keys]
        with ThreadPoolExecutor(min(far, _FETCHES)) as pool:
            return list(pool.map(self.get, keys))

    def exists(self, key: EndpointKey) -> bool:
        """Tell whether the key has an object; raises as `get`."""
        object_id, endpoint_id = _checked(key)
        return self._use(lambda home: home.exists(object_id, endpoint_id, timeout=self.timeout))

    def missing_reason(self, key: EndpointKey) -> MissingReason:
        """Say why a key has no object."""
        object_id, endpoint_id = _checked(key)
        return self._use(lambda home: home.missing_reason(object_id, endpoint_id))

    # Removing, listing, counting.

    def evict(self, key: EndpointKey) -> None:
        """Remove the object of a key; removing nothing is no error. Raises as `get`."""
        object_id, endpoint_id = _checked(key)
        self._use(lambda home: home.evict(object_id, endpoint_id, timeout=self.timeout))

    def expire(self, key: EndpointKey) -> None:
        """Remove the object of a key; its own endpoint remembers it as expired."""
        object_id, endpoint_id = _checked(key)

        def expire(home: Home) -> bool:
            if home.endpoint_id == endpoint_id:
                return home.expire(object_id)
            return home.evict(object_id, endpoint_id, timeout=self.timeout)

        self._use(expire)

    def keys(self) -> Iterator[EndpointKey]:
        """Iterate over the keys of all objects of the endpoint in use."""
        home_id = self._home.endpoint_id
        for object_id in self._use(lambda home: list(home.keys())):
            yield EndpointKey(object_id, home_id)

    def usage(self) -> Usage:
        """Count the objects of the endpoint in use."""
        return self._use(lambda home: home.usage())

    def _use(self, act: Callable[[Home], _T]) -> _T:
        """Do something with the endpoint in use, or with the next, where that is gone."""
        if self._closed:
            raise ConnectorClosedError("This connector was closed.")
        home = self._home
        try:
            return act(home)
        except EndpointUnreachableError as gone:
            hangs = isinstance(gone.__cause__, TimeoutError)
            with self._mutex:
                if self._home is home and not self._closed:
                    try:
                        self._home = self._find(without=home.endpoint_id if hangs else None)
                    except EndpointConnectorError as none:
                        raise gone from none
                    home.close()
                home = self._home
            return act(home)


def _uuid(endpoint: str | UUID) -> UUID:
    try:
        return endpoint if isinstance(endpoint, UUID) else UUID(endpoint)
    except (ValueError, AttributeError, TypeError) as error:
        raise ConnectorConfigError(f"{endpoint!r} is no UUID of an endpoint.") from error


def _checked(key: EndpointKey) -> tuple[str, str]:
    if not isinstance(key, EndpointKey):
        raise InvalidKeyError(
            f"{key!r} is no key of an EndpointConnector; use one that put or new_key returned."
        )
    try:
        return check_key(key.object_id), str(UUID(key.endpoint_id))
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidKeyError(f"{str(key)[:200]} is no key of an EndpointConnector.") from error
