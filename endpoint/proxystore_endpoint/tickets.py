"""Tickets: one short string with which an endpoint at another site finds us and is let in.

`proxystore-endpoint share` prints one and `proxystore-endpoint accept` takes it. A ticket is a
secret until it is used: it lets in whoever presents it first. It then is worth nothing, as the
grant is by id. Encoding: `pst1.` and the base64url (RFC 4648, no padding) of a MessagePack array
and the first four bytes of its SHA-256, which catch a ticket that was copied only in part.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import TicketError
from proxystore_endpoint.identity import Identity, uuid_of
from proxystore_endpoint.membership import Right

_PREFIX: Final = "pst1."
_SECRET_LABEL: Final = b"proxystore ticket 1\0"
_CHECK_BYTES: Final = 4


class _Fields(msgspec.Struct, frozen=True, array_like=True):
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    secret: Annotated[bytes, Meta(min_length=limits.SECRET_BYTES, max_length=limits.SECRET_BYTES)]
    expires: int
    rights: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=16)]
    addresses: Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=16)]
    relay: Annotated[str, Meta(max_length=256)] = ""


_DECODER: Final = msgspec.msgpack.Decoder(_Fields)


class Ticket(msgspec.Struct, frozen=True):
    """An invitation.

    Attributes:
        issuer: Public key of the endpoint that invites, 32 bytes.
        secret: One-time secret that whoever comes presents.
        expires: When it ends, in seconds since 1970.
        rights: What it gives.
        addresses: TCP addresses (`host:port`) of the issuer.
        relay: Address of the relay where the issuer is registered, or "".
    """

    issuer: bytes
    secret: bytes
    expires: int
    rights: frozenset[Right]
    addresses: tuple[str, ...] = ()
    relay: str = ""

    @classmethod
    def issue(
        cls,
        identity: Identity,
        *,
        addresses: Iterable[str] = (),
        relay: str = "",
        rights: Iterable[Right] = (Right.READ,),
        lifetime: float = 86400.0,
        now: float | None = None,
    ) -> Ticket:
        """Make a ticket; `Grants.share` must then remember it.

        Args:
            identity: Of the endpoint that invites.
            addresses: Where it can be reached.
            relay: Relay where it is registered.
            rights: What the ticket gives.
            lifetime: Seconds that it can be used.
            now: The time, in seconds since 1970.

        Raises:
            TicketError: The lifetime is too long.
        """
        if not 0 < lifetime <= limits.MAX_TICKET_AGE:
            raise TicketError(
                f"A ticket lasts at most {limits.MAX_TICKET_AGE} seconds, not {lifetime:g}."
            )
        return cls(
            issuer=identity.public_key,
            secret=secrets.token_bytes(limits.SECRET_BYTES),
            expires=int((time.time() if now is None else now) + lifetime),
            rights=frozenset(Right(right) for right in rights),
            addresses=tuple(addresses),
            relay=relay,
        )

    @property
    def uuid(self) -> UUID:
        """Id of the endpoint that invites."""
        return uuid_of(self.issuer)

    @property
    def secret_hash(self) -> str:
        """What the issuer keeps of the secret."""
        return secret_hash(self.secret)

    def encode(self) -> str:
        """The string that people pass on.

        Raises:
            TicketError: It has too many or too long addresses.
        """
        fields = _Fields(
            self.issuer,
            self.secret,
            self.expires,
            sorted(right.value for right in self.rights),
            list(self.addresses),
            self.relay,
        )
        raw = msgspec.msgpack.encode(fields)
        raw += hashlib.sha256(raw).digest()[:_CHECK_BYTES]
        text = _PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        if len(text) > limits.MAX_TICKET:
            raise TicketError("A ticket with so many addresses is too long: give fewer.")
        return text

    @classmethod
    def decode(cls, text: str, *, now: float | None = None) -> Ticket:
        """Read a ticket.

        Args:
            text: What `encode` gave; spaces and line breaks in it do not matter.
            now: The time, in seconds since 1970.

        Raises:
            TicketError: It is no ticket, incomplete, or has ended.
        """
        text = "".join(text.split()) if len(text) <= 2 * limits.MAX_TICKET else ""
        if not text.startswith(_PREFIX) or len(text) > limits.MAX_TICKET:
            raise TicketError(f"This is no ticket: a ticket starts with {_PREFIX!r}.")
        body = text[len(_PREFIX) :]
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise TicketError("The ticket is damaged: copy all of it, and nothing else.") from None
        raw, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if hashlib.sha256(raw).digest()[:_CHECK_BYTES] != check:
            raise TicketError("The ticket is damaged: copy all of it, and nothing else.")
        try:
            fields = _DECODER.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise TicketError("The ticket was made by another version: update both.") from None
        if fields.expires <= (time.time() if now is None else now):
            raise TicketError("The ticket has ended: ask for a new one.")
        known = {right.value for right in Right}
        return cls(
            issuer=fields.key,
            secret=fields.secret,
            expires=fields.expires,
            rights=frozenset(Right(right) for right in fields.rights if right in known),
            addresses=tuple(fields.addresses),
            relay=fields.relay,
        )

    def __repr__(self) -> str:
        return f"Ticket({self.uuid}, rights={sorted(self.rights)}, expires={self.expires})"


def secret_hash(secret: bytes) -> str:
    """SHA-256 of a ticket's secret, in hex; the secret is random, so no salt is needed."""
    return hashlib.sha256(_SECRET_LABEL + secret).hexdigest()
