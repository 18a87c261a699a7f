"""How a process finds the endpoint that it uses: its home."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from proxystore_core.utils.environment import home_dir
from proxystore_endpoint.config import find_configs, read_token
from proxystore_endpoint.exceptions import EndpointConnectorError, EndpointError
from proxystore_endpoint.local.client import LocalClient
from proxystore_endpoint.running import read_running

if TYPE_CHECKING:
    from proxystore_core.connectors.protocols import Usage
    from proxystore_core.exceptions import MissingReason
    from proxystore_core.serialize import BytesLike
    from proxystore_endpoint.running import Running
    from proxystore_endpoint.storage.types import Durability, Stored

TOKEN_VARIABLE = "PROXYSTORE_ENDPOINT_TOKEN"  # noqa: S105 - the name of a variable


class Home(Protocol):
    """An endpoint as a connector uses it: a `LocalClient`, or a `RestHome`."""

    address: str
    endpoint_id: str

    def close(self) -> None:
        """Close the connections."""
        ...

    def put(
        self,
        key: str,
        parts: Sequence[BytesLike],
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
    ) -> Stored:
        """Store an object of this endpoint."""
        ...

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
        ...

    def get(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> BytesLike | None:
        """Return the bytes of an object, read-only, or `None` where there are none."""
        ...

    def get_view(
        self, key: str, endpoint_id: str, *, timeout: float | None = None
    ) -> memoryview | None:
        """Return the bytes of an object as writable memory of this process."""
        ...

    def exists(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Tell whether there is an object."""
        ...

    def evict(self, key: str, endpoint_id: str, *, timeout: float | None = None) -> bool:
        """Remove an object; tell whether there was one."""
        ...

    def expire(self, key: str) -> bool:
        """Remove an object of this endpoint, and remember it as expired."""
        ...

    def missing_reason(self, key: str, endpoint_id: str) -> MissingReason:
        """Say why there is no object."""
        ...

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of this endpoint's own objects."""
        ...

    def usage(self) -> Usage:
        """Count this endpoint's own objects."""
        ...


def find_home(
    endpoints: Sequence[str],
    proxystore_dir: str | None,
    *,
    address: tuple[str, int] | None = None,
    token: str | None = None,
    without: str | None = None,
) -> Home:
    """Connect to the first of some endpoints that can be reached, those of this node first.

    Args:
        endpoints: Their UUIDs.
        proxystore_dir: Directory of the configurations; `None` for the default one.
        address: Host and port of a REST API, the last resort.
        token: The token for it.
        without: UUID of an endpoint not to try.

    Raises:
        EndpointConnectorError: None can be reached; it says why, one by one.
    """
    directory = home_dir() if proxystore_dir is None else proxystore_dir
    known = {config.uuid: path for path, config in find_configs(directory).items()}
    tried: dict[str, str] = {}
    elsewhere: list[tuple[str, Running]] = []
    for endpoint in endpoints:
        if endpoint == without:
            tried[endpoint] = "it hangs"
        elif endpoint not in known:
            tried[endpoint] = f"not configured in {directory}"
        elif (running := read_running(known[endpoint])) is None:
            tried[endpoint] = "not started"
        elif not running.is_here():
            tried[endpoint] = f"it runs on {running.hostname}"
            elsewhere.append((endpoint, running))
        else:
            try:
                client = LocalClient(running.control)
                if client.endpoint_id == endpoint:
                    return client
                tried[endpoint] = f"{running.control} is that of {client.endpoint_id}"
                client.close()
            except EndpointError as error:
                tried[endpoint] = str(error)
    for endpoint, running in elsewhere:
        try:
            return _by_rest(running.url, read_token(known[endpoint]), [endpoint])
        except EndpointError as error:
            tried[endpoint] = str(error)
    if address is not None:
        url = f"http://{address[0]}:{address[1]}"
        try:
            return _by_rest(url, token or os.environ.get(TOKEN_VARIABLE, ""), endpoints)
        except EndpointError as error:
            tried[url] = str(error)
    reasons = "; ".join(f"{name}: {why}" for name, why in tried.items())
    raise EndpointConnectorError(
        f"None of the endpoints can be reached from here ({reasons}). Start one on this node: "
        "proxystore-endpoint start NAME",
        tried=tried,
    )


def _by_rest(url: str, token: str, endpoints: Sequence[str]) -> Home:
    from proxystore_endpoint.client import EndpointClient
    from proxystore_endpoint.rest_home import RestHome

    uuid = endpoints[0] if len(endpoints) == 1 else None
    home = RestHome(EndpointClient(url, token, uuid=uuid))
    if home.endpoint_id not in endpoints:
        home.close()
        raise EndpointConnectorError(f"{url} is the API of endpoint {home.endpoint_id}.", tried={})
    return home
