"""`share`, `accept`, `grants`, `grant`, `revoke`, `membership`: who may do what."""

from __future__ import annotations

import argparse
import base64
import binascii
import time
from collections.abc import Iterable
from uuid import UUID

from proxystore_endpoint.cli._find import Found, connect, find, running_of
from proxystore_endpoint.cli._output import complain, say, say_json, say_table, seconds
from proxystore_endpoint.config import (
    ENDPOINT_GRANTS_FILE,
    ENDPOINT_IDENTITY_FILE,
    split_address,
)
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    MembershipError,
    TicketError,
)
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.membership import Membership, Right
from proxystore_endpoint.tickets import Ticket
from proxystore_endpoint.transports.tcp import own_addresses

_FIRST_S = 15.0
_PAUSE_S = 0.3
_SETTLED_S = 1.1  # daemons look at their file every second


def _grants_of(found: Found) -> Grants:
    return Grants(found.directory / ENDPOINT_GRANTS_FILE)


def _identity_of(found: Found) -> Identity:
    return Identity.load(found.directory / ENDPOINT_IDENTITY_FILE)


def _rights(text: str) -> list[Right]:
    return [Right(word) for word in text.split(",") if word]


def _names(rights: Iterable[Right]) -> str:
    return ", ".join(sorted(right.value for right in rights)) or "nothing"


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise EndpointConfigError(f"{text!r} is no UUID of an endpoint.") from None


def _checked(addresses: list[str] | None) -> list[str]:
    for address in addresses or ():
        try:
            split_address(address)
        except ValueError as error:
            raise EndpointConfigError(str(error)) from None
    return list(addresses or ())


def _settle(found: Found) -> None:
    """Wait until a daemon follows the grants that were changed just now."""
    if running_of(found) is not None:
        time.sleep(_SETTLED_S)


def share(options: argparse.Namespace) -> int:
    """Print a ticket."""
    found = find(options.name)
    config = found.config
    if not config.peering.enabled:
        raise EndpointConfigError(
            f"Endpoint {config.name} has no peers: its configuration says peering.enabled = false."
        )
    running = running_of(found)
    addresses = _checked(options.address) or list(config.peering.advertise)
    if not addresses and running is not None:
        with connect(found) as client:
            addresses = client.status()["addresses"]
    elif not addresses and config.peering.port:
        addresses = own_addresses(config.peering.host, config.peering.port)
    relay = config.relay.address or ""
    if not addresses and not relay:
        raise EndpointConfigError(
            "Nobody could find this endpoint: it does not run, and has no relay and no fixed "
            "port. Start it first, or say where it is with --address."
        )
    ticket = Ticket.issue(
        _identity_of(found),
        addresses=addresses,
        relay=relay,
        rights=_rights(options.rights),
        lifetime=options.lifetime,
    )
    _grants_of(found).share(ticket, name=options.label)
    say(ticket.encode())
    complain(
        f"Whoever gets this ticket first may {_names(ticket.rights)} here, within "
        f"{seconds(options.lifetime)}. Pass it on in private. At the other side:\n"
        "  $ proxystore-endpoint accept NAME TICKET"
    )
    if running is None:
        complain(f"Start the endpoint: proxystore-endpoint start {config.name}")
    return 0


def accept(options: argparse.Namespace) -> int:
    """Follow an invitation; connect at once where the endpoint runs."""
    ticket = Ticket.decode(options.ticket)
    found = find(options.name)
    if ticket.uuid == UUID(found.config.uuid):
        raise TicketError("This is a ticket of this very endpoint. Give it to somebody else.")
    if not found.config.peering.enabled:
        raise EndpointConfigError(
            f"Endpoint {found.config.name} has no peers: its configuration says "
            "peering.enabled = false."
        )
    in_return = _rights(options.rights)
    grants = _grants_of(found)
    grants.accept(ticket, in_return, name=options.label)
    say(f"Peer {ticket.uuid} lets this endpoint {_names(ticket.rights)}.")
    say(f"It may {_names(in_return)} here.")
    relay = found.config.relay.address
    if ticket.relay and relay and ticket.relay != relay:
        complain(
            f"It is registered at the relay {ticket.relay}, and this endpoint at {relay}: they "
            "meet only where one reaches the other directly. Use one relay for both."
        )
    if running_of(found) is None:
        say(f"Start the endpoint to connect: proxystore-endpoint start {found.config.name}")
        return 0
    return _wait_for(found, ticket.uuid)


def _wait_for(found: Found, peer: UUID) -> int:
    """Wait until the daemon is connected to a peer that it was just told of."""
    deadline = time.monotonic() + _FIRST_S
    tried: dict[str, str] = {}
    with connect(found) as client:
        while time.monotonic() < deadline:
            for known in client.status()["peers"]:
                if known["uuid"] == str(peer):
                    tried = known["paths"]
                    if known["path"]:
                        say(f"Connected, by {known['path']}.")
                        return 0
            time.sleep(_PAUSE_S)
    complain(f"Not connected yet; the endpoint goes on trying. {_tried(tried)}")
    return 0


def _tried(paths: dict[str, str]) -> str:
    if not paths:
        return "proxystore-endpoint doctor says what works."
    return "Tried: " + "; ".join(f"{kind}: {how}" for kind, how in paths.items())


def grants(options: argparse.Namespace) -> int:
    """List who may do what."""
    found = find(options.name)
    kept = _grants_of(found)
    rows = [
        {"uuid": str(peer), "kind": "peer", "rights": _names(g.rights), "label": g.name}
        for peer, g in kept.peers().items()
    ]
    rows += [
        {"uuid": str(group), "kind": "group", "rights": _names(g.rights), "label": g.name}
        for group, g in kept.groups().items()
    ]
    if options.json:
        say_json(rows)
    elif rows:
        say_table(
            ("UUID", "KIND", "MAY", "LABEL"),
            [(row["uuid"], row["kind"], row["rights"], row["label"]) for row in rows],
        )
    else:
        say(f"Nobody but local users may use {found.config.name}.")
    return 0


def grant(options: argparse.Namespace) -> int:
    """Let an endpoint or a group in."""
    found = find(options.name)
    uuid, given = _uuid(options.uuid), _rights(options.rights)
    kept = _grants_of(found)
    if options.group:
        kept.grant_group(uuid, given, name=options.label)
    else:
        addresses = _checked(options.address) or None
        kept.grant(uuid, given, name=options.label or None, addresses=addresses)
    _settle(found)
    say(f"{'Members of group' if options.group else 'Peer'} {uuid} may {_names(given)} here.")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Let an endpoint or a group in no more."""
    found = find(options.name)
    uuid = _uuid(options.uuid)
    kept = _grants_of(found)
    known = kept.revoke_group(uuid) if options.group else kept.revoke(uuid)
    if not known:
        complain(f"{uuid} had no grant.")
        return 1
    _settle(found)
    say(f"{'Members of group' if options.group else 'Peer'} {uuid} may do nothing here any more.")
    return 0


def issue(options: argparse.Namespace) -> int:
    """Sign a membership of the group that an endpoint owns."""
    found = find(options.name)
    member = _uuid(options.uuid)
    signed = Membership.issue(
        _identity_of(found), member, _rights(options.rights), lifetime=options.lifetime
    )
    say(base64.urlsafe_b64encode(signed.raw).decode())
    complain(
        f"{member} belongs to group {signed.group} for {seconds(options.lifetime)}. It keeps this "
        "with: proxystore-endpoint membership add NAME MEMBERSHIP"
    )
    return 0


def add_membership(options: argparse.Namespace) -> int:
    """Keep a membership that a group's owner signed."""
    found = find(options.name)
    try:
        raw = base64.urlsafe_b64decode(options.membership.strip())
    except (binascii.Error, ValueError):
        raise MembershipError("This is no membership: copy all of it.") from None
    kept = _grants_of(found).add_membership(raw, UUID(found.config.uuid))
    _settle(found)
    say(f"{found.config.name} belongs to group {kept.group}, and may {_names(kept.rights)}.")
    return 0
