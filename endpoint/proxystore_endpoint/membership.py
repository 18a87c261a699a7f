"""Groups of endpoints: an owner signs who belongs to it, and whoever trusts the group lets them in.

A group's id is its owner's endpoint id, so it can be checked by anyone, and nobody needs a list
of members or the owner online.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import MembershipError
from proxystore_endpoint.identity import Identity, uuid_of, verify

_LABEL: Final = b"proxystore membership 1\0"


class Right(StrEnum):
    """What a peer may do here."""

    READ = "read"
    """get, exists, stat"""
    WRITE = "write"
    """put, evict"""
    LIST = "list"
    """list"""


ALL_RIGHTS: Final = frozenset(Right)


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    group_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    member: UUID
    rights: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=16)]
    issued: int
    expires: int


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    claims: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


_SIGNED: Final = msgspec.msgpack.Decoder(_Signed)
_CLAIMS: Final = msgspec.msgpack.Decoder(_Claims)


class Membership(msgspec.Struct, frozen=True):
    """A group owner's signed word that an endpoint belongs to the group.

    Attributes:
        group: Id of the group: its owner's endpoint id.
        member: Id of the endpoint.
        rights: The most that it may do as a member.
        issued: When it was signed, in seconds since 1970.
        expires: When it ends.
        raw: Its encoded form, which is what travels.
    """

    group: UUID
    member: UUID
    rights: frozenset[Right]
    issued: int
    expires: int
    raw: bytes

    @classmethod
    def issue(
        cls,
        owner: Identity,
        member: UUID,
        rights: Iterable[Right] = (Right.READ,),
        *,
        lifetime: float = limits.MAX_MEMBERSHIP_AGE,
        now: float | None = None,
    ) -> Membership:
        """Sign a membership.

        Args:
            owner: Whose group it is.
            member: Who belongs to it.
            rights: The most that the member may do; those who trust the group may allow less.
            lifetime: Seconds that it holds, at most `limits.MAX_MEMBERSHIP_AGE`.
            now: The time, in seconds since 1970.

        Raises:
            MembershipError: The lifetime is too long.
        """
        if not 0 < lifetime <= limits.MAX_MEMBERSHIP_AGE:
            raise MembershipError(
                f"A membership lasts at most {limits.MAX_MEMBERSHIP_AGE} seconds "
                f"(30 days), not {lifetime:g}; sign a new one before it ends."
            )
        issued = int(time.time() if now is None else now)
        claims = msgspec.msgpack.encode(
            _Claims(
                owner.public_key,
                member,
                sorted(Right(right).value for right in rights),
                issued,
                issued + int(lifetime),
            )
        )
        signed = _Signed(claims, owner.sign(_LABEL + claims))
        return cls.decode(msgspec.msgpack.encode(signed))

    @classmethod
    def decode(cls, raw: bytes) -> Membership:
        """Read an encoded membership and check its signature and its form, not its dates.

        Raises:
            MembershipError: It is no membership, or forged.
        """
        try:
            signed = _SIGNED.decode(raw)
            claims = _CLAIMS.decode(signed.claims)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MembershipError(f"A membership cannot be read: {error}") from None
        group = uuid_of(claims.group_key)
        if not verify(claims.group_key, _LABEL + signed.claims, signed.signature):
            raise MembershipError(f"A membership of group {group} was not signed by its owner.")
        if not 0 < claims.expires - claims.issued <= limits.MAX_MEMBERSHIP_AGE:
            raise MembershipError(
                f"A membership of group {group} lasts longer than {limits.MAX_MEMBERSHIP_AGE} s."
            )
        known = {right.value for right in Right}
        return cls(
            group=group,
            member=claims.member,
            rights=frozenset(Right(right) for right in claims.rights if right in known),
            issued=claims.issued,
            expires=claims.expires,
            raw=raw,
        )

    def holds(self, now: float | None = None) -> bool:
        """Whether the time is within its dates (clocks may differ by `limits.CLOCK_SKEW`)."""
        now = time.time() if now is None else now
        return self.issued - limits.CLOCK_SKEW <= now < self.expires

    def check(self, member: UUID, now: float | None = None) -> None:
        """Make sure that it is `member`'s and holds now.

        Raises:
            MembershipError: It is another's, has ended, or has not begun.
        """
        if self.member != member:
            raise MembershipError(
                f"A membership of group {self.group} is {self.member}'s, not {member}'s."
            )
        if not self.holds(now):
            raise MembershipError(
                f"A membership of group {self.group} has ended (or a clock is wrong): ask the "
                "group's owner for a new one."
            )
