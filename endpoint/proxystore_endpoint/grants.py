"""Who may do what here: nobody anything, but for what this file grants.

A grant is to an endpoint by its id, or to a group by the id of its owner. Changes by another
process (`proxystore-endpoint share`, `accept`, `grant`) hold within a second, also for peers
that are connected.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import AccessDeniedError, MembershipError
from proxystore_endpoint.grant_file import GrantFile, GroupGrant, Invitation, PeerGrant
from proxystore_endpoint.membership import Membership, Right
from proxystore_endpoint.tickets import Ticket, secret_hash

logger = logging.getLogger(__name__)


class Admission:
    """What a connected peer may do; it follows changes of the grants."""

    def __init__(self, grants: Grants, peer: UUID, memberships: tuple[Membership, ...]) -> None:
        self.peer: Final = peer
        self._grants = grants
        self._memberships = memberships

    def rights(self, now: float | None = None) -> frozenset[Right]:
        """What it may do at this moment."""
        return self._grants.rights_of(self.peer, self._memberships, now=now)

    def require(self, right: Right, now: float | None = None) -> None:
        """Make sure that it may do something.

        Raises:
            AccessDeniedError: It may not.
        """
        if right not in self.rights(now):
            raise AccessDeniedError(
                f"Endpoint {self.peer} has no right to {right.value} here: its owner can ask for "
                "a grant.",
                principal=self.peer,
                right=right.value,
            )


class Grants:
    """The grants of one endpoint. Thread-safe.

    Args:
        path: File that keeps them (made with mode 0600 when first needed), or None to keep
            them in memory only.

    Raises:
        GrantFileError: The file is damaged, or others can write it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._file = GrantFile(None if path is None else Path(path))

    # Looking.

    def rights_of(
        self, peer: UUID, memberships: Iterable[Membership] = (), *, now: float | None = None
    ) -> frozenset[Right]:
        """What a peer may do, by its own grant and by those of its groups."""
        table = self._file.table()
        now = time.time() if now is None else now
        rights: frozenset[Right] = frozenset()
        own = table.peers.get(peer)
        if own is not None and (own.expires is None or now < own.expires):
            rights = own.rights
        for membership in memberships:
            group = table.groups.get(membership.group)
            if group is not None and membership.member == peer and membership.holds(now):
                rights |= group.rights & membership.rights
        return rights

    def admission(self, peer: UUID, memberships: Iterable[bytes] = ()) -> Admission:
        """What a peer that has proved its id may do; memberships that do not hold are left out."""
        held = []
        for raw in memberships:
            try:
                membership = Membership.decode(raw)
                membership.check(peer)
            except MembershipError as error:
                logger.info("peer %s: %s", peer, error)
            else:
                held.append(membership)
        return Admission(self, peer, tuple(held))

    def admit(
        self,
        peer: UUID,
        memberships: Iterable[bytes] = (),
        ticket: bytes = b"",
        *,
        now: float | None = None,
    ) -> Admission:
        """Let a peer in that connected and has proved its id, or refuse it.

        Args:
            peer: Its id.
            memberships: What it shows, encoded.
            ticket: Secret that it presents, or empty. A good one becomes a grant to its id.
            now: The time, in seconds since 1970.

        Raises:
            AccessDeniedError: It is a stranger.
        """
        admission = self.admission(peer, memberships)
        if ticket:
            self._redeem(ticket, peer, time.time() if now is None else now)
        known = self._file.table().peers.get(peer)
        if known is None and not admission.rights(now):
            raise AccessDeniedError(
                f"Endpoint {peer} is not known here. Ask the owner for a ticket "
                "(`proxystore-endpoint share`), or to grant this id.",
                principal=peer,
            )
        return admission

    def peer(self, peer: UUID) -> PeerGrant | None:
        """What we know of a peer."""
        return self._file.table().peers.get(peer)

    def peers(self) -> dict[UUID, PeerGrant]:
        """All peers that we know."""
        return dict(self._file.table().peers)

    def groups(self) -> dict[UUID, GroupGrant]:
        """All groups that we let in."""
        return dict(self._file.table().groups)

    def inviting(self, now: float | None = None) -> bool:
        """Whether a ticket of ours is about, so that somebody unknown may come with it."""
        now = time.time() if now is None else now
        invitations = self._file.table(fresh=True).invitations.values()
        return any(now < invitation.expires for invitation in invitations)

    def memberships(self, now: float | None = None) -> list[bytes]:
        """Our own memberships that hold now, encoded, to be shown to peers."""
        return [raw for raw in self._file.table().memberships if Membership.decode(raw).holds(now)][
            -limits.MAX_MEMBERSHIPS :
        ]

    # Changing.

    def grant(
        self,
        peer: UUID,
        rights: Iterable[Right] = (Right.READ,),
        *,
        name: str | None = None,
        expires: float | None = None,
        addresses: Iterable[str] | None = None,
        relay: str | None = None,
    ) -> None:
        """Let a peer in, or change what it may do. What is None stays as it is."""
        with self._file.edit() as table:
            old = table.peers.get(peer, PeerGrant())
            table.peers[peer] = PeerGrant(
                rights=frozenset(Right(right) for right in rights),
                name=old.name if name is None else name,
                expires=expires,
                addresses=old.addresses if addresses is None else tuple(addresses),
                relay=old.relay if relay is None else relay,
                ticket=old.ticket,
            )

    def revoke(self, peer: UUID) -> bool:
        """Forget a peer; tell whether it was known. Groups may still let it in."""
        with self._file.edit() as table:
            return table.peers.pop(peer, None) is not None

    def grant_group(
        self, group: UUID, rights: Iterable[Right] = (Right.READ,), *, name: str = ""
    ) -> None:
        """Let the members of a group in."""
        with self._file.edit() as table:
            table.groups[group] = GroupGrant(frozenset(Right(right) for right in rights), name)

    def revoke_group(self, group: UUID) -> bool:
        """Let a group's members in no more; tell whether they were."""
        with self._file.edit() as table:
            return table.groups.pop(group, None) is not None

    def add_membership(self, raw: bytes, member: UUID, *, now: float | None = None) -> Membership:
        """Keep a membership that a group's owner signed for us.

        Args:
            raw: The membership, encoded.
            member: Our id.
            now: The time, in seconds since 1970.

        Raises:
            MembershipError: It is forged, another's, or has ended.
        """
        membership = Membership.decode(raw)
        membership.check(member, now)
        with self._file.edit() as table:
            kept = [m for m in map(Membership.decode, table.memberships) if m.holds(now)]
            table.memberships = [m.raw for m in kept if m.group != membership.group] + [raw]
        return membership

    # Tickets.

    def share(self, ticket: Ticket, *, name: str = "", now: float | None = None) -> None:
        """Remember a ticket of ours, so that whoever presents it is let in."""
        now = time.time() if now is None else now
        with self._file.edit() as table:
            ended = [key for key, value in table.invitations.items() if value.expires <= now]
            for key in ended:
                del table.invitations[key]
            table.invitations[ticket.secret_hash] = Invitation(
                ticket.rights, float(ticket.expires), name
            )

    def accept(self, ticket: Ticket, rights: Iterable[Right] = (), *, name: str = "") -> None:
        """Remember where the issuer of a ticket is, and the secret that lets us in there.

        Args:
            ticket: The ticket.
            rights: What the issuer may do here in return.
            name: For people.
        """
        with self._file.edit() as table:
            old = table.peers.get(ticket.uuid, PeerGrant())
            table.peers[ticket.uuid] = PeerGrant(
                rights=old.rights | frozenset(Right(right) for right in rights),
                name=name or old.name,
                expires=old.expires,
                addresses=ticket.addresses or old.addresses,
                relay=ticket.relay or old.relay,
                ticket=ticket.secret,
            )

    def accepted(self, peer: UUID) -> None:
        """A peer let us in: the ticket's secret is not needed any more."""
        known = self.peer(peer)
        if known is not None and known.ticket:
            with self._file.edit() as table:
                if peer in table.peers:
                    table.peers[peer] = msgspec.structs.replace(table.peers[peer], ticket=b"")

    def _redeem(self, secret: bytes, peer: UUID, now: float) -> None:
        key = secret_hash(secret)
        if key not in self._file.table(fresh=True).invitations:
            return  # used up: the peer may be known by now, else it is refused
        with self._file.edit() as table:
            invitation = table.invitations.pop(key, None)
            if invitation is None or invitation.expires <= now:
                return
            old = table.peers.get(peer, PeerGrant())
            table.peers[peer] = msgspec.structs.replace(
                old,
                rights=old.rights | invitation.rights,
                name=old.name or invitation.name,
                expires=None,
            )
