"""What is known of where peers are."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Mapping
from uuid import UUID

import msgspec

_MAX_ADDRESSES = 16


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        ValueError: It is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ValueError(f"{text!r} is no address; write host:port, or [host]:port for IPv6.")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host or "/" in host:
        raise ValueError(f"{text!r} is no address; write host:port, or [host]:port for IPv6.")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Return what `parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class PeerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one peer.

    Attributes:
        addresses: TCP addresses, `host:port`, from the configuration or a ticket.
        learned: Further ones that the peer told.
        added: Whether it was added here, and not only learned of.
    """

    addresses: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()
    added: bool = False


class AddressBook:
    """Where peers are. Thread-safe; nothing is written to disk here.

    Args:
        addresses: TCP addresses (`host:port`) of peers that are known already.

    Raises:
        ValueError: An address is none.
    """

    def __init__(self, addresses: Mapping[UUID, Iterable[str]] | None = None) -> None:
        self._lock = threading.Lock()
        self._entries: dict[UUID, PeerEntry] = {}
        for peer, known in (addresses or {}).items():
            self.add(peer, known)

    def __contains__(self, peer: UUID) -> bool:
        entry = self._entries.get(peer)
        return entry is not None and entry.added

    def peers(self) -> list[UUID]:
        """Return the ids of all that are known."""
        with self._lock:
            return [peer for peer, entry in self._entries.items() if entry.added]

    def entry(self, peer: UUID) -> PeerEntry:
        """Return what is known of a peer; an empty entry for nothing."""
        return self._entries.get(peer) or PeerEntry()

    def add(self, peer: UUID, addresses: Iterable[str] = ()) -> None:
        """Add a peer, or addresses of one that is known.

        Raises:
            ValueError: An address is none.
        """
        new = tuple(addresses)
        for address in new:
            parse_address(address)
        with self._lock:
            old = self.entry(peer)
            self._entries[peer] = msgspec.structs.replace(
                old,
                addresses=tuple(dict.fromkeys((*new, *old.addresses)))[:_MAX_ADDRESSES],
                added=True,
            )

    def learn(self, peer: UUID, addresses: Iterable[str]) -> None:
        """Remember what a peer told; what is no address is left out."""
        good = []
        for address in addresses:
            try:
                parse_address(address)
            except ValueError:
                continue
            good.append(address)
        with self._lock:
            if good or peer in self._entries:
                entry = msgspec.structs.replace(
                    self.entry(peer), learned=tuple(dict.fromkeys(good))[:_MAX_ADDRESSES]
                )
                self._entries[peer] = entry

    def remove(self, peer: UUID) -> None:
        """Forget a peer."""
        with self._lock:
            self._entries.pop(peer, None)
