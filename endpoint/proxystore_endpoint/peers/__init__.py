"""Other endpoints: how they are reached, asked and answered."""

from proxystore_endpoint.peers.addresses import AddressBook, format_address, parse_address
from proxystore_endpoint.peers.peers import Peers
from proxystore_endpoint.peers.types import (
    Fetched,
    LaneStatus,
    PeerSettings,
    PeerStatus,
    RemoteStat,
)

__all__ = [
    "AddressBook",
    "Fetched",
    "LaneStatus",
    "PeerSettings",
    "PeerStatus",
    "Peers",
    "RemoteStat",
    "format_address",
    "parse_address",
]
