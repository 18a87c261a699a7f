"""A peer endpoint that every node can run: local memory, peers at other sites, a relay.

    from proxystore_core.store import Store
    from proxystore_endpoint import EndpointConnector

    store = Store("shared", EndpointConnector([UUID_OF_ONE_SITE, UUID_OF_THE_OTHER]))

The commands `proxystore-endpoint` and `proxystore-relay` make and run endpoints and relays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_core.utils.lazy import lazy_names

if TYPE_CHECKING:
    from proxystore_endpoint.client import EndpointClient as EndpointClient
    from proxystore_endpoint.connector import EndpointConnector as EndpointConnector
    from proxystore_endpoint.connector import EndpointKey as EndpointKey
    from proxystore_endpoint.exceptions import EndpointError as EndpointError

_WHERE = {
    "EndpointClient": "client",
    "EndpointConnector": "connector",
    "EndpointError": "exceptions",
    "EndpointKey": "connector",
}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)
