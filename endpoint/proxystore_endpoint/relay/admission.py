"""Whether a relay registers a client: the key, the signature, the relay meant, the credentials."""

from __future__ import annotations

from collections.abc import Set

from proxystore_endpoint.exceptions import RelayRefusedError
from proxystore_endpoint.identity import uuid_of, verify
from proxystore_endpoint.relay.auth import Authenticator, Claim, Principal
from proxystore_endpoint.relay.messages import Register, registration


async def admit(
    message: Register, nonce: bytes, *, authenticator: Authenticator, names: Set[str]
) -> Principal:
    """Check a registration.

    Args:
        message: What the client says.
        nonce: The challenge it answers.
        authenticator: Who may use the relay.
        names: Hosts, or `host:port`, that the relay is dialled by; if empty, it takes any.

    Returns:
        Who the client belongs to.

    Raises:
        RelayRefusedError: If something does not hold; the message is for the client.
        RelayUnreachableError: If the credentials cannot be checked now.
    """
    if uuid_of(message.public_key) != message.uuid:
        raise RelayRefusedError("The id does not belong to the key.")
    audience = message.audience.lower()
    if names and not {audience, audience.rpartition(":")[0]} & names:
        raise RelayRefusedError(f"This is not the relay {message.audience!r}.")
    signed = registration(nonce, message.uuid, message.public_key, message.audience)
    if not verify(message.public_key, signed, message.signature):
        raise RelayRefusedError("The signature is wrong.")
    claim = Claim(message.uuid, nonce, message.audience, message.auth)
    return await authenticator.authenticate(claim)
